//! What this machine can do for a tunnel, as checks; nothing is changed that stays.

use crate::{
    dns, firewall,
    link::{self, LinkError},
    model::{Backend, Check, Class, DnsManager, DnsMode, FirewallSetting},
};

/// Finds out which data plane can be used, and why not another; `None` if none can. `has` is one that is in use already.
pub(super) async fn backend(forced: Option<Backend>, has: Option<Backend>) -> (Option<Backend>, Vec<Check>) {
    let kernel = link::choose(Some(Backend::Kernel)).await;
    let userspace = link::choose(Some(Backend::Userspace)).await;
    let tun = match &userspace {
        Ok(_) => Check::ok("tun", "/dev/net/tun can be used"),
        Err(error) => refused("tun", error, kernel.is_ok(), "load the tun module, or give the container /dev/net/tun"),
    };
    let chosen = match (forced.or(has), &kernel, &userspace) {
        (Some(Backend::Kernel) | None, Ok(_), _) => Some(Backend::Kernel),
        (Some(Backend::Userspace), _, Ok(_)) | (None, Err(LinkError::Absent), Ok(_)) => Some(Backend::Userspace),
        (Some(_) | None, _, _) => None,
    };
    let why = match (forced, has, &kernel) {
        (Some(_), _, _) => "as configured".to_owned(),
        (None, Some(_), _) => "in use".to_owned(),
        (None, None, Ok(_)) => "the kernel has WireGuard".to_owned(),
        (None, None, Err(error)) => error.to_string(),
    };
    let check = match (chosen, kernel, userspace) {
        (Some(backend), _, _) => Check::ok("backend", format!("{backend}: {why}")),
        (None, Err(error), _) if forced != Some(Backend::Userspace) && !matches!(error, LinkError::Absent) => {
            refused("backend", &error, false, RIGHTS)
        }
        (None, _, Err(error)) => refused("backend", &error, false, RIGHTS),
        (None, Err(error), Ok(_)) => refused("backend", &error, false, "leave out `--backend kernel`"),
        (None, Ok(_), Ok(_)) => Check::ok("backend", why),
    };
    (chosen, vec![check, tun])
}

/// What somebody without rights sees is unknown; what is missing and not needed is no failure.
fn refused(id: &'static str, error: &LinkError, is_spare: bool, advice: &str) -> Check {
    let (denied, text) = (matches!(error, LinkError::Denied { .. }), error.to_string());
    match (denied, is_spare) {
        (_, true) => Check::ok(id, format!("not needed: the kernel has WireGuard ({text})")),
        (true, false) => Check::failed(id, Class::Denied, text, RIGHTS),
        (false, false) => Check::failed(id, Class::Other, text, advice),
    }
}

/// Whether access rules could be enforced.
pub(super) fn firewall(setting: Option<FirewallSetting>) -> Check {
    const ID: &str = "firewall";
    const ADVICE: &str = "install nftables";
    match (firewall::is_installed(), setting) {
        (true, _) => Check::ok(ID, "nft is installed"),
        (false, Some(FirewallSetting::Ignore)) => Check::ok(ID, "nft is not installed, and access rules are ignored"),
        (false, Some(FirewallSetting::Enforce)) => {
            let detail =
                "nft is not installed: with `firewall = \"enforce\"` there will be no peers if there are rules";
            Check::failed(ID, Class::Other, detail, ADVICE)
        }
        (false, None) => Check::warning(ID, "nft is not installed: access rules cannot be enforced", ADVICE),
    }
}

/// Who resolves names here, and whether names of the networks can be.
pub(super) async fn resolver(mode: DnsMode) -> Check {
    const ID: &str = "dns";
    match (dns::manager(dns::Machine::default()).await, mode) {
        (_, DnsMode::Off) => Check::ok(ID, "off, as configured"),
        (Ok(DnsManager::Openresolv), _) => Check::ok(ID, format!("{mode}, by openresolv")),
        (Ok(DnsManager::Resolved), _) if POLKIT.iter().any(|rule| std::path::Path::new(rule).exists()) => {
            Check::ok(ID, format!("{mode}, by systemd-resolved, which a polkit rule lets the service tell"))
        }
        (Ok(DnsManager::Resolved), _) => Check::ok(ID, format!("{mode}, by systemd-resolved, as root only")),
        (Err(error), DnsMode::Full | DnsMode::Split) => {
            Check::warning(ID, error.to_string(), "everything but names works; the README says what names take")
        }
    }
}

const RIGHTS: &str = "run as root, or with the capability CAP_NET_ADMIN and access to /dev/net/tun";

/// Where packages and administrators put it.
const POLKIT: &[&str] = &["/usr/share/polkit-1/rules.d/enroll-agent.rules", "/etc/polkit-1/rules.d/enroll-agent.rules"];
