//! The agent as a whole: it owns every membership, and answers whoever asks.

mod answers;
mod ends;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::pin,
    rc::Rc,
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::{AbortHandle, JoinSet, LocalSet},
    time::{Interval, interval, sleep},
};

use super::{
    board::Board,
    clock,
    enroll::{self, Enrollment},
    errand::{self, After, Command},
    host::Host,
    keeper::{First, Keeper, Message, Rhythm},
    leaving, notify,
};
use crate::{
    facts,
    ipc::{Call, Listener, Request, Rights},
    link::HostChange,
    membership::{self, Hands, Joined, MembershipError, Work, describe},
    model::{Backend, Overrides, Server},
    plan,
};

/// How the agent behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `None` picks the kernel if it has WireGuard.
    pub backend: Option<Backend>,
    /// Settings of memberships that are joined through the socket, where whoever asks says nothing.
    pub overrides: Overrides,
    /// Time between pulls while nothing is pushed.
    pub poll: Duration,
    /// Whether a host that the server deleted enrolls again with a key of the configuration.
    pub reenroll: bool,
    /// Hosts that start together make their first contact within this time.
    pub spread: Duration,
}

/// What to begin with.
pub struct Start {
    /// Memberships that the configuration asks for.
    pub enrollments: Vec<Enrollment>,
    /// The hands of every membership.
    pub hands: Hands,
    /// Where to listen; `None` serves nobody.
    pub listener: Option<Listener>,
    /// A membership that was just joined and is to be served alone; `None` serves everything that is saved.
    pub only: Option<Box<Work>>,
    /// How to behave.
    pub settings: Settings,
}

/// How serving ended.
#[derive(Debug)]
pub enum Ended {
    /// The server deleted the only host that was to be served.
    Deleted(Server),
    /// The only membership that was to be served was left.
    Left,
    /// Asked to stop; memberships stay, userspace interfaces do not.
    Stopped,
}

/// Serves until `stop` completes, or the only membership to be served is gone.
///
/// `reloads` brings settings that are read again while the agent runs.
pub async fn run(
    start: Start,
    reloads: mpsc::UnboundedReceiver<(Settings, Vec<Enrollment>)>,
    stop: impl Future<Output = ()>,
) -> Ended {
    LocalSet::new().run_until(Service::serve(start, reloads, stop)).await
}

struct Service {
    board: Board,
    calls: mpsc::UnboundedSender<(Call, Request, Rights)>,
    /// Enrollments under way, to be given up for a key that somebody brings.
    enrolling: BTreeMap<Server, AbortHandle>,
    enrollments: Vec<Enrollment>,
    hands: Hands,
    /// Memberships that are being opened or joined: nobody else may begin with them.
    in_hand: BTreeSet<Server>,
    kept: BTreeMap<Server, mpsc::UnboundedSender<Message>>,
    /// Memberships that are being opened, which may take until it is clear whose they are.
    opening: BTreeMap<Server, AbortHandle>,
    settings: Settings,
    tasks: JoinSet<Finished>,
    /// Told when sign-offs may have come to the queue, or may be possible now.
    wake: Rc<Notify>,
}

/// A task that came to its end.
enum Finished {
    /// A conversation, or something else without a result.
    Aside,
    /// Somebody's key was redeemed, or not.
    Joined(Box<(Call, Server, Result<Joined, MembershipError>)>),
    /// A membership ended.
    Kept(Server, After),
    /// A membership can be worked on; without work it still has to be enrolled.
    Opened(Server, Option<Box<Work>>, Option<oneshot::Sender<()>>),
}

