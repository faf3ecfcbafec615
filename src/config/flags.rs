//! What the command line, and with it the environment, can say.

use std::{io, num::NonZeroU16, path::PathBuf};

use ipnet::IpNet;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::model::{
    Backend, DnsMode, FirewallSetting, InterfaceName, OnPartial, Overlap, Pins, Required, Secret, Span, StunChoice,
    Wait,
};

/// Settings that flags, environment and file all know.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct Flags {
    /// Let the server send all of this machine's traffic through a gateway [default: false]
    #[arg(long, env = "ENROLL_AGENT_ACCEPT_DEFAULT_ROUTE", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false")]
    pub accept_default_route: Option<bool>,
    /// Talk plain HTTP to a server at a loopback address, and to no other [default: false]
    #[arg(long, env = "ENROLL_AGENT_ALLOW_HTTP", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false")]
    pub allow_http: Option<bool>,
    /// Prefixes that networks and ranges behind peers have to lie in, separated by commas [default: any]
    #[arg(long, env = "ENROLL_AGENT_ALLOWED_PREFIXES", value_name = "PREFIXES", value_delimiter = ',')]
    pub allowed_prefixes: Option<Vec<IpNet>>,
    /// WireGuard implementation, instead of the kernel's if there is one
    #[arg(long, env = "ENROLL_AGENT_BACKEND", value_name = "kernel|userspace")]
    pub backend: Option<Backend>,
    /// Trust this PEM certificate authority alone for the enrollment server
    #[arg(long, env = "ENROLL_AGENT_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Names that the server may have this machine resolve elsewhere: none, those of hosts and of domains that it names,
    /// or all [default: split]
    #[arg(long, env = "ENROLL_AGENT_DNS", value_name = "off|split|full")]
    pub dns: Option<DnsMode>,
    /// Public address that peers can reach, and its port if another than the listen port
    #[arg(long, env = "ENROLL_AGENT_ENDPOINT", value_name = "IP[:PORT]")]
    pub endpoint: Option<String>,
    /// What to do about the server's access rules: enforce them or have no peers, or ignore them [default: enforce them
    /// if nft is there]
    #[arg(long, env = "ENROLL_AGENT_FIREWALL", value_name = "enforce|ignore")]
    pub firewall: Option<FirewallSetting>,
    /// Name of the WireGuard interface [default: enroll0, or the next free number]
    #[arg(long, env = "ENROLL_AGENT_INTERFACE", value_name = "NAME")]
    pub interface: Option<InterfaceName>,
    /// Largest packet on the interface in bytes, 1280 to 9000 [default: the server's, else 1420]
    #[arg(long, env = "ENROLL_AGENT_MTU", value_name = "BYTES", value_parser = clap::value_parser!(u16).range(1280..=9000))]
    pub mtu: Option<u16>,
    /// Name shown to the administrator [default: the machine's host name]
    #[arg(long, env = "ENROLL_AGENT_NAME")]
    pub name: Option<String>,
    /// What becomes of a host that was enrolled now and is not in all required networks in the end: it stays, or leaves
    /// again [default: keep]
    #[arg(long, env = "ENROLL_AGENT_ON_PARTIAL", value_name = "keep|rollback")]
    pub on_partial: Option<OnPartial>,
    /// What becomes of a range that this machine uses already [default: skip-network]
    #[arg(long, env = "ENROLL_AGENT_OVERLAP", value_name = "refuse|skip-network|table")]
    pub overlap: Option<Overlap>,
    /// SHA-256 of the server's public key, or of an authority's between it and a trusted one: sha256//BASE64 or
    /// hexadecimal; several separated by commas, or `off` [default: what is beside the key, else off]
    #[arg(long, env = "ENROLL_AGENT_PIN", value_name = "PINS")]
    pub pin: Option<Pins>,
    /// UDP port to listen on [default: 51821 or the next free one; the server may change it]
    #[arg(long, env = "ENROLL_AGENT_PORT")]
    pub port: Option<NonZeroU16>,
    /// Networks without which the membership is not complete, separated by commas [default: none]
    #[arg(long, env = "ENROLL_AGENT_REQUIRE", value_name = "NAMES")]
    pub require: Option<Required>,
    /// STUN servers to ask for the public address, or `off` [default: those that the enrollment server names]
    #[arg(long, env = "ENROLL_AGENT_STUN", value_name = "HOST[:PORT],...|off")]
    pub stun: Option<StunChoice>,
    /// How long a join may take until the key is redeemed: seconds, or as 90s, 2m [default: 120]
    #[arg(long, env = "ENROLL_AGENT_TIMEOUT", value_name = "TIME")]
    pub timeout: Option<Span>,
    /// How long to wait, from then on, for a network and for the required ones: a time, 0 or forever [default: what is
    /// left of --timeout]
    #[arg(long, env = "ENROLL_AGENT_WAIT", value_name = "TIME")]
    pub wait: Option<Wait>,
}

