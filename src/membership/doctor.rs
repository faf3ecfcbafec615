//! Looking at this machine and its memberships for whatever is not as it should be; nothing is changed that stays.

use std::{collections::BTreeSet, fs, net::IpAddr, num::NonZeroU16, path::Path};

use super::{Hands, MembershipError, abilities, describe, way};
use crate::{
    control::{self, Freshness, Trust, knock},
    daemon::clock,
    facts::{self, Haystack, Hideout, Searched},
    firewall, link,
    model::{
        Backend, Check, CheckVerdict, Class, DnsMode, FirewallSetting, FirewallStatus, Membership, Pins, Report,
        Server, State, Status,
    },
    plan::{FoundSecret, SecretKind, checkup},
};

/// Where an agent of this machine has its things.
#[derive(Clone, Copy, Debug)]
pub struct Belongings<'a> {
    /// The configuration file.
    pub config: &'a Path,
    /// The folder for sockets.
    pub runtime: &'a Path,
    /// The folder for memberships.
    pub state: &'a Path,
}

/// Looks at what this machine has for tunnels.
pub async fn examine_machine(report: Option<&Report>) -> Vec<Check> {
    let statuses = report.map(|report| report.memberships.as_slice()).unwrap_or_default();
    let in_use: Option<Backend> = statuses.iter().find_map(|status| status.backend);
    let (_, mut checks) = abilities::backend(None, in_use).await;
    let ignores = |status: &Status| status.firewall == Some(FirewallStatus::Ignored);
    let setting = (!statuses.is_empty() && statuses.iter().all(ignores)).then_some(FirewallSetting::Ignore);
    checks.push(abilities::firewall(setting));
    let mode = statuses.iter().find_map(|status| status.dns.as_ref()).map_or(DnsMode::Split, |dns| dns.mode);
    checks.push(abilities::resolver(mode).await);
    checks.extend(leftovers(statuses).await);
    // What only root can see is no failure of the machine.
    checks.into_iter().map(|check| if check.class == Some(Class::Denied) { unseen(check) } else { check }).collect()
}

fn unseen(check: Check) -> Check {
    Check { class: None, verdict: CheckVerdict::Unknown, ..check }
}

/// Looks at files that others must not read or change.
pub fn examine_files(belongings: Belongings<'_>) -> Vec<Check> {
    let Belongings { config, runtime, state } = belongings;
    let mut secret = vec![state.to_owned()];
    secret.extend(fs::read_dir(state).into_iter().flatten().filter_map(Result::ok).flat_map(|entry| {
        let file = entry.path().join("membership.json");
        [entry.path(), file].into_iter().filter(|path| path.exists()).collect::<Vec<_>>()
    }));
    let mut wrong: Vec<_> = secret.iter().filter_map(|path| permissive(path, 0o077, "read")).collect();
    wrong.extend([config, runtime].into_iter().filter_map(|path| permissive(path, 0o022, "change")));
    if wrong.is_empty() {
        wrong.push(match facts::mode(state) {
            Some(_) => Check::ok("permissions", "state, configuration and socket are as they should be"),
            None => Check::ok("permissions", "there is no state"),
        });
    }
    wrong
}

fn permissive(path: &Path, mask: u32, what: &str) -> Option<Check> {
    let (mode, _) = facts::mode(path)?;
    let shown = path.display();
    let advice = format!("run `chmod {:o} {shown}`", mode & !mask & 0o777);
    let detail = format!("others can {what} it (mode {mode:o})");
    (mode & mask != 0).then(|| Check::failed("permissions", Class::Other, detail, advice).of(shown))
}

/// Looks at one membership, its interface and the way to its server.
pub async fn examine_membership(hands: &Hands, status: &Status) -> Vec<Check> {
    let mut checks = checkup::membership(status);
    checks.extend(table(status).await);
    let saved = status.server.parse::<Server>().ok().and_then(|server| hands.store.load(&server).ok().flatten());
    let saved = saved.as_ref();
    let (seen_mtu, way) = server(hands, status, saved).await;
    let is_reached = way.iter().all(|check| check.verdict != CheckVerdict::Failed);
    checks.extend(way);
    checks.extend(mtu(status, seen_mtu).await);
    let is_ours = !matches!(status.state, State::Clone | State::Held | State::Pending | State::Revoked);
    match saved.filter(|saved| saved.enrolled().is_some()) {
        _ if !is_ours => {}
        Some(membership) if is_reached => checks.extend(known(hands, status, membership).await),
        seen => {
            let (detail, advice) = match seen {
                Some(_) => ("the server could not be asked", "look again when it answers"),
                None => ("the server was not asked: the saved identity cannot be read", "run as root"),
            };
            checks.extend(["endpoint", "forwarding"].map(|id| Check::unknown(id, detail, advice).of(&status.server)));
        }
    }
    checks
}

