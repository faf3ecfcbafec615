//! WireGuard in this process: a TUN interface and gotatun's data plane on threads of their own.
//!
//! ```text
//!            CreateInterface            up, with a key                 down
//!  no tunnel ───────────────► silent ──────────────────► running ─────────────► silent
//!      ▲                        │                           │
//!      └────────────────────────┴──── remove, or somebody deleted the interface
//! ```
//!
//! gotatun must not run before it has a key, and never starts when it gets its first peer while it runs without; so it
//! is suspended while silent and told all it should do before it runs. Peers are modified in place, which keeps their
//! sessions.

use std::{fs::OpenOptions, io, sync::Arc, time::Duration};

use gotatun::{
    device::{Device as GotatunDevice, DeviceBuilder, Error as GotatunError, configure::DeviceWrite},
    tun::tun_async_device::TunDevice,
};
use netlink_packet_route::link::InfoKind;
use nix::errno::Errno;
use tokio::runtime::{self, Runtime};

use super::{
    Class, LeftOut, Link, LinkError, failed,
    netlink::Netlink,
    netlink_messages::Found,
    runs,
    userspace_peers::{Figures, clear, edit, read},
    userspace_udp::{SideDoor, Sockets},
    words::describe,
};
use crate::{
    model::{Device, InterfaceName, LinkState, Observation},
    plan::Change,
};

/// UDP sockets with a side door, and a TUN interface.
pub(super) type Transports = (Sockets, TunDevice, TunDevice);

/// gotatun's device over them.
pub(super) type Plane = GotatunDevice<Transports>;

type Write<'a> = DeviceWrite<'a, Transports>;

/// An interface whose packets this process carries; it vanishes with this value.
pub struct Userspace {
    name: InterfaceName,
    netlink: Netlink,
    /// `None` only while this is dropped.
    runtime: Option<Runtime>,
    tunnel: Option<Tunnel>,
}

/// The interface while it exists.
struct Tunnel {
    /// The interface's number: another one under our name is not ours.
    index: u32,
    door: SideDoor,
    plane: Arc<Plane>,
    running: bool,
}

impl Userspace {
    /// Starts the data plane's threads; makes no interface yet. Must be called within a tokio runtime.
    pub fn new(name: InterfaceName) -> Result<Self, LinkError> {
        let mut builder = runtime::Builder::new_multi_thread();
        let builder = builder.worker_threads(WORKERS).thread_name("data-plane").enable_all();
        let runtime = builder.build().map_err(|source| failed("start the data plane's threads", source))?;
        Ok(Self { name, netlink: Netlink::open()?, runtime: Some(runtime), tunnel: None })
    }

    /// The way beside WireGuard through its own port; `None` while nothing runs.
    pub(super) fn door(&self) -> Option<SideDoor> {
        self.tunnel.as_ref().filter(|tunnel| tunnel.running).map(|tunnel| tunnel.door.clone())
    }

    /// Finds our interface; forgets the tunnel if somebody deleted it.
    async fn find(&mut self) -> Result<Option<Found>, LinkError> {
        let found = self.netlink.find(&self.name).await?;
        let same = |tunnel: &Tunnel| found.as_ref().is_some_and(|found| found.index == tunnel.index);
        if self.tunnel.as_ref().is_some_and(same) {
            return Ok(found);
        }
        self.close().await?;
        match found {
            None => Ok(None),
            Some(_) => Err(LinkError::Taken(self.name.clone())),
        }
    }

    async fn create(&mut self) -> Result<(), LinkError> {
        if self.find().await?.is_some() {
            return Err(LinkError::Taken(self.name.clone()));
        }
        probe().await?;
        self.netlink.remove_rules(&self.name).await?;
        let name = self.name.clone();
        let (plane, door) = self.on_plane(build(name.clone())).await??;
        let found = self.netlink.find(&self.name).await?;
        let Some(Found { index, kind: Some(InfoKind::Tun), .. }) = found else {
            return Err(LinkError::Taken(name));
        };
        self.tunnel = Some(Tunnel { index, door, plane: Arc::new(plane), running: false });
        let mtu = [Change::SetMtu(Device::blank().mtu)];
        self.netlink.apply(&self.name, index, &mtu, &mut LeftOut::default()).await
    }

    async fn carry_out(&mut self, changes: &[Change]) -> Result<LeftOut, LinkError> {
        let mut left_out = LeftOut::default();
        for (class, run) in runs(changes) {
            if class == Class::Create {
                self.create().await?;
                continue;
            }
            let Some(Found { index, .. }) = self.find().await? else {
                return Err(self.gone());
            };
            match class {
                Class::Create => {}
                Class::Network => self.netlink.apply(&self.name, index, run, &mut left_out).await?,
                Class::WireGuard => self.configure(run).await?,
            }
        }
        Ok(left_out)
    }

