//! Keeps one membership right: the only loop, and the only place where a session's wishes meet the world.

use std::{
    collections::{BTreeSet, VecDeque},
    rc::Rc,
    time::{Duration, Instant},
};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep_until,
};

use super::{
    board::{Board, words},
    clock,
    errand::{After, Command, Done, Errand, Obeyed, Order, carry_out},
    gateways::Gateways,
    hand::{Broker, Hand},
    lookout::Lookout,
};
use crate::{
    control::{PeerSnapshot, Pushed},
    membership::{MembershipError, Work},
    model::{Contact, InterfaceName, NextStep, PushState, Server, Status, Switch, SyncReport},
    plan::{Action, Deadline, Event, Hint, Outcome, Session, Talk},
};

/// One membership while it is served.
pub(super) struct Keeper {
    board: Board,
    gateways: Gateways,
    hand: Hand,
    inbox: mpsc::UnboundedReceiver<Message>,
    interface: InterfaceName,
    /// When work was last given up for a move.
    interrupted: Option<Instant>,
    last_sync: Option<SyncReport>,
    lookout: Lookout,
    /// Whether the server answered last time, and since when, in seconds since 1970.
    online: (bool, u64),
    push: Broker,
    pushed: Option<Box<PeerSnapshot>>,
    /// Connections from before a move are not to be used.
    reconnect: bool,
    rhythm: Rhythm,
    /// A new key waits to be confirmed.
    rotating: bool,
    /// What there was to see when the work last came back.
    seen: Status,
    server: Server,
    /// `None` while the owner wants the interface down.
    session: Option<Session>,
    started: Option<oneshot::Sender<()>>,
    upgrade_requested: bool,
    waiting: VecDeque<Errand>,
}

/// When a session talks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rhythm {
    /// Until the first round.
    pub(super) first: First,
    /// Between pulls while nothing is pushed.
    pub(super) poll: Duration,
}

/// When a session first talks.
#[derive(Clone, Copy, Debug)]
pub(super) enum First {
    /// This long after its start.
    After(Duration),
    /// It just did: the membership was joined.
    Joined,
}

/// Something for a keeper.
#[derive(Debug)]
pub(super) enum Message {
    /// This machine is elsewhere, or slept.
    Moved,
    /// Pull this often while nothing is pushed.
    Poll(Duration),
    /// Do this.
    Order(Box<Order>),
    /// Somebody did something to these interfaces.
    Touched(Rc<BTreeSet<String>>),
}

impl Keeper {
    /// Takes `work` over; the interface is put in order first, which `started` is told.
    pub(super) fn new(
        mut work: Box<Work>,
        rhythm: Rhythm,
        board: Board,
        started: oneshot::Sender<()>,
    ) -> (Self, mpsc::UnboundedSender<Message>) {
        let (sender, inbox) = mpsc::unbounded_channel();
        work.serve_names();
        let keeper = Self {
            board,
            gateways: Gateways::default(),
            inbox,
            interface: work.membership().interface.clone(),
            interrupted: None,
            last_sync: None,
            lookout: Lookout::new(&work, rhythm.first),
            online: (false, clock::unix_seconds()),
            push: Broker { access: None, connection: None, state: PushState::Absent },
            pushed: None,
            reconnect: false,
            rhythm,
            rotating: false,
            seen: work.recent_status(),
            server: work.membership().server.clone(),
            session: None,
            started: Some(started),
            upgrade_requested: false,
            waiting: VecDeque::from([Errand::Restore]),
            hand: Hand::Idle(work),
        };
        (keeper, sender)
    }

    /// Keeps the membership until it is gone; says how it ended.
    pub(super) async fn run(mut self) -> After {
        loop {
            self.begin();
            let deadline = self.session.as_ref().and_then(Session::deadline);
            tokio::select! {
                Some(message) = self.inbox.recv() => self.take(message),
                pushed = self.push.next() => self.hear(pushed),
                found = self.lookout.next() => self.waiting.push_back(Errand::Relocate(found)),
                (work, done) = self.hand.back() => match self.finish(work, done) {
                    after @ (After::Left | After::SetAside) => return after,
                    After::GoOn | After::Switched => {}
                },
                () = until(deadline), if deadline.is_some() => self.tick(),
                () = self.gateways.due() => self.tell(Event::Hinted(Hint::SelectGateway)),
            }
        }
    }

