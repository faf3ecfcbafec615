//! Failures as the user sees them: what happened, what to do, and an exit code per class.

use std::{error::Error, io::ErrorKind, process::ExitCode};

use crate::{
    config::ConfigError,
    control::{CertificateProblem, Garbled, Refusal, RestError},
    ipc::{self, IpcError},
    link::LinkError,
    membership::{ImportError, MembershipError},
    model::{Class, ErrorReport},
    store::StoreError,
};

/// The table in `--help`, the README and the tests.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
   0  done, or already enrolled with this key
   1  another failure
   2  wrong usage
   3  not enrolled, or no agent serves
   4  not permitted
   5  key refused: malformed, unknown, expired, used up or disabled
   6  the identity or the interface belongs to something else
   7  enrolled, still waiting for a network
   8  enrolled, but not in every required network
   9  held: this machine is a copy of another one, or may be
  75  temporary: network, DNS, TLS, clock or server trouble; try again
  78  configuration";

/// Something that ends the command.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    hint: Option<String>,
    message: String,
}

impl Failure {
    /// A failure of no special class.
    pub(super) fn other(message: impl Into<String>) -> Self {
        Self { code: OTHER, hint: None, message: message.into() }
    }

    /// Wrong usage that only shows when everything is known.
    pub(super) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: USAGE, hint: Some(hint.into()), message: message.into() }
    }

    /// A failure of `class`.
    pub(super) fn of(class: Class, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: code(class), hint: Some(hint.into()), message: message.into() }
    }

    /// A failure of `class`, with what can be done about that class.
    pub(super) fn class(class: Class, message: impl Into<String>) -> Self {
        Self { code: code(class), hint: advice(class).map(str::to_owned), message: message.into() }
    }

    /// The agent ended, or there was none.
    pub(super) fn not_running() -> Self {
        Self::of(Class::NotEnrolled, "no agent serves here any more", "start it with `agent run`, or as a service")
    }

    /// A membership that cannot be read.
    pub(super) fn broken(error: &ErrorReport, server: &str) -> Self {
        let hint = "nothing was changed; the README's section on troubleshooting says what to do";
        Self::of(error.class, format!("{server}: {}", error.message), hint)
    }

    /// A failure that a serving agent reported.
    pub(super) fn reported(failure: ipc::Failure) -> Self {
        Self { code: code(failure.class), hint: advice(failure.class).map(str::to_owned), message: failure.message }
    }

    /// Whether it is of that class.
    pub(super) fn is(&self, class: Class) -> bool {
        self.code == code(class)
    }

    /// Whether trying again may be enough.
    pub(super) fn is_temporary(&self) -> bool {
        self.code == TEMPORARY
    }

    /// Says in which step it happened.
    pub(super) fn during(self, step: &str) -> Self {
        Self { message: format!("could not {step}: {}", self.message), ..self }
    }

    /// What happened.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// Says it: text on standard error, with `json` also an object on standard output.
    pub(super) fn report(&self, json: bool) -> ExitCode {
        let Self { code, hint, message } = self;
        eprintln!("agent: {message}");
        if let Some(hint) = hint {
            eprintln!("  {hint}");
        }
        if json {
            println!("{}", serde_json::json!({ "error": { "code": code, "hint": hint, "message": message } }));
        }
        ExitCode::from(*code)
    }
}

/// Prints what clap says, without any key that was typed in the wrong place.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if error.use_stderr() {
        eprint!("{}", without_keys(&text));
        return ExitCode::from(USAGE);
    }
    print!("{text}");
    ExitCode::SUCCESS
}

