//! What a join is asked for, and what comes of it.

use std::time::Duration;

use super::{MembershipError, Work};
use crate::model::{Backend, Chosen, IdentityChoice, InterfaceName, Overrides, Patience, Server, Stage, Token};

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// `None` picks the kernel if it has WireGuard.
    pub backend: Option<Backend>,
    /// Whose the identity is, where that is in doubt; `None` leaves it to the agent.
    pub choice: Option<IdentityChoice>,
    /// `None` takes the saved one, else the first free `enrollN`.
    pub interface: Option<InterfaceName>,
    /// Settings given now.
    pub overrides: Overrides,
    /// The server to go on with when there is no key; `None` is the only one there is.
    pub server: Option<Server>,
    /// Keys to try in this order, each when the server refused the one before for good.
    pub spare: Vec<Token>,
    /// How long one key may take until it is redeemed.
    pub timeout: Duration,
    /// The key; `None` goes on with a membership that is there.
    pub token: Option<Token>,
    /// How long to wait for networks, the required ones too, once it is; `None` waits for whatever there is to come for
    /// what is left of `timeout`, and for nothing in particular.
    pub wait: Option<Patience>,
}

/// How long a join may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// See [`JoinRequest::timeout`].
    pub timeout: Duration,
    /// See [`JoinRequest::wait`].
    pub wait: Option<Patience>,
}

impl JoinRequest {
    /// How long it may take.
    pub fn limits(&self) -> Limits {
        Limits { timeout: self.timeout, wait: self.wait }
    }
}

/// How the server took us in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// Already enrolled with this key: nothing was spent.
    Again,
    /// Already enrolled; this further key was redeemed.
    Further,
    /// Enrolled now.
    New,
    /// Already enrolled, and the server did not confirm it: the saved assignment is in force.
    Offline,
}

impl Greeting {
    /// In one word, for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Again => "already-enrolled",
            Self::Further => "further-key-redeemed",
            Self::New => "enrolled",
            Self::Offline => "already-enrolled-offline",
        }
    }
}

/// A host in its networks.
#[derive(Debug)]
pub struct Joined {
    /// Which key the server took.
    pub chosen: Chosen,
    /// Why the server did not confirm it; always there for [`Greeting::Offline`], never otherwise.
    pub failure: Option<MembershipError>,
    /// How the server took us in.
    pub greeting: Greeting,
    /// Everything needed to stay in step.
    pub work: Work,
    /// How long each stage took, in order of their first appearance.
    pub timings: Vec<(Stage, Duration)>,
}
