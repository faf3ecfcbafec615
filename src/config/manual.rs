//! What the manual says about files and variables beyond the flags.

use super::KEY_VARIABLE;

/// Root's configuration file, unless something else is said.
pub(super) const CONFIG_FILE: &str = "/etc/enroll-agent/agent.toml";
/// Root's folder for sockets.
pub(super) const RUNTIME_DIR: &str = "/run/enroll-agent";
/// Root's folder for memberships.
pub(super) const STATE_DIR: &str = "/var/lib/enroll-agent";

/// Files and folders of root and of the service, with what they hold.
pub const FILES: &[(&str, &str)] = &[
    (CONFIG_FILE, "settings; each is explained in it"),
    ("/etc/enroll-agent/enroll.key", "an enrollment key that somebody drops; it is taken and removed within seconds"),
    (RUNTIME_DIR, "the socket by which commands reach the service"),
    (STATE_DIR, "memberships: identities, private keys and what the servers assigned last"),
    ("/run/secrets/enroll-agent.key", "an enrollment key that a container is given"),
    ("/etc/default/enroll-agent, /etc/sysconfig/enroll-agent", "variables of the service"),
];

/// Variables that are no twins of flags, with what they mean.
pub const VARIABLES: &[(&str, &str)] = &[
    (KEY_VARIABLE, "the enrollment key; moved out of the environment at once"),
    ("ENROLL_AGENT_KEY_FD", "the same as --key-fd"),
    ("ENROLL_AGENT_KEY_FILE", "the same as --key-file"),
    ("ENROLL_AGENT_LOG", "what is logged, in tracing's filter syntax"),
    ("NO_COLOR", "set to anything: no colors"),
];
