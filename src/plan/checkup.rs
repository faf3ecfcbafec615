//! What is right and what is not, judged from what was seen of this machine and its memberships.

use std::num::NonZeroU16;

use crate::model::{Check, Class, DnsStatus, FirewallStatus, PeerStatus, PublicEndpoint, PushState, State, Status};

/// Judges a certificate that convinced us and ends at `until`, in seconds since 1970; `None` if that is not known.
pub fn certificate(until: Option<u64>, now: u64) -> Check {
    let Some(left) = until.map(|until| until.saturating_sub(now)) else {
        return Check::ok("certificate", "trusted; when it ends cannot be read");
    };
    let detail = format!("trusted, valid for {} more", span(left));
    if left < SOON {
        return Check::warning("certificate", detail, "tell the administrator of the server to renew it");
    }
    Check::ok("certificate", detail)
}

/// Judges this machine's clock at `now` against the server's at the same moment, in seconds since 1970.
///
/// An answer tells whole seconds and takes its time, so a little is nothing.
pub fn clock(server: Option<u64>, now: u64) -> Check {
    const ID: &str = "clock";
    let Some(server) = server else {
        return Check::unknown(ID, "the server does not tell the time", "compare it with another machine's");
    };
    let offset = now.abs_diff(server);
    let side = if now > server { "ahead of" } else { "behind" };
    let detail = format!("{} {side} the server's", span(offset));
    let advice = "set this machine's clock, or have it set by NTP";
    match offset {
        0..=5 => Check::ok(ID, format!("within {offset} s of the server's")),
        6..=60 => Check::ok(ID, detail),
        61..=3600 => Check::warning(ID, detail, advice),
        3601.. => Check::failed(ID, Class::Temporary, detail, advice),
    }
}

/// Judges what the HTTP status of a server says about it.
pub fn server_answer(status: u16) -> Check {
    match status {
        200 => Check::ok("server", "it answers"),
        status @ 500.. => Check::failed(
            "server",
            Class::Temporary,
            format!("it answers with status {status}"),
            "try again later; if it stays, tell the administrator of the server",
        ),
        status => Check::warning(
            "server",
            format!("it answers with status {status}"),
            "the key may name a server that is no enrollment server",
        ),
    }
}

/// Judges an interface's largest packet against the largest that the way to the server takes, both in bytes.
pub fn mtu(own: u16, path: Option<NonZeroU16>) -> Check {
    let Some(path) = path.map(NonZeroU16::get) else {
        return Check::unknown("mtu", format!("{own} bytes; the way to the server is not known"), "look again online");
    };
    let detail = format!("{own} bytes, and {path} on the way to the server");
    if own.saturating_add(OVERHEAD_V4) > path {
        let fits = path.saturating_sub(OVERHEAD_V6);
        let advice = format!("run `agent join --mtu {fits}`: larger packets may be lost on the way");
        return Check::warning("mtu", detail, advice);
    }
    Check::ok("mtu", detail)
}

/// Judges one membership by its status.
pub fn membership(status: &Status) -> Vec<Check> {
    let mut checks = vec![state(status), broker(status)];
    checks.push(firewall(status.firewall.as_ref()));
    checks.push(names(status.dns.as_ref(), status.contact.is_some()));
    checks.extend(status.peers.iter().map(handshake));
    checks.into_iter().map(|check| if check.subject.is_some() { check } else { check.of(&status.server) }).collect()
}

fn state(status: &Status) -> Check {
    const ID: &str = "membership";
    let Status { interface, last_error, state, .. } = status;
    let failed = |class, what: String, advice: &str| Check::failed(ID, class, what, advice);
    match (state, last_error) {
        (State::Up, None) => Check::ok(ID, format!("{interface} is up")),
        (State::Up, Some(error)) => Check::warning(
            ID,
            format!("{interface} is up; the last contact failed: {}", error.message),
            "the agent goes on trying; `agent status` shows when",
        ),
        (State::Clone | State::Held, _) => failed(
            Class::Held,
            "this machine is a copy of that host, or may be".to_owned(),
            "a copy: `agent join <key> --new-identity`; the same machine: `agent join --keep-identity`",
        ),
        (State::Down, error) => {
            let why = error.as_ref().map(|error| format!(": {}", error.message)).unwrap_or_default();
            let advice = "start the service, or run `agent join`";
            failed(Class::NotEnrolled, format!("enrolled, and there is no {interface}{why}"), advice)
        }
        (State::Off, _) => Check::warning(ID, format!("{interface} is switched off"), "run `agent up`"),
        (State::Pending, _) => {
            Check::warning(ID, "a key is still to be redeemed", "run `agent join`, or let the service go on")
        }
        (State::Revoked, _) => failed(
            Class::NotEnrolled,
            "the server has deleted this host".to_owned(),
            "run `agent leave --server SERVER`, then join again",
        ),
        (State::Waiting, _) => {
            Check::warning(ID, "enrolled, without any network yet", "an administrator may have to approve this host")
        }
    }
}

