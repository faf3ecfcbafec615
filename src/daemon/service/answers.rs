//! Who is answered what: requests over the control socket.

use std::{future::Future, rc::Rc};

use tokio::sync::mpsc;

use super::{Finished, Service};
use crate::{
    daemon::{
        enroll,
        errand::{self, Command},
        requests::{self, Kept, Plain, say},
    },
    ipc::{Answer, Call, Failure, JoinOrder, Request, Rights},
    membership::{JoinRequest, Limits, MembershipError, SignOff},
    model::{Broken, Class, IdentityChoice, LeavingStatus, NetworkName, Server, State, Status, Token},
};

impl Service {
    pub(super) fn receive(&mut self, call: std::io::Result<Call>) {
        let mut call = match call {
            Ok(call) => call,
            Err(error) => {
                tracing::warn!(%error, "the control socket failed");
                return;
            }
        };
        if self.tasks.len() > MOST_TASKS {
            tracing::warn!("too many conversations at once: one is not begun");
            return;
        }
        let calls = self.calls.clone();
        self.tasks.spawn_local(async move {
            match call.request().await {
                Ok(request) => {
                    let rights = call.rights().await;
                    drop(calls.send((call, request, rights)));
                }
                Err(error) => tracing::debug!(%error, "unusable request on the control socket"),
            }
            Finished::Aside
        });
    }

    pub(super) fn answer(&mut self, call: Call, request: Request, rights: Rights) {
        let looks = matches!(request, Request::Status | Request::Watch);
        if rights == Rights::None || (rights == Rights::Look && !looks) {
            let message = "only root, the agent's user and the group enroll-agent may ask for this".to_owned();
            return self.refuse(call, Failure { class: Class::Denied, message });
        }
        match request {
            Request::Down { server } => self.order(call, server.as_ref(), Plain::Down),
            Request::Join(order) => self.join(call, *order),
            Request::Leave { forget, network, server } => {
                let sign_off = if forget { SignOff::Forget } else { SignOff::Tell };
                self.leave(call, network, server, sign_off);
            }
            Request::RotateKeys { server } => self.order(call, server.as_ref(), Plain::RotateKey),
            Request::Status => {
                let (kept, board) = (self.all(), self.board.clone());
                self.aside(async move { requests::status(call, kept, board).await });
            }
            Request::Sync { server } if self.kept.is_empty() && !self.board.report().leaving.is_empty() => {
                self.settle(call, server);
            }
            Request::Sync { server } => self.order(call, server.as_ref(), Plain::Sync),
            Request::Up { server } => self.order(call, server.as_ref(), Plain::Up),
            Request::Watch => {
                let (kept, board) = (self.all(), self.board.clone());
                self.aside(async move { requests::watch(call, kept, board).await });
            }
        }
    }

    pub(super) fn aside(&mut self, conversation: impl Future<Output = ()> + 'static) {
        self.tasks.spawn_local(async move {
            conversation.await;
            Finished::Aside
        });
    }

    fn refuse(&mut self, mut call: Call, failure: Failure) {
        self.aside(async move { say(&mut call, &Answer::Failed(failure)).await });
    }

    fn all(&self) -> Vec<Kept> {
        self.kept.iter().map(|(server, inbox)| Kept { inbox: inbox.clone(), server: server.clone() }).collect()
    }

    /// Those that are meant: the named one, or all.
    fn order(&mut self, call: Call, server: Option<&Server>, plain: Plain) {
        let mut kept = self.all();
        kept.retain(|kept| server.is_none_or(|server| kept.server == *server));
        if kept.is_empty() {
            return self.refuse(call, errand::failure(&self.absent(server)));
        }
        self.aside(requests::order(call, kept, plain));
    }

    fn leave(&mut self, call: Call, network: Option<NetworkName>, server: Option<Server>, sign_off: SignOff) {
        let server = match server.map_or_else(|| self.meant(network.as_ref()), Ok) {
            Ok(server) => server,
            Err(error) => return self.refuse(call, errand::failure(&error)),
        };
        if self.kept.contains_key(&server) {
            return self.order(call, Some(&server), Plain::Leave(network, sign_off));
        }
        if let Some(task) = self.enrolling.remove(&server) {
            task.abort();
            self.board.enroll(&server, None);
            let (hands, backend, wake) = (self.hands.clone(), self.settings.backend, Rc::clone(&self.wake));
            return self.aside(async move { requests::give_up(call, hands, server, backend, sign_off, wake).await });
        }
        let waits = |leaving: &LeavingStatus| leaving.server == server.to_string();
        if !self.in_hand.contains(&server) && self.board.report().leaving.iter().any(waits) {
            let (hands, wake) = (self.hands.clone(), Rc::clone(&self.wake));
            return self.aside(async move { requests::settle(call, hands, server, sign_off, wake).await });
        }
        let forgotten = if self.hands.store.is_inherited(&server) && !self.in_hand.contains(&server) {
            // The server knows it as another machine's.
            self.hands.store.forget_inherited(&server).map_err(MembershipError::from)
        } else if self.hands.store.is_set_aside(&server) {
            self.hands.store.remove(&server).map_err(MembershipError::from)
        } else {
            Err(self.absent(Some(&server)))
        };
        if forgotten.is_ok() {
            self.board.forget(&server);
        }
        let answer = errand::answer(forgotten.map(|()| errand::Obeyed::default()));
        let mut call = call;
        self.aside(async move { say(&mut call, &answer).await });
    }