impl Service {
    async fn serve(
        start: Start,
        mut reloads: mpsc::UnboundedReceiver<(Settings, Vec<Enrollment>)>,
        stop: impl Future<Output = ()>,
    ) -> Ended {
        let Start { enrollments, hands, listener, only, settings } = start;
        let (calls, mut asked) = mpsc::unbounded_channel();
        let mut service = Self {
            board: Board::new(),
            calls,
            enrolling: BTreeMap::new(),
            enrollments,
            hands,
            in_hand: BTreeSet::new(),
            kept: BTreeMap::new(),
            opening: BTreeMap::new(),
            settings,
            tasks: JoinSet::new(),
            wake: Rc::default(),
        };
        let alone = only.as_ref().map(|work| work.membership().server.clone());
        if only.is_none()
            && let Err(error) = membership::finish_leaves(&service.hands).await
        {
            tracing::error!(error = %describe(&error), "a leave that was interrupted is not quite done");
        }
        service.begin(only);
        let mut host = Host::watch().await;
        let mut watchdog = notify::watchdog().map(interval);
        let mut report = service.board.watch();
        let mut stop = pin!(stop);
        notify::ready();
        let ended = loop {
            tokio::select! {
                () = &mut stop => break Ended::Stopped,
                Some((settings, enrollments)) = reloads.recv() => service.reload(settings, enrollments),
                call = accept(listener.as_ref()) => service.receive(call),
                Some((call, request, rights)) = asked.recv() => service.answer(call, request, rights),
                change = host.changed() => service.tell(&change),
                () = due(&mut watchdog) => notify::alive(),
                Ok(()) = report.changed() => notify::status(&report.borrow_and_update()),
                Some(finished) = service.tasks.join_next() => match finished {
                    Ok(finished) => match service.finished(finished) {
                        Some((server, ended)) if alone.as_ref() == Some(&server) => break ended,
                        Some(_) | None => {}
                    },
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => tracing::error!(%error, "a task of the agent failed"),
                },
            }
        };
        notify::stopping();
        let report = service.board.report();
        service.tasks.shutdown().await;
        // Their interfaces may stay, and nobody answers there; whoever would have said so again is gone.
        membership::end_names(&report).await;
        membership::clear_after(&report).await;
        membership::tell_ended(&service.hands, &report);
        service.hands.hooks.finish(HOOKS_PATIENCE).await;
        ended
    }

    /// Takes up what is saved, or only what was just joined, and what the configuration asks for.
    fn begin(&mut self, only: Option<Box<Work>>) {
        let mut begun = Vec::new();
        if let Some(work) = only {
            let (sender, receiver) = oneshot::channel();
            begun.push(receiver);
            self.keep(work, First::Joined, sender);
        } else {
            for server in self.saved() {
                let (sender, receiver) = oneshot::channel();
                begun.push(receiver);
                self.open(server, sender);
            }
            self.show_deleted();
            self.show_inherited();
            self.enroll_configured();
            self.sweep();
            let (hands, board, wake) = (self.hands.clone(), self.board.clone(), Rc::clone(&self.wake));
            self.aside(async move { leaving::sign_off(hands, board, wake).await });
        }
        let board = self.board.clone();
        self.tasks.spawn_local(async move {
            // One that fails at first has begun as well.
            drop(futures_util::future::join_all(begun).await);
            board.started();
            Finished::Aside
        });
    }

    fn saved(&self) -> Vec<Server> {
        self.hands.store.servers().unwrap_or_else(|error| {
            tracing::error!(error = %describe(&error.into()), "memberships cannot be listed");
            Vec::new()
        })
    }

    fn open(&mut self, server: Server, begun: oneshot::Sender<()>) {
        if !self.in_hand.insert(server.clone()) {
            return;
        }
        let (hands, board, backend) = (self.hands.clone(), self.board.clone(), self.settings.backend);
        let overrides = self.overrides(&server);
        let opened = server.clone();
        let task = self.tasks.spawn_local(async move {
            let (work, begun) = enroll::open(hands, opened.clone(), backend, overrides, board, begun).await;
            Finished::Opened(opened, work, begun)
        });
        self.opening.insert(server, task);
    }

    fn configured(&self, server: &Server) -> Option<Enrollment> {
        self.enrollments.iter().find(|enrollment| enrollment.server == *server).cloned()
    }

    /// What the configuration says about the membership with `server`.
    fn overrides(&self, server: &Server) -> Overrides {
        if let Some(configured) = self.configured(server) {
            return configured.request.overrides;
        }
        // Two interfaces cannot share a port.
        let listen_port = self.settings.overrides.listen_port.filter(|_| self.saved().len() == 1);
        Overrides { listen_port, ..self.settings.overrides.clone() }
    }

    fn keep(&mut self, work: Box<Work>, first: First, begun: oneshot::Sender<()>) {
        let server = work.membership().server.clone();
        self.board.show(work.recent_status());
        let rhythm = Rhythm { first, poll: self.settings.poll };
        let (keeper, inbox) = Keeper::new(work, rhythm, self.board.clone(), begun);
        self.kept.insert(server.clone(), inbox);
        self.tasks.spawn_local(async move { Finished::Kept(server, keeper.run().await) });
    }

    fn sweep(&mut self) {
        let store = self.hands.store.clone();
        self.aside(async move {
            if let Err(error) = membership::sweep(&store).await {
                tracing::warn!(error = %describe(&error), "what an earlier run may have left behind stays");
            }
        });
    }