    /// Begins what waits, if nothing else is under way.
    fn begin(&mut self) {
        if !matches!(self.hand, Hand::Idle(_)) || self.waiting.is_empty() {
            return;
        }
        if let Some(session) = &mut self.session
            && !session.lend()
        {
            return;
        }
        if let Some(errand) = self.waiting.pop_front() {
            self.start(errand);
        }
    }

    fn start(&mut self, errand: Errand) {
        match std::mem::replace(&mut self.hand, Hand::Moving) {
            Hand::Idle(mut work) => {
                if std::mem::take(&mut self.reconnect)
                    && let Err(error) = work.reconnect()
                {
                    tracing::warn!(%error, "old connections stay in use");
                }
                let (interrupter, interrupt) = oneshot::channel();
                self.hand = Hand::Busy(carry_out(work, errand, interrupt), interrupter);
            }
            busy @ (Hand::Busy(..) | Hand::Moving) => {
                self.hand = busy;
                self.waiting.push_back(errand);
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Moved => {
                self.lookout.moved();
                self.tell(Event::Moved);
            }
            Message::Poll(poll) => {
                self.rhythm.poll = poll;
                if let Some(session) = &mut self.session {
                    session.set_poll(poll);
                }
            }
            Message::Order(order) => self.accept(*order),
            Message::Touched(names) if names.contains(self.interface.as_str()) => self.tell(Event::Disturbed),
            Message::Touched(_) => {}
        }
    }

    /// A status is answered at once, as it was before the work under way; everything else waits its turn.
    fn accept(&mut self, order: Order) {
        let off = self.session.is_none() && self.started.is_none();
        match (&order.command, &self.hand) {
            (Command::Status, Hand::Busy(..)) => drop(order.reply.send(Ok(Obeyed::default()))),
            (Command::Further { .. } | Command::RotateKey | Command::Sync, _) if off => {
                drop(order.reply.send(Err(MembershipError::SwitchedOff(self.server.clone()))));
            }
            _ => self.waiting.push_back(Errand::Obey(order)),
        }
    }

    fn hear(&mut self, pushed: Pushed) {
        match pushed {
            Pushed::Connected => {
                tracing::debug!(server = %self.server, "changes are pushed");
                self.push.state = PushState::Connected;
                self.tell(Event::Connected);
            }
            Pushed::Disconnected(why) => {
                tracing::debug!(server = %self.server, why, "nothing is pushed");
                let was = std::mem::replace(&mut self.push.state, PushState::Disconnected { why });
                if was == PushState::Connected {
                    self.tell(Event::Disconnected);
                }
            }
            Pushed::Hint(hint) => {
                self.upgrade_requested |= hint == Hint::Upgrade;
                self.tell(Event::Hinted(hint));
            }
            Pushed::Names(network, entries) => {
                // Only the last ones count.
                self.waiting.retain(|errand| !matches!(errand, Errand::Names(known, _) if *known == network));
                self.waiting.push_back(Errand::Names(network, entries));
            }
            Pushed::Spoiled => self.tell(Event::PeersSpoiled),
            Pushed::Peers(snapshot) => {
                self.pushed = Some(snapshot);
                self.tell(Event::PeersPushed);
            }
        }
        self.publish();
    }

    fn tell(&mut self, event: Event) {
        let Some(session) = &mut self.session else { return };
        for action in session.handle(event, clock::now(), random_byte()) {
            self.act(action);
        }
    }

    fn tick(&mut self) {
        let action = self.session.as_mut().and_then(|session| session.tick(clock::now()));
        if let Some(action) = action {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Acknowledge => {
                if let Some(connection) = &self.push.connection {
                    connection.acknowledge();
                }
            }
            Action::Reconnect => {
                // A new one is made after the next round, which may not hang on a connection that is dead.
                self.push.close();
                self.reconnect = true;
                let now = clock::now();
                let lately = |at: Instant| now.saturating_duration_since(at) < INTERRUPT_GAP;
                // A machine that moves all the time has to get to an end with something.
                if !self.interrupted.is_some_and(lately)
                    && let Hand::Busy(_, interrupter) = &mut self.hand
                {
                    self.interrupted = Some(now);
                    let (other, _) = oneshot::channel();
                    let _ = std::mem::replace(interrupter, other).send(());
                }
            }
            Action::TakeIn => {
                let pushed = self.pushed.take();
                self.start(Errand::Act(action, pushed));
            }
            Action::Observe | Action::Rotate | Action::Round(_) | Action::SelectGateway | Action::SetAside => {
                if let Action::Round(Talk { check_in: true, .. }) = action {
                    self.lookout.checked_in();
                }
                self.start(Errand::Act(action, None));
            }
        }
    }

    /// Takes the work back, and tells the session how it went.
    fn finish(&mut self, work: Box<Work>, done: Done) -> After {
        let Done { after, answer, outcome, sync } = done;
        self.last_sync = sync.or(self.last_sync.take());
        self.interface.clone_from(&work.membership().interface);
        let switch = work.membership().switch;
        self.rotating = work.is_rotating();
        self.seen = work.recent_status();
        self.gateways.follow(work.gateways().as_ref(), matches!(outcome, Outcome::Synced { .. }));
        let next_trial = work.next_trial();
        if let Some(session) = &mut self.session {
            session.look_by(next_trial, clock::now());
            // First, so that a key that was just confirmed is not made once more.
            session.set_rotating(self.rotating, clock::now());
        }
        self.hand = Hand::Idle(work);
        if let Some(started) = self.started.take() {
            let _ = started.send(());
            self.switch(switch, self.rhythm.first, outcome);
        } else if after == After::Switched {
            self.switch(switch, First::After(Duration::ZERO), outcome);
        } else {
            self.tell(Event::Ended(outcome));
        }
        self.listen();
        if let (Hand::Idle(work), Some(_)) = (&self.hand, &self.session) {
            self.lookout.begin(work);
        }
        self.publish();
        if let Some((reply, answer)) = answer {
            // Whoever asked may have gone.
            drop(reply.send(answer));
        }
        after
    }

    /// Begins or ends a session, after the interface was put in order with this `outcome`.
    fn switch(&mut self, switch: Switch, first: First, outcome: Outcome) {
        match switch {
            Switch::Off => {
                self.push.close();
                self.session = None;
            }
            Switch::On if self.session.is_some() => self.tell(Event::Ended(outcome)),
            Switch::On => {
                let after = match first {
                    First::After(wait) => wait,
                    First::Joined => self.rhythm.poll,
                };
                let mut session = Session::new(clock::now(), after, self.rhythm.poll);
                session.set_rotating(self.rotating, clock::now());
                self.session = Some(session);
                if let First::Joined = first {
                    self.tell(Event::Ended(Outcome::Synced { checked_in: true, recomputed: true }));
                }
                self.tell(Event::Ended(outcome));
            }
        }
    }

    /// Listens to the broker that the server names, to the nodes that this host has.
    fn listen(&mut self) {
        let (Hand::Idle(work), Some(_)) = (&self.hand, &self.session) else { return };
        if let Some(connection) = &self.push.connection {
            work.follow(connection);
        }
        let access = work.push_access();
        if access == self.push.access && (self.push.connection.is_some() || access.is_none()) {
            return;
        }
        if self.push.connection.is_some() {
            self.push.close();
            self.tell(Event::Disconnected);
        }
        let (Hand::Idle(work), Some(wanted)) = (&self.hand, &access) else { return };
        match work.listen(wanted) {
            Ok(connection) => {
                self.push = Broker {
                    connection: Some(connection),
                    state: PushState::Disconnected { why: String::new() },
                    access,
                };
            }
            Err(error) => tracing::warn!(%error, "changes are pulled, since the broker cannot be used"),
        }
    }

    fn publish(&mut self) {
        let status = Status { contact: self.contact(), ..self.seen.clone() };
        self.board.show(status);
    }

    fn contact(&mut self) -> Option<Contact> {
        let session = self.session.as_ref()?;
        if session.is_online() != self.online.0 {
            self.online = (session.is_online(), clock::unix_seconds());
        }
        let next = session.deadline().map(|Deadline { at, why }| NextStep {
            at: clock::unix_seconds() + at.saturating_duration_since(clock::now()).as_secs(),
            why: words(why).to_owned(),
        });
        Some(Contact {
            last_sync: self.last_sync.clone(),
            next,
            online: self.online.0,
            push: self.push.state.clone(),
            since: self.online.1,
            upgrade_requested: self.upgrade_requested,
        })
    }
}

/// Work is given up for a move at most this often.
const INTERRUPT_GAP: Duration = Duration::from_secs(10);

async fn until(deadline: Option<Deadline>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.at.into()).await,
        None => std::future::pending().await,
    }
}

/// Jitter only: a failing generator costs nothing but the jitter.
pub(super) fn random_byte() -> u8 {
    let mut byte = [u8::MAX];
    SystemRandom::new().fill(&mut byte).map_or(u8::MAX, |()| byte[0])
}
