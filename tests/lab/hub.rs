//! The middle of the lab: where every node's cable ends, and where servers of a test run.

use std::{
    fs,
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use anyhow::{Context, Result};
use ipnet::IpNet;
use rtnetlink::Handle;
use tokio::runtime::{self, Runtime};

use super::{
    netlink,
    node::Node,
    protocol::{Interface, Uplink},
};

/// Whether packets for others are passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forwarding {
    /// They are dropped.
    Off,
    /// They are passed on.
    On,
}

/// Whether a node's cable is plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cable {
    /// Packets pass.
    In,
    /// Nothing passes, and the node's interface loses its carrier.
    Out,
}

/// The hub; dropping it, or the end of its process, ends everything in it.
pub(crate) struct Lab {
    runtime: Runtime,
    netlink: Handle,
    nodes: u8,
    scratch: PathBuf,
}

impl Lab {
    /// The hub's own IPv4 address, which every node reaches.
    pub(crate) const V4: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 1);
    /// The hub's own IPv6 address, which every node reaches.
    pub(crate) const V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x213, 0, 0, 0, 0, 0, 1);

    pub(super) fn open(scratch: PathBuf) -> Result<Self> {
        // Before there is any interface, since new ones take over what is set.
        netlink::forward(Forwarding::On)?;
        let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let netlink = runtime.block_on(async {
            let handle = netlink::connect()?;
            netlink::up(&handle, "lo").await?;
            netlink::add_address(&handle, "lo", IpAddr::V4(Self::V4), 32).await?;
            netlink::add_address(&handle, "lo", IpAddr::V6(Self::V6), 128).await?;
            anyhow::Ok(handle)
        })?;
        Ok(Self { runtime, netlink, nodes: 0, scratch })
    }

    /// Adds a node with a namespace of its own and plugs it in.
    ///
    /// # Errors
    /// If the system refuses a process, a namespace or a cable.
    pub(crate) fn node(&mut self, name: &str) -> Result<Node> {
        self.nodes = self.nodes.checked_add(1).context("the lab has addresses for 255 nodes")?;
        let number = self.nodes;
        let uplink = uplink(number);
        let node = Node::start(name, number, uplink).with_context(|| format!("cannot start node {name}"))?;
        self.runtime.block_on(async {
            let cable = cable(number);
            netlink::add_cable(&self.netlink, &cable, node.pid()).await?;
            netlink::trust_addresses(&cable)?;
            netlink::add_address(&self.netlink, &cable, IpAddr::V4(uplink.v4_gateway), 30).await?;
            netlink::add_address(&self.netlink, &cable, IpAddr::V6(uplink.v6_gateway), 126).await?;
            netlink::up(&self.netlink, &cable).await
        })?;
        node.configure()?;
        Ok(node)
    }

    /// Connects two nodes by a network of their own, `lan0` at both, with these addresses.
    ///
    /// # Errors
    /// If one of them is in such a network already.
    pub(crate) fn lan(&self, one: (&Node, IpNet), two: (&Node, IpNet)) -> Result<()> {
        self.runtime.block_on(netlink::add_cable_between(&self.netlink, "lan0", one.0.pid(), two.0.pid()))?;
        one.0.attach(one.1)?;
        two.0.attach(two.1)
    }

    /// Makes a folder that the hub and all nodes share, in memory, and that ends with the hub.
    ///
    /// # Errors
    /// If there is one of that name.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.scratch.join(name);
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }

    /// Plugs a node's cable in or out.
    ///
    /// # Errors
    /// If the node is gone.
    pub(crate) fn plug(&self, node: &Node, state: Cable) -> Result<()> {
        let cable = cable(node.number());
        self.runtime.block_on(async {
            match state {
                Cable::In => netlink::up(&self.netlink, &cable).await,
                Cable::Out => netlink::down(&self.netlink, &cable).await,
            }
        })
    }

    /// Switches what the hub does with packets from one node to another.
    ///
    /// # Errors
    /// If the machine does not let it.
    #[expect(
        clippy::unused_self,
        reason = "who has a lab is in its namespaces; without one this would hit the machine"
    )]
    pub(crate) fn forward(&self, forwarding: Forwarding) -> Result<()> {
        netlink::forward(forwarding)
    }

    /// Lists the hub's own interfaces.
    ///
    /// # Errors
    /// If the system does not tell.
    #[expect(
        clippy::unused_self,
        reason = "who has a lab is in its namespaces; without one this would show the machine"
    )]
    pub(crate) fn interfaces(&self) -> Result<Vec<Interface>> {
        netlink::interfaces()
    }

    /// Runs a future in the hub to its end; what it spawns keeps running, as a server should.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }
}

fn cable(number: u8) -> String {
    format!("node{number}")
}

fn uplink(number: u8) -> Uplink {
    Uplink {
        v4: Ipv4Addr::new(10, 213, number, 2),
        v4_gateway: Ipv4Addr::new(10, 213, number, 1),
        v6: Ipv6Addr::new(0xfd00, 0x213, 0, number.into(), 0, 0, 0, 2),
        v6_gateway: Ipv6Addr::new(0xfd00, 0x213, 0, number.into(), 0, 0, 0, 1),
    }
}