fn broker(status: &Status) -> Check {
    const ID: &str = "broker";
    match status.contact.as_ref().map(|contact| &contact.push) {
        None => Check::unknown(ID, "no agent serves this membership", "start the service: it knows"),
        Some(PushState::Absent) => Check::ok(ID, "the server has none, or has not named it: changes are pulled"),
        Some(PushState::Connected) => Check::ok(ID, "connected: changes are pushed"),
        Some(PushState::Disconnected { why }) => Check::warning(
            ID,
            format!("not connected, changes are pulled meanwhile{}", after_colon(why)),
            "check that the broker's port is open from here; the agent goes on trying",
        ),
    }
}

fn firewall(status: Option<&FirewallStatus>) -> Check {
    const ID: &str = "firewall-rules";
    match status {
        None => Check::unknown(ID, "not seen, or there is no interface", "run as root, or start the service"),
        Some(state @ (FirewallStatus::Closed { .. } | FirewallStatus::NotEnforced { .. })) => {
            Check::failed(ID, Class::Other, state.to_string(), "install nftables, then run `agent sync`")
        }
        Some(state @ FirewallStatus::Ignored) => {
            Check::warning(ID, state.to_string(), "take `firewall = \"ignore\"` back to enforce them")
        }
        Some(state @ (FirewallStatus::Enforced { .. } | FirewallStatus::Open)) => Check::ok(ID, state.to_string()),
    }
}

fn names(status: Option<&DnsStatus>, is_served: bool) -> Check {
    const ID: &str = "names";
    let Some(DnsStatus { domains, manager, mode: _, note, .. }) = status else {
        return if is_served {
            Check::ok(ID, "the server names none")
        } else {
            Check::unknown(ID, "no agent serves this membership", "start the service: it resolves them")
        };
    };
    match (note, manager) {
        (Some(note), _) => Check::warning(ID, note, "everything but names works; the README says what names take"),
        (None, Some(manager)) => Check::ok(ID, format!("{} domains are resolved by {manager}", domains.len())),
        (None, None) => Check::ok(ID, "nothing is to be resolved here"),
    }
}

fn handshake(peer: &PeerStatus) -> Check {
    const ID: &str = "handshake";
    let check = match peer.handshake_age {
        Some(age) if age < SESSION_LIFETIME => Check::ok(ID, format!("{age} s ago")),
        Some(age) => Check::warning(
            ID,
            format!("{} ago", span(age)),
            "idle peers without keepalive have none; else check that the peer is up and UDP gets through",
        ),
        None => Check::warning(ID, "none yet", "check that the peer is up, and that UDP gets through to it and back"),
    };
    check.of(peer.public_key)
}

/// Judges where others find this host: what was seen from outside, and what the server tells peers.
pub fn endpoint(seen: &[PublicEndpoint], told: &[std::net::IpAddr]) -> Check {
    const ID: &str = "endpoint";
    let texts =
        |ips: &mut dyn Iterator<Item = std::net::IpAddr>| ips.map(|ip| ip.to_string()).collect::<Vec<_>>().join(", ");
    let known = texts(&mut told.iter().copied());
    let own = texts(&mut seen.iter().map(|endpoint| endpoint.address));
    match (told, seen) {
        ([], []) => Check::warning(
            ID,
            "nobody knows where this host is: peers wait for it to call",
            "give --endpoint, or name a STUN server with --stun",
        ),
        ([], _) => Check::warning(ID, format!("seen at {own}, and the server does not know it"), "run `agent sync`"),
        (_, []) => Check::ok(ID, format!("the server tells peers {known}; nobody was asked how others see this host")),
        (told, seen) if seen.iter().all(|endpoint| told.contains(&endpoint.address)) => {
            Check::ok(ID, format!("the server tells peers {known}, as others see it"))
        }
        _ => Check::warning(ID, format!("seen at {own}, and the server tells peers {known}"), "run `agent sync`"),
    }
}

/// Judges whether a device that others relay through forwards; the families are IPv4 and IPv6.
pub fn forwarding(relays: bool, v4: bool, v6: bool) -> Check {
    const ID: &str = "forwarding";
    match (relays, v4, v6) {
        (false, _, _) => Check::ok(ID, "this device is no relay: none is needed"),
        (true, true, true) => Check::ok(ID, "on, as a relay needs it"),
        (true, v4, _) => {
            let off = if v4 { "IPv6" } else { "IPv4" };
            let advice =
                "run `sysctl net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1`, and keep it in /etc/sysctl.d";
            Check::failed(ID, Class::Other, format!("this device is a relay, and does not forward {off}"), advice)
        }
    }
}

