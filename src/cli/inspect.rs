//! `agent inspect`: what can be told of an enrollment key without redeeming it.

use std::process::ExitCode;

use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Common,
    failure::Failure,
    hands,
    print::{counted, print_json, print_text},
    prompt,
};
use crate::{
    config::{Flags, KeyFlags, Keys, ask_for_keys},
    daemon::clock,
    membership,
    model::{Class, KeyFacts, KeyShape, KeyStanding, Secret, Token},
};

/// Tell what an enrollment key says about itself, and with --online whether its server knows it.
///
/// Spends nothing, saves nothing and needs no rights. Ends with 0 if the key can be read and, with --online, is known
/// and not at its end, with 5 otherwise, and with 75 if the server cannot be asked.
#[derive(Debug, clap::Args)]
pub(super) struct Inspect {
    /// The enrollment key, or - to read it from standard input; without it the places of `agent join` are looked at
    #[arg(value_name = "KEY", value_parser = super::join::secret)]
    key: Option<Secret>,
    #[command(flatten)]
    keys: KeyFlags,
    /// Ask the server whether it knows the key
    #[arg(long, env = "ENROLL_AGENT_ONLINE")]
    online: bool,
    #[command(flatten, next_help_heading = "As for join")]
    flags: Flags,
}

/// A key as JSON.
#[derive(Serialize)]
struct Inspected {
    fingerprint: String,
    server: String,
    port: u16,
    shape: KeyShape,
    /// Not there unless the server was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    online: Option<Online>,
}

/// What the server said.
#[derive(Serialize)]
struct Online {
    /// `None` if it could not be asked.
    known: Option<bool>,
    /// Why it is not known, or could not be asked.
    error: Option<String>,
    /// `None` from a server that tells no more.
    facts: Option<KeyFacts>,
    standing: Option<KeyStanding>,
}

impl Inspect {
    /// The key on the command line, which must not stay there.
    pub(super) fn key(&self) -> Option<&Secret> {
        self.key.as_ref().filter(|key| key.expose() != "-")
    }

    pub(super) async fn run(&self, common: &Common) -> Result<ExitCode, Failure> {
        let config = common.config(&self.flags)?;
        let given = KeyFlags { ask: Some(prompt::ask), key: self.key.clone(), ..self.keys.clone() };
        let found = match config.keys(&given)? {
            None => ask_for_keys(prompt::ask)?,
            found => found,
        };
        let Some(keys) = found else {
            return Err(Failure::usage("no enrollment key given", "run `agent inspect <key>`, or give --key-file"));
        };
        let overrides = keys.settle(config.overrides.clone());
        let Keys { notes, pins: _, source: _, tokens } = keys;
        for note in &notes {
            eprintln!("agent: {note}");
        }
        let mut inspected = Vec::new();
        let mut worst: Option<Failure> = None;
        for token in &tokens {
            let mut online = None;
            if self.online {
                let answer = membership::ask_about(&hands(&config), token, &overrides).await;
                let (told, failure) = judge(answer.map_err(Failure::from), clock::unix_seconds());
                online = Some(told);
                worst = worst.or(failure);
            }
            inspected.push(Inspected::new(token, online));
        }
        if common.json {
            print_json(&serde_json::json!({ "keys": inspected, "notes": notes }));
        } else {
            print_text(&inspected.iter().map(Inspected::text).collect::<Vec<_>>().join("\n"));
        }
        match worst {
            Some(failure) => Ok(failure.report(false)),
            None => Ok(ExitCode::SUCCESS),
        }
    }
}

/// What to show of an answer, and what is wrong with the key or the way to its server.
fn judge(answer: Result<Option<KeyFacts>, Failure>, now: u64) -> (Online, Option<Failure>) {
    match answer {
        Ok(facts) => {
            let standing = facts.as_ref().map(|facts| facts.standing(now));
            let failure = standing
                .and_then(ended)
                .map(|what| Failure::of(Class::Refused, format!("the server knows the key, and {what}"), NEW_KEY));
            (Online { known: Some(true), error: None, facts, standing }, failure)
        }
        Err(failure) => {
            let known = failure.is(Class::Refused).then_some(false);
            let error = Some(failure.message().to_owned());
            (Online { known, error, facts: None, standing: None }, Some(failure))
        }
    }
}

fn ended(standing: KeyStanding) -> Option<&'static str> {
    match standing {
        KeyStanding::Disabled => Some("it is disabled"),
        KeyStanding::Expired => Some("it has expired"),
        KeyStanding::Good => None,
        KeyStanding::UsedUp => Some("it was used as often as it may be"),
    }
}

impl Inspected {
    fn new(token: &Token, online: Option<Online>) -> Self {
        let server = token.server();
        let (host, port) = (server.host().to_owned(), server.port());
        Self { fingerprint: token.fingerprint(), server: host, port, shape: token.shape(), online }
    }

    fn text(&self) -> String {
        let Self { fingerprint, server, port, shape, online } = self;
        let KeyShape { length, usual, value_length } = shape;
        let made = if *usual { "as servers make them" } else { "not as servers make them by themselves" };
        let mut text = format!(
            "key {fingerprint}: well formed, {length} characters, a value of {value_length}, {made}\nserver {server}, \
             port {port}\n"
        );
        let Some(Online { known, error, facts, standing: _ }) = online else { return text };
        text.push_str(match known {
            Some(true) if facts.is_some() => "the server knows the key\n",
            Some(true) => "the server knows the key; whether it is used up or expired only joining tells\n",
            Some(false) => "the server refuses the key\n",
            None => "the server could not be asked\n",
        });
        if let Some(error) = error.as_ref().filter(|_| known.is_none()) {
            text.extend([error, "\n"]);
        }
        if let Some(facts) = facts {
            text.push_str(&told(facts));
        }
        text
    }
}

fn told(facts: &KeyFacts) -> String {
    let KeyFacts { disabled, expires_at, networks, ranges: _, tags, uses_left } = facts;
    let list = |names: &std::collections::BTreeSet<String>| match names.len() {
        0 => "none".to_owned(),
        _ => names.iter().cloned().collect::<Vec<_>>().join(", "),
    };
    let end = match (expires_at, uses_left) {
        (Some(at), _) => format!("expires {}", date(*at)),
        (None, Some(uses)) => {
            format!("{} left", counted(usize::try_from(*uses).unwrap_or(usize::MAX), "use"))
        }
        (None, None) => "no end".to_owned(),
    };
    let disabled = if *disabled { ", disabled" } else { "" };
    format!("networks {}; tags {}; {end}{disabled}\n", list(networks), list(tags))
}

fn date(at: u64) -> String {
    let time = i64::try_from(at).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| at.to_string())
}

const NEW_KEY: &str = "ask your administrator for a new key";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_tells_is_one_line() {
        let facts = KeyFacts {
            disabled: true,
            expires_at: Some(1_582_934_400),
            networks: ["office".to_owned(), "plant-a".to_owned()].into(),
            ..KeyFacts::default()
        };

        assert_eq!(told(&facts), "networks office, plant-a; tags none; expires 2020-02-29T00:00:00Z, disabled\n");
        assert_eq!(
            told(&KeyFacts { uses_left: Some(1), ..KeyFacts::default() }),
            "networks none; tags none; 1 use left\n"
        );
    }
}