/// What to do about a failure of which only the class is known.
fn advice(class: Class) -> Option<&'static str> {
    match class {
        Class::Clock => Some("nothing was sent; the agent goes on when this machine's clock is set"),
        Class::Configuration | Class::Other | Class::Usage => None,
        Class::Denied => Some("run as root, or as a member of the group enroll-agent"),
        Class::Foreign => Some("the identity or the interface belongs to something else; `agent status` shows which"),
        Class::Held => Some(HELD_HINT),
        Class::NotEnrolled => {
            Some("run `agent join <key>`; for a host that the server deleted run `agent leave --server SERVER` first")
        }
        Class::Partial => Some(PARTIAL_HINT),
        Class::Refused => Some("ask your administrator for a new key, then run `agent join <key>` again"),
        Class::Temporary => Some("the agent goes on trying; `agent status` shows when"),
        Class::Waiting => {
            Some("an administrator may have to approve this host; `agent status --watch` shows when it is in")
        }
    }
}

/// The exit code of a class.
pub(super) fn exit(class: Class) -> ExitCode {
    ExitCode::from(code(class))
}

/// The exit code that says no.
pub(super) fn not_serving() -> ExitCode {
    exit(Class::NotEnrolled)
}

/// Returns the number of a class.
fn code(class: Class) -> u8 {
    match class {
        Class::Configuration => CONFIGURATION,
        Class::Denied => DENIED,
        Class::Foreign => FOREIGN,
        Class::Held => HELD,
        Class::NotEnrolled => NOT_ENROLLED,
        Class::Other => OTHER,
        Class::Partial => PARTIAL,
        Class::Refused => REFUSED,
        Class::Clock | Class::Temporary => TEMPORARY,
        Class::Usage => USAGE,
        Class::Waiting => WAITING,
    }
}

impl From<MembershipError> for Failure {
    fn from(error: MembershipError) -> Self {
        Self { code: code(error.class()), hint: hint(&error), message: chain(&error) }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let (code, hint) = match &error {
            ConfigError::Token(_) => {
                (REFUSED, "copy the whole key again, or ask your administrator for a new one".to_owned())
            }
            ConfigError::Permissive { path, .. } => (CONFIGURATION, format!("run `chmod 600 {}`", path.display())),
            ConfigError::Homeless => (CONFIGURATION, "give --state-dir, or run as root".to_owned()),
            ConfigError::Read { .. } | ConfigError::Invalid { .. } | ConfigError::Pin(_) => {
                (CONFIGURATION, "`agent join --help` lists the settings and their places".to_owned())
            }
        };
        Self { code, hint: Some(hint), message: chain(&error) }
    }
}

impl From<IpcError> for Failure {
    fn from(error: IpcError) -> Self {
        let (code, hint) = match &error {
            IpcError::Socket { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                (DENIED, "run as root, or as the user who may enter that folder; --runtime-dir chooses another")
            }
            IpcError::Socket { source, .. } if source.kind() == ErrorKind::TimedOut => {
                (TEMPORARY, "the agent is busy with its server; try again")
            }
            IpcError::Socket { .. } => (OTHER, "give --runtime-dir a folder that this user can write to"),
            IpcError::Taken(_) => (OTHER, "`agent status` shows it; stop that agent first"),
        };
        Self { code, hint: Some(hint.to_owned()), message: chain(&error) }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        MembershipError::from(error).into()
    }
}

