//! This host's enrollment with one server: joining, keeping in step and leaving, told as stories.
//!
//! This is where the hands meet: store, server and interface.

mod bond;
mod error;
mod fence;
mod found;
mod gateway;
mod glance;
mod image;
mod join;
mod leave;
mod names;
mod outside;
mod push;
mod redeem;
mod rehearse;
mod resume;
mod rotate;
mod round;
mod seen;
mod spare;
mod tunnel;
mod watch;
mod work;

use std::path::PathBuf;

pub use bond::HoldWatch;
pub use error::{MembershipError, describe};
pub use gateway::GatewaysInUse;
pub use glance::{clear, clear_after, clear_deleted, deleted, held, inherited, status, sweep};
pub use image::{Wiped, remains, wipe};
pub use join::{Greeting, JoinRequest, Joined, join};
pub use leave::{Farewell, leave};
pub use names::{end_names, release_names};
pub use redeem::forgive;
pub use rehearse::{Rehearsal, Spending, rehearse};
pub use round::{News, Round};
pub use tunnel::{Look, Tunnel, Whereabouts};
pub use work::Work;

use crate::{
    control::{Rest, client_config},
    facts,
    model::{Machine, Membership, Server},
    store::Store,
};

/// The agent's hands that do not belong to one membership.
#[derive(Clone, Debug)]
pub struct Hands {
    /// Certificate authority given now; `None` takes the one saved with the membership, else the system's.
    pub ca_file: Option<PathBuf>,
    /// The hardware's UUID, where somebody with more rights read it for this process.
    pub hardware_uuid: Option<String>,
    /// Memberships on disk.
    pub store: Store,
}

impl Hands {
    /// Opens a conversation with the server of a membership, at the address it wants; nothing is sent yet.
    fn rest(&self, membership: &Membership) -> Result<Rest, MembershipError> {
        let enrolled = membership.enrolled();
        let server = enrolled.map_or(&membership.server, |enrolled| &enrolled.api);
        let known = enrolled.map(|enrolled| enrolled.server_addresses.clone()).unwrap_or_default();
        let tls = client_config(self.ca_file.as_ref().or(membership.policy.ca_file.as_ref()).map(PathBuf::as_path))?;
        Ok(Rest::new(server.clone(), &known, &tls)?)
    }

    /// What this machine says of itself now.
    fn machine(&self) -> Machine {
        facts::machine(self.hardware_uuid.as_deref())
    }

    /// Returns the only membership's server; without any, the server of the only one that is another machine's.
    ///
    /// # Errors
    /// [`MembershipError::NotEnrolled`] if there is none, [`MembershipError::Several`] if there are more.
    pub fn only_server(&self) -> Result<Server, MembershipError> {
        let mut servers = self.store.servers()?;
        if servers.is_empty() {
            servers = self.store.servers_inherited()?;
        }
        match (servers.pop(), servers.is_empty()) {
            (Some(server), true) => Ok(server),
            (Some(_), false) => Err(MembershipError::Several),
            (None, _) => Err(MembershipError::NotEnrolled),
        }
    }
}

/// Prefix of the interfaces that are ours by default; they are not reported as local networks.
const OWN_PREFIX: &str = "enroll";