/// Whether a filter that is said to be in force is there.
async fn table(status: &Status) -> Option<Check> {
    let Some(FirewallStatus::Enforced { .. }) = status.firewall else { return None };
    let check = match firewall::interfaces().await {
        Ok(there) if there.contains(&status.interface) => Check::ok("firewall-table", "is in place"),
        Ok(_) if firewall::is_installed() => {
            let advice = "run `agent sync`, and look for whoever removes it";
            Check::failed("firewall-table", Class::Other, "access rules should be in force, and are gone", advice)
        }
        Ok(_) => return None,
        Err(error) => Check::unknown("firewall-table", error.reason(), "run as root"),
    };
    Some(check.of(&status.interface))
}

/// The way to the server; returns also how large packets to it may be.
async fn server(hands: &Hands, status: &Status, saved: Option<&Membership>) -> (Option<NonZeroU16>, Vec<Check>) {
    let opened = match (saved, status.server.parse::<Server>()) {
        (Some(membership), _) => hands.rest(membership).map(|rest| (rest.server().clone(), rest.trust().clone())),
        (None, Ok(server)) => {
            let trust = Trust::new(hands.ca_file.as_deref(), &Pins::default(), false);
            trust.map(|trust| (server, trust)).map_err(Into::into)
        }
        (None, Err(_)) => return (None, Vec::new()),
    };
    match opened {
        Ok((server, trust)) => {
            let seen = knock(&server, &trust).await;
            let path_mtu = seen.path_mtu;
            let checks = way::checks(&server, seen, clock::unix_seconds());
            // Without its settings it cannot be told whom the membership trusts.
            let blind = |check: Check| {
                let is_blind = saved.is_none() && check.id == "certificate" && check.verdict == CheckVerdict::Failed;
                if is_blind { unseen(check) } else { check }
            };
            (path_mtu, checks.into_iter().map(blind).collect())
        }
        Err(error) => {
            let advice = "give the server's certificate authority with `agent join --ca-file`";
            (None, vec![Check::failed("certificate", error.class(), describe(&error), advice)])
        }
    }
}

async fn mtu(status: &Status, path: Option<NonZeroU16>) -> Option<Check> {
    let mtus = link::interface_mtus().await.ok()?;
    let own = *mtus.get(status.interface.as_str())?;
    Some(checkup::mtu(own, path).of(&status.interface))
}

/// What the server says of this host: one proof and one plain pull, which change nothing there.
async fn known(hands: &Hands, status: &Status, membership: &Membership) -> Vec<Check> {
    let asked = async {
        let mut rest = hands.rest(membership)?;
        rest.authenticate(&membership.identity).await?;
        Ok::<_, MembershipError>(rest.pull(Freshness::Cached).await?)
    };
    match asked.await {
        Ok(pulled) => {
            let (endpoints, relays): (Vec<IpAddr>, bool) = control::told_of_host(&pulled);
            let (v4, v6) = facts::forwards();
            let checks = [checkup::endpoint(&status.public_endpoints, &endpoints), checkup::forwarding(relays, v4, v6)];
            checks.into_iter().map(|check| check.of(&status.server)).collect()
        }
        Err(error) => {
            let advice = "`agent sync` tells what it means; a passing failure needs nothing";
            vec![Check::failed("identity", error.class(), describe(&error), advice).of(&status.server)]
        }
    }
}