    /// Makes the sign-offs that wait for `server`, or for the only one there is.
    fn settle(&mut self, call: Call, server: Option<Server>) {
        match server.map_or_else(|| self.meant(None), Ok) {
            Ok(server) => {
                let (hands, wake) = (self.hands.clone(), Rc::clone(&self.wake));
                self.aside(async move { requests::settle(call, hands, server, SignOff::Tell, wake).await });
            }
            Err(error) => self.refuse(call, errand::failure(&error)),
        }
    }

    /// Why there is nothing to work on.
    fn absent(&self, server: Option<&Server>) -> MembershipError {
        let report = self.board.report();
        let meant = |status: &&Status| server.is_none_or(|server| status.server == server.to_string());
        let mut suspects = report.memberships.iter().filter(meant).filter_map(|status| {
            let server = status.server.parse().ok()?;
            match status.state {
                State::Clone => Some(MembershipError::Inherited(server)),
                State::Held => Some(MembershipError::Held { server, source: None }),
                State::Down | State::Off | State::Pending | State::Revoked | State::Up | State::Waiting => None,
            }
        });
        suspects.next().unwrap_or(MembershipError::NotEnrolled)
    }

    /// The server with the network, or the only one.
    fn meant(&self, network: Option<&NetworkName>) -> Result<Server, MembershipError> {
        let report = self.board.report();
        if let ([], [enrolling], None) = (&report.memberships[..], &report.enrolling[..], network) {
            return enrolling.server.parse().map_err(|_| MembershipError::NotEnrolled);
        }
        if let ([], [], None, Some(leaving)) =
            (&report.memberships[..], &report.enrolling[..], network, report.leaving.first())
        {
            let is_one = report.leaving.iter().all(|other| other.server == leaving.server);
            let server = leaving.server.parse().map_err(|_| MembershipError::NotEnrolled);
            return if is_one { server } else { Err(MembershipError::Several) };
        }
        let with_it = |status: &&Status| network.is_none_or(|name| status.networks.contains_key(name));
        let mut servers = report.memberships.iter().filter(with_it).filter_map(|status| status.server.parse().ok());
        match (servers.next(), servers.next(), network) {
            (Some(server), None, _) => Ok(server),
            (Some(_), Some(_), _) => Err(MembershipError::Several),
            (None, _, Some(network)) if !report.memberships.is_empty() => {
                Err(MembershipError::NotInNetwork(network.clone()))
            }
            (None, _, _) => Err(MembershipError::NotEnrolled),
        }
    }

    fn is_held(&self, server: &Server) -> bool {
        let report = self.board.report();
        report.memberships.iter().any(|status| status.server == server.to_string() && status.state == State::Held)
    }

    fn join(&mut self, call: Call, order: JoinOrder) {
        let JoinOrder { backend, choice, interface, overrides, spare, timeout, token, wait } = order;
        let tokens: Result<Vec<Token>, _> = token.iter().chain(&spare).map(|token| token.expose().parse()).collect();
        let tokens = match tokens {
            Ok(tokens) => tokens,
            Err(error) => {
                return self.refuse(call, Failure { class: Class::Refused, message: error.to_string() });
            }
        };
        let server = match tokens.first().map_or_else(|| self.meant(None), |token| Ok(token.server().clone())) {
            Ok(server) => server,
            Err(error) => return self.refuse(call, errand::failure(&error)),
        };
        let overrides = overrides.or(self.settings.overrides.clone());
        if let Some(inbox) = self.kept.get(&server) {
            if choice == Some(IdentityChoice::New) {
                let message = format!("the membership with {server} is in use; leave it first to enroll as a new host");
                return self.refuse(call, Failure { class: Class::Usage, message });
            }
            let kept = Kept { inbox: inbox.clone(), server };
            let board = self.board.clone();
            self.aside(requests::further(call, kept, board, move |progress| Command::Further {
                overrides: Box::new(overrides),
                progress,
                limits: Limits { timeout, wait },
                tokens,
            }));
            return;
        }
        if let Some(task) = self.enrolling.remove(&server) {
            task.abort();
            self.board.enroll(&server, None);
        } else if self.is_held(&server) {
            if let Some(task) = self.opening.remove(&server) {
                task.abort();
            }
        } else if self.in_hand.contains(&server) {
            let broken = self.board.report().broken.into_iter().find(|broken| broken.server == server.to_string());
            let failure = match broken {
                Some(Broken { error, server: _ }) => Failure { class: error.class, message: error.message },
                None => {
                    let message = format!("the membership with {server} is being worked on");
                    Failure { class: Class::Temporary, message }
                }
            };
            return self.refuse(call, failure);
        }
        self.in_hand.insert(server.clone());
        let backend = backend.or(self.settings.backend);
        let mut tokens = tokens.into_iter();
        let (token, spare) = (tokens.next(), tokens.collect());
        let server_meant = Some(server.clone());
        let request =
            JoinRequest { backend, choice, interface, overrides, server: server_meant, spare, timeout, token, wait };
        self.begin_join(call, server, request);
    }

    fn begin_join(&mut self, mut call: Call, server: Server, request: JoinRequest) {
        let hands = self.hands.clone();
        self.tasks.spawn_local(async move {
            let (progress, mut stages) = mpsc::unbounded_channel();
            let mut report = |stage| {
                let _ = progress.send(stage);
            };
            let joining = enroll::once(&hands, &request, &mut report);
            tokio::pin!(joining);
            let joined = loop {
                tokio::select! {
                    joined = &mut joining => break joined,
                    Some(stage) = stages.recv() => say(&mut call, &Answer::Progress { stage }).await,
                }
            };
            Finished::Joined(Box::new((call, server, joined)))
        });
    }
}

/// Conversations and other work at once; far more than one device has.
const MOST_TASKS: usize = 256;