    async fn configure(&mut self, changes: &[Change]) -> Result<(), LinkError> {
        let Tunnel { plane, .. } = self.tunnel.as_ref().ok_or_else(|| self.gone())?;
        let plane = Arc::clone(plane);
        let edits = changes.to_vec();
        let edited = self.on_plane(async move { edit_all(&plane, edits).await }).await?;
        if let (Err(Refusal { silent: true, .. }), Some(tunnel)) = (&edited, &mut self.tunnel) {
            tunnel.running = false;
        }
        edited.map_err(|Refusal { at, source, silent: _ }| match at.and_then(|at| changes.get(at)) {
            Some(change) => failed(describe(change, &self.name), source),
            None => failed(format!("configure interface {}", self.name), source),
        })
    }

    /// Runs the data plane if the interface is up and has a key, else silences it.
    async fn settle(&mut self, state: LinkState) -> Result<(), LinkError> {
        let Tunnel { plane, running, .. } = self.tunnel.as_ref().ok_or_else(|| self.gone())?;
        let (plane, running) = (Arc::clone(plane), *running);
        let has_key = plane.read(async |device| device.private_key().is_some()).await;
        let run = state == LinkState::Up && has_key;
        if run == running {
            return Ok(());
        }
        let task = async move {
            if run {
                return start(&plane).await.map_err(system_error);
            }
            plane.suspend().await;
            Ok(())
        };
        let outcome = self.on_plane(task).await?;
        outcome.map_err(|source| failed(format!("listen for WireGuard on interface {}", self.name), source))?;
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.running = run;
        }
        Ok(())
    }

    /// Stops the data plane and deletes the interface, if there still is one.
    async fn close(&mut self) -> Result<(), LinkError> {
        let Some(Tunnel { index, plane, .. }) = self.tunnel.take() else {
            return Ok(());
        };
        let device = Arc::clone(&plane);
        self.on_plane(async move { device.suspend().await }).await?;
        let deleted = self.netlink.delete(index, &self.name).await;
        self.on_plane(async move { drop(plane) }).await?;
        deleted
    }

    /// Runs a task on the data plane's threads: gotatun spawns its tasks wherever it is called.
    async fn on_plane<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, LinkError> {
        let runtime = self.runtime.as_ref().ok_or_else(|| self.gone())?;
        let outcome = runtime.spawn(task).await;
        outcome.map_err(|panic| failed(format!("configure interface {}", self.name), io::Error::other(panic)))
    }

    fn gone(&self) -> LinkError {
        failed(format!("configure interface {}", self.name), Errno::ENODEV.into())
    }
}

impl Link for Userspace {
    async fn observe(&mut self) -> Result<Option<Observation>, LinkError> {
        let Some(Found { index, mtu, state, .. }) = self.find().await? else {
            return Ok(None);
        };
        let Tunnel { plane, .. } = self.tunnel.as_ref().ok_or_else(|| self.gone())?;
        let Figures { fwmark, listen_port, peers, private_key, stats } = read(plane).await;
        let addresses = self.netlink.addresses(index).await?;
        let routes = self.netlink.routes(&self.name, index).await?;
        let rules = self.netlink.rules_of(&self.name).await?;
        let device = Device { addresses, fwmark, listen_port, mtu, peers, private_key, routes, rules, state };
        Ok(Some(Observation { device, stats }))
    }

    async fn apply(&mut self, changes: &[Change]) -> Result<LeftOut, LinkError> {
        let outcome = self.carry_out(changes).await;
        // Also after an error: an interface that came up must not stay silent.
        let settled = match self.find().await? {
            Some(Found { state, .. }) => self.settle(state).await,
            None => Ok(()),
        };
        let left_out = outcome?;
        settled.map(|()| left_out)
    }

    async fn remove(&mut self) -> Result<(), LinkError> {
        self.find().await?;
        self.netlink.remove_rules(&self.name).await?;
        self.close().await
    }
}

impl Drop for Userspace {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        let entered = runtime.enter();
        drop(self.tunnel.take());
        drop(entered);
        // Waiting for the threads would panic within async code.
        runtime.shutdown_background();
    }
}

impl std::fmt::Debug for Userspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Userspace").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Finds out whether a TUN interface can be made here.
pub(super) async fn probe() -> Result<(), LinkError> {
    match OpenOptions::new().read(true).write(true).open(TUN) {
        // The device is often open to everybody; making an interface with it is not.
        Ok(_) => Netlink::open()?.may_change().await,
        Err(source) => match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO | Errno::ENOTDIR) => Err(LinkError::NoTun),
            _ => Err(failed(format!("open {TUN}"), source)),
        },
    }
}