/// `2 days`, `3 h`, `40 s`.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        172_800.. => format!("{} days", seconds / 86_400),
    }
}

fn after_colon(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(": {why}") }
}

/// Automatic renewal comes weeks before the end.
const SOON: u64 = 7 * 86_400;

/// WireGuard drops a session this long after its handshake (whitepaper §6.1, `REJECT_AFTER_TIME`), in seconds.
const SESSION_LIFETIME: u64 = 180;

/// What WireGuard adds to a packet over IPv4 and over IPv6, in bytes: the headers of IP and UDP, and 32 of its own.
const OVERHEAD_V4: u16 = 60;
const OVERHEAD_V6: u16 = 80;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CheckVerdict;

    #[test]
    fn a_certificate_is_to_be_renewed_a_week_before_its_end() {
        let day = 86_400;

        assert_eq!(certificate(Some(100 + 8 * day), 100), Check::ok("certificate", "trusted, valid for 8 days more"));
        assert_eq!(certificate(Some(100 + 3 * 3600), 100).verdict, CheckVerdict::Warning);
        assert_eq!(certificate(None, 100).verdict, CheckVerdict::Ok);
    }

    #[test]
    fn a_clock_is_judged_by_its_distance_from_the_servers() {
        for (server, verdict, said) in [
            (Some(10_000), CheckVerdict::Ok, "within 0 s"),
            (Some(10_030), CheckVerdict::Ok, "30 s behind"),
            (Some(9_400), CheckVerdict::Warning, "10 min ahead of"),
            (Some(1), CheckVerdict::Failed, "2 h ahead of"),
            (None, CheckVerdict::Unknown, "does not tell"),
        ] {
            let check = clock(server, 10_000);

            assert_eq!(check.verdict, verdict, "{check:?}");
            assert!(check.detail.contains(said), "{check:?}");
        }
    }

    #[test]
    fn packets_have_to_fit_the_way_with_what_wireguard_adds() {
        assert_eq!(mtu(1420, NonZeroU16::new(1500)).verdict, CheckVerdict::Ok);
        assert_eq!(mtu(1440, NonZeroU16::new(1500)).verdict, CheckVerdict::Ok);
        let narrow = mtu(1420, NonZeroU16::new(1400));
        assert_eq!((narrow.verdict, narrow.advice.unwrap().contains("--mtu 1320")), (CheckVerdict::Warning, true));
        assert_eq!(mtu(1420, None).verdict, CheckVerdict::Unknown);
    }

    #[test]
    fn an_endpoint_that_the_server_does_not_know_is_told() {
        let ip = |text: &str| text.parse().unwrap();
        let seen = |text: &str| PublicEndpoint { address: ip(text), nat: None, port: None };

        assert_eq!(endpoint(&[seen("192.0.2.1")], &[ip("192.0.2.1")]).verdict, CheckVerdict::Ok);
        assert_eq!(endpoint(&[], &[ip("192.0.2.1")]).verdict, CheckVerdict::Ok);
        assert_eq!(endpoint(&[seen("192.0.2.1")], &[]).verdict, CheckVerdict::Warning);
        assert_eq!(endpoint(&[seen("192.0.2.1")], &[ip("192.0.2.9")]).verdict, CheckVerdict::Warning);
        assert_eq!(endpoint(&[], &[]).verdict, CheckVerdict::Warning);
    }

    #[test]
    fn only_a_relay_has_to_forward() {
        assert_eq!(forwarding(false, false, false).verdict, CheckVerdict::Ok);
        assert_eq!(forwarding(true, true, true).verdict, CheckVerdict::Ok);
        assert!(forwarding(true, false, true).detail.ends_with("IPv4"));
        assert!(forwarding(true, true, false).detail.ends_with("IPv6"));
    }

    #[test]
    fn a_peer_is_well_while_its_session_lives() {
        let peer = |handshake_age| PeerStatus {
            allowed_ips: std::collections::BTreeSet::new(),
            endpoint: None,
            handshake_age,
            public_key: crate::model::PrivateKey::from_bytes([7; 32]).public_key(),
            rx_bytes: 0,
            tx_bytes: 0,
        };

        assert_eq!(handshake(&peer(Some(179))).verdict, CheckVerdict::Ok);
        assert_eq!(handshake(&peer(Some(180))).verdict, CheckVerdict::Warning);
        assert_eq!(handshake(&peer(None)).detail, "none yet");
    }
}
