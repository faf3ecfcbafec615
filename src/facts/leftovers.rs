//! What other agents, or this one, left on a machine.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// Something of another agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leftover {
    /// Whose it is.
    pub agent: &'static str,
    /// What it is, in words.
    pub what: String,
}

/// Lists what is below `root` of other agents that make tunnels.
pub fn leftovers(root: &Path) -> Vec<Leftover> {
    let mut found = Vec::new();
    for (agent, paths) in TRACES {
        let there = paths.iter().filter(|path| root.join(path).exists());
        found.extend(there.map(|path| Leftover { agent, what: format!("/{path}") }));
    }
    let wants = fs::read_dir(root.join("etc/systemd/system/multi-user.target.wants"));
    for entry in wants.into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("wg-quick@") {
            found.push(Leftover { agent: "wg-quick", what: format!("the service {name}") });
        }
    }
    found
}

/// Tells whose an interface of this name is; `None` if nobody's that is known.
pub fn owner_of_interface(name: &str) -> Option<&'static str> {
    let is_of = |start: &str| name.strip_prefix(start).is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()));
    INTERFACES.iter().find(|(_, start)| is_of(start)).map(|(agent, _)| *agent)
}

/// Permission bits and owner of a file; `None` if there is none, or it cannot be seen.
pub fn mode(path: &Path) -> Option<(u32, u32)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.mode() & 0o7777, metadata.uid()))
}

/// Whether the kernel forwards packets between interfaces, IPv4 and IPv6.
pub fn forwards() -> (bool, bool) {
    let is_on = |path: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == "1");
    (is_on("/proc/sys/net/ipv4/ip_forward"), is_on("/proc/sys/net/ipv6/conf/all/forwarding"))
}

/// State and units, by agent.
const TRACES: &[(&str, &[&str])] = &[
    (
        "netclient",
        &["etc/netclient", "etc/systemd/system/netclient.service", "usr/lib/systemd/system/netclient.service"],
    ),
    ("tailscale", &["var/lib/tailscale/tailscaled.state", "run/tailscale/tailscaled.sock"]),
    ("netbird", &["etc/netbird", "var/lib/netbird", "etc/systemd/system/netbird.service"]),
];

/// What their interfaces are called, digits left out.
const INTERFACES: &[(&str, &str)] = &[
    ("netclient", "netmaker"),
    ("netclient", "nm-"),
    ("tailscale", "tailscale"),
    ("netbird", "wt"),
    ("wg-quick", "wg"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_of_others_are_named() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(leftovers(folder.path()), []);
        fs::create_dir_all(folder.path().join("etc/netclient")).unwrap();
        let wants = folder.path().join("etc/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&wants).unwrap();
        fs::write(wants.join("wg-quick@wg0.service"), "").unwrap();
        fs::write(wants.join("ssh.service"), "").unwrap();

        let found: Vec<_> = leftovers(folder.path()).into_iter().map(|found| (found.agent, found.what)).collect();

        assert_eq!(
            found,
            [("netclient", "/etc/netclient".to_owned()), ("wg-quick", "the service wg-quick@wg0.service".to_owned())]
        );
    }

    #[test]
    fn interfaces_are_known_by_their_names() {
        for (name, owner) in [
            ("netmaker", Some("netclient")),
            ("tailscale0", Some("tailscale")),
            ("wt0", Some("netbird")),
            ("wg1", Some("wg-quick")),
            ("wg-test", None),
            ("eth0", None),
            ("enroll0", None),
        ] {
            assert_eq!(owner_of_interface(name), owner, "{name}");
        }
    }
}