/// What other agents left, and what this one did.
async fn leftovers(statuses: &[Status]) -> Vec<Check> {
    const ID: &str = "leftovers";
    let mut checks = Vec::new();
    for facts::Leftover { agent, what } in facts::leftovers(Path::new("/")) {
        let advice = format!("remove {agent} if it is not used any more: two agents may be in each other's way");
        checks.push(Check::warning(ID, what, advice).of(agent));
    }
    let names = link::interface_names().await.unwrap_or_default();
    for name in names {
        let is_known = statuses.iter().any(|status| status.interface.as_str() == name);
        if let Some(agent) = facts::owner_of_interface(&name).filter(|_| !is_known) {
            let advice = format!("stop {agent} if it is not used any more");
            checks.push(Check::warning(ID, format!("the interface {name}"), advice).of(agent));
        }
        if name.starts_with(super::OWN_PREFIX) && !is_known {
            let advice = format!("run `ip link delete {name}` unless another agent serves it");
            checks.push(Check::warning(ID, format!("the interface {name} is of no membership here"), advice).of(name));
        }
    }
    if checks.is_empty() {
        checks.push(Check::ok(ID, "nothing of other agents is here"));
    }
    checks
}

/// Looks for secrets in places where they should not be.
///
/// It reads what this user may read, at most 64 MiB of each file and of the journal, and keeps nothing.
pub async fn search_secrets(report: Option<&Report>, belongings: Belongings<'_>) -> Vec<Check> {
    let statuses = report.map(|report| report.memberships.as_slice()).unwrap_or_default();
    let own: BTreeSet<_> = statuses.iter().map(|status| status.public_key).collect();
    let config = belongings.config.to_owned();
    let haystack = Haystack::here(vec![config.clone()]);
    let Ok(searched) = tokio::task::spawn_blocking(move || haystack.search(&own)).await else {
        return vec![Check::unknown(SECRETS, "the search broke off", "try again")];
    };
    let Searched { found, read, unread, unseen_processes } = searched;
    let mut checks: Vec<_> = found.iter().map(|(place, found)| exposed(place, found, &config)).collect();
    if checks.is_empty() {
        checks.push(Check::ok(SECRETS, format!("none in {read} places")));
    }
    if !unread.is_empty() || unseen_processes > 0 {
        let detail = format!("could not be read: processes {unseen_processes}, files {}", unread.len());
        let advice = if nix::unistd::geteuid().is_root() {
            "they are closed to root as well, as those of another namespace"
        } else {
            "run as root to see them"
        };
        checks.push(Check::unknown("secrets-unseen", detail, advice));
    }
    checks
}

fn exposed(place: &Hideout, found: &FoundSecret, config: &Path) -> Check {
    let FoundSecret { fingerprint, kind, line } = found;
    let what = match kind {
        SecretKind::EnrollmentKey => "enrollment key",
        SecretKind::Jwt => "session token",
        SecretKind::WireguardKey => "private key of",
    };
    let (place_text, advice) = match place {
        Hideout::Argument { pid, program } => (
            format!("on the command line of process {pid} ({program})"),
            "every user can read it: give the key by `--key-file` or `join -`, and have it replaced",
        ),
        Hideout::Environment { pid, program } => (
            format!("in the environment of process {pid} ({program})"),
            "take it out of what starts the process; `agent` itself hides ENROLL_AGENT_KEY",
        ),
        Hideout::File(path) if path == config => {
            let detail = format!("{what} {fingerprint} in {}, line {line}", path.display());
            let advice = "remove it if this machine shall not enroll by itself again";
            return Check::warning(SECRETS, detail, advice).of(path.display());
        }
        Hideout::File(path) => (
            format!("in {}, line {line}", path.display()),
            "remove the line or the file; a key that still has uses should be replaced",
        ),
        Hideout::Journal => (
            "in the journal since the last boot".to_owned(),
            "find who wrote it; `journalctl --rotate` and `journalctl --vacuum-time=1s` remove it",
        ),
        Hideout::ShellHistory(path) => {
            (format!("in {}, line {line}", path.display()), "remove the line, and have the key replaced")
        }
    };
    Check::failed(SECRETS, Class::Other, format!("{what} {fingerprint} {place_text}"), advice).of(place_name(place))
}

fn place_name(place: &Hideout) -> String {
    match place {
        Hideout::Argument { pid, .. } | Hideout::Environment { pid, .. } => format!("process {pid}"),
        Hideout::File(path) | Hideout::ShellHistory(path) => path.display().to_string(),
        Hideout::Journal => "journal".to_owned(),
    }
}

const SECRETS: &str = "secrets";
