//! Whether the kernel has WireGuard.

use netlink_packet_route::link::InfoKind;

use super::{LinkError, netlink::Netlink, netlink_messages::Found};
use crate::model::{InterfaceName, LinkState};

/// Finds out whether this kernel has WireGuard, by making an interface and deleting it.
pub(super) async fn kernel() -> Result<(), LinkError> {
    let random = uuid::Uuid::new_v4().simple().to_string();
    let name: InterfaceName = format!("{PROBE}{}", &random[..8]).parse().expect("15 letters, digits and a dash");
    let netlink = Netlink::open()?;
    sweep(&netlink).await?;
    netlink.create_wireguard(&name).await?;
    match netlink.find(&name).await? {
        Some(Found { index, .. }) => netlink.delete(index, &name).await,
        None => Ok(()),
    }
}

/// Deletes what an earlier probe left behind that was killed between making and deleting.
async fn sweep(netlink: &Netlink) -> Result<(), LinkError> {
    for Found { index, kind, mtu: _, name, state } in netlink.interfaces().await? {
        let is_hex =
            |digits: &str| digits.len() == 8 && digits.bytes().all(|digit| b"0123456789abcdef".contains(&digit));
        let left_over = kind == Some(InfoKind::Wireguard)
            && state == LinkState::Down
            && name.strip_prefix(PROBE).is_some_and(is_hex);
        if left_over && let Ok(name) = name.parse() {
            tracing::debug!(interface = %name, "deleting what a probe left behind");
            netlink.delete(index, &name).await?;
        }
    }
    Ok(())
}

/// What the names of interfaces begin with that are made only to see whether they can be; eight hex digits follow.
const PROBE: &str = "enroll-";