    /// Memberships that the server has ended stay in sight until somebody forgets them.
    fn show_deleted(&mut self) {
        for server in self.hands.store.servers_aside().unwrap_or_default() {
            let (store, gone) = (self.hands.store.clone(), server.clone());
            self.aside(async move {
                // A crash may have come between the end of the membership and that of its interface.
                if let Err(error) = membership::clear_deleted(&store, &gone).await {
                    tracing::error!(server = %gone, error = %describe(&error), "an interface of a deleted host stays");
                }
            });
            match membership::deleted(&self.hands.store, &server) {
                Ok(status) => status.into_iter().for_each(|status| self.board.show(status)),
                Err(error) => self.board.break_down(&server, error.report(clock::unix_seconds())),
            }
        }
    }

    /// What is another machine's stays in sight until this one has a membership of its own.
    fn show_inherited(&self) {
        for server in self.hands.store.servers_inherited().unwrap_or_default() {
            match membership::inherited(&self.hands.store, &server) {
                Ok(status) => status.into_iter().for_each(|status| self.board.show(status)),
                Err(error) => self.board.break_down(&server, error.report(clock::unix_seconds())),
            }
        }
    }

    /// Begins the enrollments of the configuration that are not there yet; a key of an enrolled host is not used.
    fn enroll_configured(&mut self) {
        for enrollment in self.enrollments.clone() {
            let server = &enrollment.server;
            if self.kept.contains_key(server) || self.enrolling.contains_key(server) || self.saved().contains(server) {
                enrollment.settle(&self.hands);
                continue;
            }
            if self.hands.store.is_set_aside(server) {
                if !self.settings.reenroll {
                    tracing::warn!(%server, "the server deleted this host; `reenroll = true` would enroll it again");
                    continue;
                }
                if let Err(error) = self.hands.store.remove(server) {
                    tracing::error!(error = %describe(&error.into()), "the deleted identity cannot be forgotten");
                    continue;
                }
                self.board.forget(server);
            }
            self.enroll(enrollment);
        }
    }

    fn enroll(&mut self, enrollment: Enrollment) {
        let server = enrollment.server.clone();
        let first = plan::spread(&facts::machine_id(), &server, self.settings.spread);
        let (hands, board, backend) = (self.hands.clone(), self.board.clone(), self.settings.backend);
        let opened = server.clone();
        let task = self.tasks.spawn_local(async move {
            match enroll::persist(hands, enrollment, first, backend, board).await {
                Some(work) => Finished::Opened(opened, Some(work), None),
                None => Finished::Aside,
            }
        });
        self.enrolling.insert(server, task);
    }

    fn reload(&mut self, settings: Settings, enrollments: Vec<Enrollment>) {
        notify::reloading();
        self.settings = settings;
        self.enrollments = enrollments;
        for (server, inbox) in &self.kept {
            let (reply, _) = oneshot::channel();
            let command = Command::Adopt(Box::new(self.overrides(server)));
            // A keeper that has ended needs no settings.
            for message in
                [Message::Poll(self.settings.poll), Message::Order(Box::new(errand::Order { command, reply }))]
            {
                drop(inbox.send(message));
            }
        }
        for (server, task) in std::mem::take(&mut self.enrolling) {
            // Perhaps it is another key now.
            task.abort();
            self.board.enroll(&server, None);
        }
        self.enroll_configured();
        notify::ready();
    }

    fn tell(&mut self, change: &HostChange) {
        let own: BTreeSet<_> =
            self.board.report().memberships.iter().map(|status| status.interface.to_string()).collect();
        let moved = change.moved.iter().any(|name| !own.contains(name) && !facts::is_inner(name));
        if moved {
            self.wake.notify_one();
        }
        let touched = Rc::new(change.touched.intersection(&own).cloned().collect::<BTreeSet<_>>());
        for inbox in self.kept.values() {
            if moved {
                drop(inbox.send(Message::Moved));
            }
            if !touched.is_empty() {
                drop(inbox.send(Message::Touched(Rc::clone(&touched))));
            }
        }
    }
}

async fn accept(listener: Option<&Listener>) -> std::io::Result<Call> {
    match listener {
        Some(listener) => match listener.accept().await {
            Err(error) => {
                // What is short, as descriptors, is not there again at once.
                sleep(ACCEPT_GAP).await;
                Err(error)
            }
            call => call,
        },
        None => std::future::pending().await,
    }
}

async fn due(watchdog: &mut Option<Interval>) {
    match watchdog {
        Some(watchdog) => drop(watchdog.tick().await),
        None => std::future::pending().await,
    }
}

/// How long the end waits for hooks; the service manager does not wait much longer.
const HOOKS_PATIENCE: Duration = Duration::from_secs(5);

/// How long nobody is let in after that failed.
const ACCEPT_GAP: Duration = Duration::from_millis(200);

/// How long one attempt to go on with a key may take.
const ENROLL_TIMEOUT: Duration = Duration::from_secs(120);