fn hint(error: &MembershipError) -> Option<String> {
    let text = match error {
        MembershipError::Assignment { .. } => "nothing was changed; tell the administrator of the server",
        MembershipError::Deleted(server) => {
            return Some(format!("run `agent leave --server {server}`, then join again to enroll as a new host"));
        }
        MembershipError::Firewall(_) => "`nft list tables` shows it; start the agent again, or remove it with nft",
        MembershipError::Held { .. } | MembershipError::Inherited(_) => HELD_HINT,
        MembershipError::Host { .. } | MembershipError::Push(_) => return None,
        MembershipError::Import(error) => import_hint(error),
        MembershipError::Link(error) => return link_hint(error),
        MembershipError::NoNetworks { .. } => {
            "the key is redeemed; an administrator may have to approve this host. Run `agent join` again to go on waiting"
        }
        MembershipError::NoneTaken { .. } => "ask your administrator for a new key, then run `agent join <key>` again",
        MembershipError::NotEnrolled => "run `agent join <key>`",
        MembershipError::NotInNetwork(_) => "`agent status` lists its networks",
        MembershipError::NotServing(_) => "run `agent join` to serve it",
        MembershipError::Overlap { .. } => {
            "nothing was changed; free that range on this machine, or set `overlap` to skip-network or table"
        }
        MembershipError::PortTaken(_) => "nothing was sent; choose another with --port, or stop whoever has it",
        MembershipError::Stopped => "run `agent join` again: it goes on where it stopped",
        MembershipError::Proof(_) => "this identity is used by another host; run `agent leave`, then join as a new one",
        MembershipError::Refused { refusal, .. } => match refusal {
            Refusal::Posture => "ask your administrator which requirement this device does not meet",
            Refusal::Proof => "run `agent leave`, then join again as a new host",
            Refusal::Version => "update the agent",
            Refusal::Disabled | Refusal::NoNetworks | Refusal::Unknown | Refusal::Unreadable | Refusal::UsedUp => {
                "ask your administrator for a new key, then run `agent join <key>` again"
            }
        },
        MembershipError::Rest(error) => return rest_hint(error),
        MembershipError::Several => "say which one with --server",
        MembershipError::Store(error) => return Some(store_hint(error)),
        MembershipError::SwitchedOff(_) => "run `agent up`",
        MembershipError::TimedOut { .. } => {
            "run `agent join` again: it goes on where it stopped; --timeout waits longer"
        }
        MembershipError::Trust(_) => "give the server's certificate authority with --ca-file",
        MembershipError::Unconfirmed(_) => "the old key stays in force; try again",
        MembershipError::Unclear { .. } => {
            "run `agent join` again later: it asks the server first whether the key was counted"
        }
    };
    Some(text.to_owned())
}

fn import_hint(error: &ImportError) -> &'static str {
    match error {
        ImportError::AtWork(_) | ImportError::Interface(_) => {
            "run `systemctl disable --now netclient`, and `ip link delete netmaker` if its interface stays"
        }
        ImportError::Netclient(_) => "nothing was changed; join with a new key instead",
        ImportError::Nothing(_) => "give its folder with --dir",
        ImportError::Read { .. } => "run as root",
        ImportError::Taken(_) => "run `agent leave` first if netclient's enrollment is the one to keep",
    }
}

fn link_hint(error: &LinkError) -> Option<String> {
    let text = match error {
        LinkError::Absent => "leave out `--backend kernel`, or load the wireguard module",
        LinkError::Denied { .. } => "run as root, or with the capability CAP_NET_ADMIN and access to /dev/net/tun",
        LinkError::Failed { .. } => return None,
        LinkError::NoTun => "load the tun module, or give the container /dev/net/tun",
        LinkError::Taken(_) => "choose another name with --interface, or remove that interface",
    };
    Some(text.to_owned())
}

