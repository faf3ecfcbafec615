//! What a keeper holds: the work, and the connection to the server's broker.

use futures_util::future::LocalBoxFuture;
use tokio::sync::oneshot;

use super::errand::Done;
use crate::{
    control::{Access, Push, Pushed},
    membership::Work,
    model::PushState,
};

/// Where the work is.
pub(super) enum Hand {
    /// The future ends early if its interrupter is used.
    Busy(LocalBoxFuture<'static, (Box<Work>, Done)>, oneshot::Sender<()>),
    Idle(Box<Work>),
    /// Only while it changes hands.
    Moving,
}

impl Hand {
    /// Waits for the work to come back; for ever while it is here.
    pub(super) async fn back(&mut self) -> (Box<Work>, Done) {
        match self {
            Self::Busy(errand, _) => errand.await,
            Self::Idle(_) | Self::Moving => std::future::pending().await,
        }
    }
}

/// The server's broker.
pub(super) struct Broker {
    pub(super) access: Option<Access>,
    pub(super) connection: Option<Push>,
    pub(super) state: PushState,
}

impl Broker {
    pub(super) async fn next(&mut self) -> Pushed {
        match &mut self.connection {
            Some(connection) => connection.next().await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn close(&mut self) {
        *self = Self { access: None, connection: None, state: PushState::Absent };
    }
}
