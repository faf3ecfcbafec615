//! `agent join --dry-run`: what a join would meet, as words.

use std::process::ExitCode;

use super::{
    checks,
    failure::Failure,
    print::{self, print_json, print_text},
};
use crate::membership::{self, Hands, JoinRequest, Rehearsal, Spending};

/// Rehearses a join and tells how it went; ends with the code of the worst that is in its way.
pub(super) async fn rehearse(hands: &Hands, request: &JoinRequest, json: bool) -> Result<ExitCode, Failure> {
    let Rehearsal { backend, changes, checks, chosen, interface, spends, server, status } =
        membership::rehearse(hands, request).await?;
    let changes: Vec<_> = changes.iter().map(|change| format!("{change:?}")).collect();
    let code = checks::code(&checks);
    if json {
        print_json(&serde_json::json!({
            "result": "dry-run", "backend": backend, "changes": changes, "checks": checks, "interface": interface,
            "key": chosen.key, "passed_over": chosen.passed_over, "server": server,
            "spends_a_use": spends == Spending::Key, "status": status,
        }));
        return Ok(code);
    }
    let carrier = backend.map(|backend| format!(" ({backend})")).unwrap_or_default();
    let mut text =
        format!("dry run: nothing was spent, saved or changed\nserver {server}, interface {interface}{carrier}\n");
    text.push_str(&checks::lines(&checks));
    text.push_str(match spends {
        Spending::Key => "joining redeems the key and then learns the networks\n",
        Spending::Nothing => "this host is enrolled already; joining spends nothing\n",
    });
    for change in changes {
        text.extend(["would: ", &change, "\n"]);
    }
    if let Some(status) = status {
        text.extend(["\n", &print::status(&status)]);
    }
    print_text(&text);
    Ok(code)
}