fn rest_hint(error: &RestError) -> Option<String> {
    let text = match error {
        RestError::Certificate { problem, .. } => match problem {
            CertificateProblem::NotYetValid(_) => "nothing was sent; set this machine's clock and try again",
            CertificateProblem::NotPinned(_) => {
                "nothing was sent; if the server's administrator confirms that key, give it with --pin"
            }
            CertificateProblem::Expired(_) => {
                "nothing was sent; check this machine's clock, then the server's certificate"
            }
            CertificateProblem::Name => {
                "nothing was sent; the key may name the server wrongly, or this is another server"
            }
            CertificateProblem::Untrusted | CertificateProblem::Other => {
                "nothing was sent; a server with a private certificate authority needs --ca-file"
            }
        },
        RestError::Tls { server, .. } if server.is_loopback() => {
            "nothing was sent; a server without TLS on this machine needs --allow-http"
        }
        RestError::Status { status: 300..=399, .. } => {
            "redirects are not followed; the key may name the server wrongly"
        }
        RestError::Connect { .. } | RestError::Tls { .. } => {
            "nothing was sent; check the network and that the server runs, then try again"
        }
        RestError::Garbled { what: Garbled::Html, .. } => "a proxy or login page may be in the way; try again",
        RestError::Resolve(_) => "nothing was sent; check the network, the DNS servers and the key",
        RestError::Garbled { .. } | RestError::Interrupted { .. } | RestError::Timeout(_) => "try again",
        RestError::Status { status: 404, .. } => "the key may name a server that is no enrollment server",
        RestError::Status { .. } => "try again later; if it stays, tell the administrator of the server",
        RestError::Encode(_) | RestError::Setup { .. } => return None,
    };
    Some(text.to_owned())
}

fn store_hint(error: &StoreError) -> String {
    let text = match error {
        StoreError::Busy { .. } => "`agent status` shows it; stop that agent first",
        StoreError::Corrupt { path, .. } => {
            let folder = path.parent().unwrap_or(path).display();
            return format!("restore it from a backup, or remove {folder} to enroll again as a new host");
        }
        StoreError::Newer { .. } => "run the newer agent that wrote it",
        StoreError::Older { .. } => "run the agent that wrote it once more, or remove it to enroll again as a new host",
        StoreError::Read { .. } | StoreError::Write { .. } => {
            "run as the user the state belongs to, or give --state-dir"
        }
    };
    text.to_owned()
}

/// The message and its causes, once each.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Replaces words that look like a key: base64 of `{"`.
fn without_keys(text: &str) -> String {
    let is_key = |word: &str| word.trim_start_matches(['\'', '"', '<', '[']).starts_with("eyJ") && word.len() > 20;
    let words = text.split_inclusive(char::is_whitespace);
    words.map(|word| if is_key(word) { "(key) " } else { word }).collect()
}

/// What the owner of a machine that may be a copy can say.
const HELD_HINT: &str = "a copy: `agent join <key> --new-identity`; the same machine with other hardware: `agent join \
                         --keep-identity`";

/// What becomes of what is missing.
const PARTIAL_HINT: &str =
    "the host stays enrolled, and a network that is missing may still come; `agent status` shows it";

const OTHER: u8 = 1;
const USAGE: u8 = 2;
const NOT_ENROLLED: u8 = 3;
const DENIED: u8 = 4;
const REFUSED: u8 = 5;
const FOREIGN: u8 = 6;
const WAITING: u8 = 7;
const PARTIAL: u8 = 8;
const HELD: u8 = 9;
const TEMPORARY: u8 = 75;
const CONFIGURATION: u8 = 78;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_the_same_exit_codes() {
        let readme = include_str!("../../README.md");
        let rows: Vec<_> = EXIT_CODES.lines().skip(1).map(|line| line.trim().split_once("  ").unwrap()).collect();

        for (code, meaning) in &rows {
            assert!(readme.contains(&format!("| {code} | {meaning} |")), "{code} {meaning}");
        }
        let known =
            [OTHER, USAGE, NOT_ENROLLED, DENIED, REFUSED, FOREIGN, WAITING, PARTIAL, HELD, TEMPORARY, CONFIGURATION];
        let codes: Vec<u8> = rows.iter().skip(1).map(|(code, _)| code.parse().unwrap()).collect();
        assert_eq!(codes, known);
    }

    #[test]
    fn a_key_typed_in_the_wrong_place_is_not_repeated() {
        let text = "error: unrecognized subcommand 'eyJzZXJ2ZXIiOiJhcGkubm0uZXhhbXBsZS5uZXQi'\n\nUsage: agent";

        assert_eq!(without_keys(text), "error: unrecognized subcommand (key) \nUsage: agent");
    }
}
