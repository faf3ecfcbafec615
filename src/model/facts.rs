//! What a machine says about itself.

use ipnet::IpNet;

use super::Outside;

/// A snapshot of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Interface of the IPv4 default route; empty when there is none.
    pub default_interface: String,
    /// `nftables`, `iptables` or `none`: which firewall tool is installed.
    pub firewall: &'static str,
    /// The machine's host name.
    pub host_name: String,
    /// Whether this is a container.
    pub in_container: bool,
    /// Private addresses on this machine's own networks, by interface.
    pub interfaces: Vec<(String, IpNet)>,
    /// Whether IPv4 packets are forwarded.
    pub ip_forwarding: bool,
    /// Kernel release, as `uname -r` prints it.
    pub kernel_version: String,
    /// `ID` of os-release, as `debian`.
    pub os_family: String,
    /// `VERSION_ID` of os-release, as `12`; empty on rolling distributions.
    pub os_version: String,
    /// Where it is seen from outside, as far as somebody told.
    pub outside: Outside,
}
