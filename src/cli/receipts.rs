//! `agent receipts`: what happened to this device's memberships.

use std::process::ExitCode;

use super::{
    Common,
    failure::{self, Failure},
    hands,
    print::{print_json, print_text},
};
use crate::{
    config::Flags,
    model::Class,
    store::{Receipt, Receipts},
};

/// Show what happened to this device's memberships: one line each, the oldest first.
///
/// Each line is sealed with the hash of the one before. `--verify` ends with 1 and names the first line that is not as it
/// was written. Whoever has root can write all of it anew: note the last hash elsewhere to notice that.
#[derive(Debug, clap::Args)]
pub(super) struct ReceiptsCommand {
    /// Look whether the chain holds
    #[arg(long, env = "ENROLL_AGENT_VERIFY")]
    verify: bool,
}

impl ReceiptsCommand {
    pub(super) fn run(&self, common: &Common) -> Result<ExitCode, Failure> {
        let config = common.config(&Flags::default())?;
        let Receipts { broken, lines } = hands(&config).store.receipts()?;
        if !self.verify {
            print_all(&lines, common.json);
            return Ok(ExitCode::SUCCESS);
        }
        let last = lines.last().and_then(|line| hash(line));
        if common.json {
            let broken = broken.as_ref().map(ToString::to_string);
            print_json(&serde_json::json!({ "broken": broken, "last_hash": last, "receipts": lines.len() }));
        }
        if let Some(broken) = broken {
            eprintln!("agent: {broken}");
            return Ok(failure::exit(Class::Other));
        }
        if !common.json {
            let last = last.map(|hash| format!(", the last hash is {hash}")).unwrap_or_default();
            print_text(&format!("{} in order{last}\n", super::print::counted(lines.len(), "receipt")));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Prints the lines as they are for programs, and what they say for people.
fn print_all(lines: &[String], json: bool) {
    if json {
        let documents = lines.iter().map(|line| serde_json::from_str(line).unwrap_or(serde_json::Value::Null));
        print_json(&serde_json::json!({ "receipts": documents.collect::<Vec<_>>() }));
        return;
    }
    let texts: Vec<_> = lines.iter().map(|line| text(line)).collect();
    print_text(&texts.concat());
}

fn text(line: &str) -> String {
    let Ok(receipt) = line.parse::<Receipt>() else { return "(not a receipt)\n".to_owned() };
    let Receipt { sequence, time, event, detail, server, host_id, networks, .. } = receipt;
    let networks: Vec<_> = networks.keys().map(ToString::to_string).collect();
    let networks = if networks.is_empty() { String::new() } else { format!(", in {}", networks.join(", ")) };
    let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
    format!("{sequence:>5}  {time}  {event:<16}  {server} (host {host_id}{networks}){detail}\n")
}

/// The hash that a line ends with.
fn hash(line: &str) -> Option<String> {
    let document: serde_json::Value = serde_json::from_str(line).ok()?;
    Some(document.get("hash")?.as_str()?.to_owned())
}