async fn build(name: InterfaceName) -> Result<(Plane, SideDoor), LinkError> {
    let mut configuration = tun::Configuration::default();
    // Its "root privileges" are ioctls for addresses, which are rtnetlink's work here.
    configuration.tun_name(name.as_str()).platform_config(|platform| {
        platform.ensure_root_privileges(false);
    });
    let interface = tun::create_as_async(&configuration).map_err(|error| {
        let source = io::Error::from(error);
        match source.raw_os_error().map(Errno::from_raw) {
            // EINVAL: an interface of that name that is no TUN.
            Some(Errno::EBUSY | Errno::EINVAL) => LinkError::Taken(name.clone()),
            _ => failed(format!("create interface {name}"), source),
        }
    })?;
    let interface = TunDevice::from_tun_device(interface).map_err(|error| refused(&name, error.into()))?;
    let sockets = Sockets::new(SOCKET_BUFFER);
    let door = sockets.door();
    let built = DeviceBuilder::new().with_udp(sockets).with_ip(interface).suspended(true).build().await;
    Ok((built.map_err(|error| refused(&name, error))?, door))
}

fn refused(name: &InterfaceName, error: GotatunError) -> LinkError {
    failed(format!("create interface {name}"), system_error(error))
}

/// Why changes of keys, port or peers were refused.
struct Refusal {
    /// Which of the changes it was; `None` if none of them in particular.
    at: Option<usize>,
    /// The data plane has no socket left and is suspended.
    silent: bool,
    source: io::Error,
}

async fn edit_all(plane: &Plane, changes: Vec<Change>) -> Result<(), Refusal> {
    let old_port = plane.read(async |device| device.listen_port()).await;
    let written = plane.write(async |device: &mut Write<'_>| {
        let cleared = clear(device, &changes).await;
        for (at, change) in changes.iter().enumerate() {
            if cleared && matches!(change, Change::RemovePeer(_)) {
                continue;
            }
            edit(device, change).await.map_err(|source| Refusal { at: Some(at), silent: false, source })?;
        }
        Ok(())
    });
    let (edited, bound) = match written.await {
        Ok(edited) => (edited, Ok(())),
        Err(error) => (Ok(()), Err(error)),
    };
    let Err(error) = insist(plane, bound).await else {
        return edited;
    };
    // The old socket is closed already, and without one the tunnel would stay dead.
    let back = reconnect(plane, Some(old_port)).await;
    let silent = insist(plane, back).await.is_err();
    if silent {
        plane.suspend().await;
    }
    // Only a port can be taken, whatever else opened the sockets anew.
    let at = changes.iter().position(|change| matches!(change, Change::SetListenPort(_)));
    Err(Refusal { at, silent, source: system_error(error) })
}

/// Lets the data plane run, with or without peers.
async fn start(plane: &Plane) -> Result<(), GotatunError> {
    let mut outcome = plane.resume().await;
    if outcome.is_ok() && plane.peers().await.is_empty() {
        outcome = reconnect(plane, None).await;
    }
    outcome = insist(plane, outcome).await;
    if outcome.is_err() {
        plane.suspend().await;
    }
    outcome
}

/// Opens the sockets again while the port is taken, for a moment: gotatun lets go of its old ones a little late.
async fn insist(plane: &Plane, mut outcome: Result<(), GotatunError>) -> Result<(), GotatunError> {
    for _ in 0..BIND_TRIES {
        match &outcome {
            Err(GotatunError::Bind(error, _)) if error.kind() == io::ErrorKind::AddrInUse => {
                tokio::time::sleep(BIND_PAUSE).await;
                outcome = reconnect(plane, None).await;
            }
            Ok(()) | Err(_) => break,
        }
    }
    outcome
}

/// Opens the sockets anew, on `port` or where they were: gotatun does so only for a port that changes.
async fn reconnect(plane: &Plane, port: Option<u16>) -> Result<(), GotatunError> {
    let touch = plane.write(async |device: &mut Write<'_>| {
        let port = port.unwrap_or(device.listen_port());
        device.set_listen_port(port.wrapping_add(1));
        device.set_listen_port(port);
    });
    touch.await
}

/// The system's answer within gotatun's error.
pub(super) fn system_error(error: GotatunError) -> io::Error {
    if let GotatunError::Bind(source, _) | GotatunError::IoError(source) = error {
        return source;
    }
    io::Error::other(error)
}

const TUN: &str = "/dev/net/tun";

/// More threads do not make one tunnel faster.
const WORKERS: usize = 2;

/// Bytes; halves the loss under load where `net.core.rmem_max` and `wmem_max` allow it.
const SOCKET_BUFFER: usize = 4 << 20;

/// Sockets close on another thread, within milliseconds.
const BIND_TRIES: u32 = 10;
const BIND_PAUSE: Duration = Duration::from_millis(20);
