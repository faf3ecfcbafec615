//! Our hand on one network interface: look, change, remove.
//!
//! Three implementations behave alike: `Kernel` (WireGuard in the kernel), `Userspace` (an embedded data plane in
//! this process) and `Memory` (for tests and `--dry-run`). One suite, `tests/link.rs`, runs on each.

use std::{future::Future, io};

use crate::{
    model::{InterfaceName, Observation},
    plan::Change,
};

/// One interface of ours on this host, whether it exists yet or not.
pub trait Link: Send {
    /// Looks at the interface; `None` when there is none of that name.
    ///
    /// # Errors
    /// [`LinkError::Taken`] if an interface of that name exists and this link cannot be its owner.
    fn observe(&mut self) -> impl Future<Output = Result<Option<Observation>, LinkError>> + Send;

    /// Carries out `changes` in order. On an error earlier changes stay; observing tells which.
    fn apply(&mut self, changes: &[Change]) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// Removes the interface with everything on it; none there is success.
    fn remove(&mut self) -> impl Future<Output = Result<(), LinkError>> + Send;
}

/// Why a hand could not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The kernel has no WireGuard (`EOPNOTSUPP` on creating a link of that kind).
    #[error("this kernel has no WireGuard")]
    Absent,
    /// The process lacks the right (`EPERM`, `EACCES`); needs `CAP_NET_ADMIN`.
    #[error("not permitted to {action}")]
    Denied {
        /// What was tried, as "create interface enroll0".
        action: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Anything else the system answered.
    #[error("cannot {action}")]
    Failed {
        /// What was tried.
        action: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// This machine has no `/dev/net/tun`, so the userspace data plane cannot run.
    #[error("this machine has no TUN device (/dev/net/tun)")]
    NoTun,
    /// An interface of this name exists that is not ours.
    #[error("interface {0} belongs to something else")]
    Taken(InterfaceName),
}
