//! The way to a server, step by step, as checks.

use super::{MembershipError, describe};
use crate::{
    control::{Answer, CertificateProblem, Knock, RestError},
    model::{Check, Server},
    plan::checkup,
};

/// Judges what was seen on the way to `server` at `now`, in seconds since 1970; what comes after a failure is left out.
pub(super) fn checks(server: &Server, knock: Knock, now: u64) -> Vec<Check> {
    let Knock { addresses, connected, certificate, is_plain, answer, failure, path_mtu: _ } = knock;
    let mut checks = Vec::new();
    let reached = [
        ("resolve", !addresses.is_empty()),
        ("connection", connected.is_some()),
        ("certificate", certificate.is_some() || is_plain),
        ("server", answer.is_some()),
    ];
    if !addresses.is_empty() {
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        checks.push(Check::ok("resolve", format!("{} is at {}", server.host(), addresses.join(", "))));
    }
    if let Some(address) = connected {
        checks.push(Check::ok("connection", format!("connected to {address}")));
    }
    if let Some(certificate) = certificate {
        checks.push(checkup::certificate(certificate.until, now));
    } else if is_plain {
        checks.push(Check::ok("certificate", "none: plain HTTP within this machine"));
    }
    if let Some(Answer { date, status }) = answer {
        checks.push(checkup::server_answer(status));
        checks.push(checkup::clock(date, now));
    }
    let stopped = reached.iter().find(|(_, reached)| !reached).map(|(id, _)| *id);
    if let (Some(id), Some(failure)) = (stopped, failure) {
        let advice = advice(&failure);
        let error = MembershipError::from(failure);
        checks.push(Check::failed(id, error.class(), describe(&error), advice));
    }
    checks.into_iter().map(|check| check.of(server)).collect()
}

fn advice(failure: &RestError) -> &'static str {
    match failure {
        RestError::Certificate { problem, .. } => match problem {
            CertificateProblem::Expired(_) => "check this machine's clock, then the server's certificate",
            CertificateProblem::Name => "the key may name the server wrongly, or this is another server",
            CertificateProblem::NotPinned(_) => "compare the key it has with what your administrator says",
            CertificateProblem::NotYetValid(_) => "set this machine's clock",
            CertificateProblem::Other | CertificateProblem::Untrusted => {
                "a server with a private certificate authority needs --ca-file"
            }
        },
        RestError::Resolve(_) => "check the network, the DNS servers and the key",
        RestError::Connect { .. } | RestError::Tls { .. } => "check the network and that the server runs",
        RestError::Encode(_)
        | RestError::Garbled { .. }
        | RestError::Interrupted { .. }
        | RestError::Setup { .. }
        | RestError::Status { .. }
        | RestError::Timeout(_) => "a proxy may be in the way, or the key names a server that is no enrollment server",
    }
}