/// Settings of the service.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunFlags {
    /// Let every user of this machine see the status
    #[arg(long, env = "ENROLL_AGENT_OPEN_STATUS")]
    pub open_status: bool,
    /// Seconds between pulls while the server's broker cannot push, 1 to 120 [default: 120]
    #[arg(long, env = "ENROLL_AGENT_POLL", value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=120))]
    pub poll: Option<u32>,
    /// Enroll again with the configured key when the server has deleted this host
    #[arg(long, env = "ENROLL_AGENT_REENROLL")]
    pub reenroll: bool,
    /// Seconds over which a fleet that starts together makes its first contact [default: 3]
    #[arg(long, env = "ENROLL_AGENT_SPREAD", value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(..=86400))]
    pub spread: Option<u32>,
}

/// A membership that the service should have, in the configuration file.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) flags: Flags,
    pub(super) key_files: Vec<PathBuf>,
    pub(super) keys: Vec<Secret>,
}

/// Where things are.
#[derive(Clone, Debug, clap::Args)]
pub struct Places {
    /// Configuration file [default: /etc/enroll-agent/agent.toml; not root: the XDG configuration folder]
    #[arg(long, global = true, env = "ENROLL_AGENT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder for sockets [default: /run/enroll-agent; not root: the XDG runtime folder]
    #[arg(long, global = true, env = "ENROLL_AGENT_RUNTIME_DIR", value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,
    /// Folder for memberships [default: /var/lib/enroll-agent; not root: the XDG state folder]
    #[arg(long, global = true, env = "ENROLL_AGENT_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Asks for a key at the terminal that standard input is.
pub type Ask = fn() -> io::Result<Zeroizing<String>>;

/// Where the enrollment keys come from, as far as the command line says.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct KeyFlags {
    /// How somebody at the terminal is asked for a key; `None` asks nobody.
    #[arg(skip)]
    pub ask: Option<Ask>,
    /// Inherited descriptor of a key that was an argument before the re-execution that hides it
    #[arg(long, env = super::ARGUMENT_FD_VARIABLE, hide = true)]
    pub argument_fd: Option<i32>,
    /// Whether descriptors were read before, and may be something else now.
    #[arg(skip)]
    pub fds_are_read: bool,
    /// Inherited descriptor, 3 or more, of a file or pipe that holds keys (`ENROLL_AGENT_KEY_FD`)
    #[arg(id = "key_fd", long = "key-fd", value_name = "N", value_parser = clap::value_parser!(i32).range(3..))]
    pub fd: Option<i32>,
    /// File that holds keys, one a line, tried in this order; may be given again; nobody else may be able to read it
    /// (`ENROLL_AGENT_KEY_FILE`)
    #[arg(id = "key_file", long = "key-file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Take key files that others can read
    #[arg(long, env = "ENROLL_AGENT_INSECURE_KEY_FILE")]
    pub insecure_key_file: bool,
    /// The key itself, or `-`.
    #[arg(skip)]
    pub key: Option<Secret>,
    /// Inherited descriptor of a key that was in the environment before
    #[arg(long, env = super::VARIABLE_FD_VARIABLE, hide = true)]
    pub variable_fd: Option<i32>,
}
