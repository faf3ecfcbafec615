//! What follows when a task came to its end.

use tokio::sync::oneshot;

use super::{ENROLL_TIMEOUT, Ended, Finished, Service};
use crate::{
    daemon::{
        enroll::Enrollment,
        errand::{self, After},
        keeper::First,
        requests::say,
    },
    facts,
    ipc::{Answer, Call},
    membership::{JoinRequest, Joined, MembershipError},
    model::{Overrides, Server},
    plan,
};

impl Service {
    pub(super) fn finished(&mut self, finished: Finished) -> Option<(Server, Ended)> {
        match finished {
            Finished::Aside => None,
            Finished::Joined(joined) => {
                let (call, server, joined) = *joined;
                self.joined(call, server, joined);
                None
            }
            Finished::Kept(server, after) => {
                self.kept.remove(&server);
                Some((server.clone(), self.lost(server, after)))
            }
            Finished::Opened(server, work, begun) => {
                self.in_hand.remove(&server);
                self.opening.remove(&server);
                let begun = begun.unwrap_or_else(|| oneshot::channel().0);
                let first = plan::spread(&facts::machine_id(), &server, self.settings.spread);
                match work {
                    Some(work) => {
                        // An enrollment has just talked to the server.
                        let fresh = self.enrolling.remove(&server).is_some();
                        self.keep(work, if fresh { First::Joined } else { First::After(first) }, begun);
                    }
                    None => {
                        self.board.forget(&server);
                        self.show_inherited();
                        self.resume_enrolling(server);
                    }
                }
                None
            }
        }
    }

    /// Goes on with a key that was on its way when the agent ended.
    fn resume_enrolling(&mut self, server: Server) {
        self.enroll(self.configured(&server).unwrap_or_else(|| {
            let request = JoinRequest {
                backend: self.settings.backend,
                choice: None,
                interface: None,
                overrides: Overrides::default(),
                server: Some(server.clone()),
                spare: Vec::new(),
                timeout: ENROLL_TIMEOUT,
                token: None,
                wait: None,
            };
            Enrollment { request, server, taken: None }
        }));
    }

    fn joined(&mut self, mut call: Call, server: Server, joined: Result<Joined, MembershipError>) {
        self.in_hand.remove(&server);
        let answer = match joined {
            Ok(Joined { chosen, failure, greeting, work, timings }) => {
                let answer = Answer::Joined {
                    chosen,
                    failure: failure.as_ref().map(errand::failure),
                    greeting: greeting.word().to_owned(),
                    status: Box::new(work.recent_status()),
                    timings: timings.into_iter().collect(),
                };
                self.keep(Box::new(work), First::Joined, oneshot::channel().0);
                answer
            }
            Err(error) => {
                if self.saved().contains(&server) {
                    // Enrolled without a network yet, or a key still on its way: it is gone on with.
                    self.open(server, oneshot::channel().0);
                } else if let Some(configured) = self.configured(&server) {
                    // The key of the configuration was passed over for this one.
                    self.enroll(configured);
                }
                Answer::Failed(errand::failure(&error))
            }
        };
        self.aside(async move { say(&mut call, &answer).await });
    }

    fn lost(&mut self, server: Server, after: After) -> Ended {
        match after {
            After::SetAside => {
                tracing::warn!(%server, "the server deleted this host; its identity is kept aside");
                self.board.revoke(&server);
                if self.settings.reenroll {
                    self.enroll_configured();
                }
                Ended::Deleted(server)
            }
            After::GoOn | After::Left | After::Switched => {
                self.board.forget(&server);
                self.wake.notify_one();
                Ended::Left
            }
        }
    }
}
