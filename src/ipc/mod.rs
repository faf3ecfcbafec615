//! The control socket between the commands and the agent that serves: JSON lines, one request, one or more answers.
//!
//! ```text
//! agent status ──{"verb":"status"}──► <runtime>/agent.sock ──► the serving agent
//!              ◄──{"answer":"report",…}──
//! ```
//!
//! Root, the user that the agent runs as and the members of the group `enroll-agent` may ask for everything; others see
//! the status if the agent was told so.

mod client;
mod listener;

use std::{collections::BTreeMap, io, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::{
    client::{Client, connect},
    listener::{Call, Listener, Rights},
};
use crate::model::{
    Backend, Chosen, Class, IdentityChoice, InterfaceName, Listed, NetworkName, Overrides, Patience, Report, Secret,
    Server, Stage, Status,
};

/// What can be asked of a serving agent. Without a server the whole device is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verb")]
pub enum Request {
    /// Take interfaces down until further notice.
    Down {
        /// Which membership.
        server: Option<Server>,
    },
    /// Redeem a key.
    Join(Box<JoinOrder>),
    /// Leave a server, or one network of it.
    Leave {
        /// Whether the server is never to know.
        #[serde(default)]
        forget: bool,
        /// `None` is the whole membership.
        network: Option<NetworkName>,
        /// Which membership; `None` is the only one, or the one with that network.
        server: Option<Server>,
    },
    /// Make new WireGuard keys.
    RotateKeys {
        /// Which membership.
        server: Option<Server>,
    },
    /// Tell how things are.
    Status,
    /// Do one round with the server now.
    Sync {
        /// Which membership.
        server: Option<Server>,
    },
    /// Take interfaces up again.
    Up {
        /// Which membership.
        server: Option<Server>,
    },
    /// Tell how things are, now and whenever they change, until the other side hangs up.
    Watch,
}

/// A join as it crosses the socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinOrder {
    /// `None` picks the kernel if it has WireGuard.
    pub backend: Option<Backend>,
    /// Whose the identity is, where that is in doubt.
    #[serde(default)]
    pub choice: Option<IdentityChoice>,
    /// `None` takes the saved one, else the first free `enrollN`.
    pub interface: Option<InterfaceName>,
    /// Settings given now.
    pub overrides: Overrides,
    /// Keys to try in this order, each when the server refused the one before for good.
    #[serde(default)]
    pub spare: Vec<Secret>,
    /// How long it may take until the key is redeemed.
    pub timeout: Duration,
    /// The key as it is pasted; `None` goes on with the only membership there is.
    pub token: Option<Secret>,
    /// How long to wait for networks, the required ones too, once the key is redeemed; `None` for nothing in particular.
    #[serde(default)]
    pub wait: Option<Patience>,
}

/// What a serving agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer")]
pub enum Answer {
    /// Done, with what did not work on the way.
    Done {
        /// Empty when everything did.
        failures: Vec<Failure>,
        /// Hosts that were left and that their servers still list.
        #[serde(default)]
        listed: Vec<Listed>,
    },
    /// Not done.
    Failed(Failure),
    /// The key is in force, or was before.
    Joined {
        /// Which key the server took.
        #[serde(default)]
        chosen: Chosen,
        /// Why the server did not confirm it, if it did not.
        failure: Option<Failure>,
        /// How the server took the host in, in one word.
        greeting: String,
        /// How things are since.
        status: Box<Status>,
        /// How long each stage took.
        timings: BTreeMap<Stage, Duration>,
    },
    /// Not done yet.
    Progress {
        /// What goes on.
        stage: Stage,
    },
    /// How things are.
    Report(Box<Report>),
}

/// A failure as it crosses the socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind.
    pub class: Class,
    /// What happened, with its causes.
    pub message: String,
}

/// Why a socket could not be used.
#[derive(Debug, thiserror::Error)]
pub enum IpcError {
    /// The socket cannot be made, or the agent behind it does not answer.
    #[error("cannot use the control socket {path}")]
    Socket {
        /// Which socket.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Another agent serves already.
    #[error("another agent already serves at {0}")]
    Taken(PathBuf),
}

fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    Ok(text)
}

/// The socket in the runtime folder.
const SOCKET: &str = "agent.sock";

/// Who may ask for everything beside root and the agent's own user.
const GROUP: &str = "enroll-agent";
