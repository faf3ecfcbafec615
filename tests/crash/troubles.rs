//! What goes wrong with a join beside its end.

use std::time::Duration;

use enroll_agent::mock_server::{Fault, Handle, Mistake, Options};

/// One kind of trouble.
pub(crate) struct Trouble {
    /// As in reports and on the command line.
    pub(crate) name: &'static str,
    /// Beginning of the paths of requests that go wrong.
    path: &'static str,
    /// What goes wrong, and how often; nothing for none.
    fault: Option<(usize, fn() -> Fault)>,
    /// Whether the server counts as the real one does, and announces no networks.
    pub(crate) server: Manners,
    /// Whether the trouble is over before the restart. What makes an agent doubt for half a minute has to be.
    pub(crate) ends: Ends,
}

/// How a server counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manners {
    /// A retry of the same host is free, and the networks are announced.
    Exact,
    /// Every registration that it hears spends a use.
    Real,
}

/// Until when there is trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// It goes on, for as many requests as it was planned for.
    Late,
    /// It is over when the agent starts again.
    WithTheProcess,
}

impl Trouble {
    /// How to start the server.
    pub(crate) fn options(&self) -> Options {
        Options { announce_networks: self.server == Manners::Exact, ..Options::default() }
    }

    /// Has the server make it.
    pub(crate) fn begin(&self, server: &Handle) {
        if let Some((times, fault)) = self.fault {
            server.faults().inject(times, self.path, fault());
        }
        self.keep_manners(server);
    }

    /// Ends what is over when the agent starts again.
    pub(crate) fn end(&self, server: &Handle) {
        if self.ends == Ends::WithTheProcess {
            server.faults().clear();
            self.keep_manners(server);
        }
    }

    fn keep_manners(&self, server: &Handle) {
        if self.server == Manners::Real {
            server.faults().set_mistakes([Mistake::OverUse, Mistake::SpendAgain]);
        }
    }
}

/// All of it.
pub(crate) const TROUBLES: [Trouble; 20] = [
    Trouble { name: "none", path: "", fault: None, server: Manners::Exact, ends: Ends::Late },
    after("answer-lost", || Fault::DropAfterCommit),
    after("answer-malformed", || Fault::Malformed),
    after("answer-as-web-page", || Fault::ContentType("text/html".to_owned())),
    after("answer-cut-short", || Fault::Truncate(40)),
    after("answer-reset", || Fault::Reset(40)),
    after("answer-slow", || Fault::SlowBody(Duration::from_millis(2))),
    after("request-delayed", || Fault::Delay(Duration::from_millis(150))),
    after("request-duplicated", || Fault::Twice),
    before("request-lost", || Fault::DropBeforeCommit),
    before("empty-200", || Fault::EmptyOk),
    before("bad-gateway", bad_gateway),
    before("busy", || Fault::Busy { status: 503, retry_after: 1 }),
    at("proof-refused-once", "/api/hosts/adm/authenticate", bad_gateway),
    at("proof-lost", "/api/hosts/adm/authenticate", || Fault::DropAfterCommit),
    at("pull-lost", "/api/v1/host?", || Fault::DropAfterCommit),
    at("pull-as-web-page", "/api/v1/host?", bad_gateway),
    real("real-none", None),
    real("real-answer-lost", Some((1, || Fault::DropAfterCommit))),
    real("real-answer-malformed", Some((1, || Fault::Malformed))),
];

/// Trouble with the answer to a registration that counts.
const fn after(name: &'static str, fault: fn() -> Fault) -> Trouble {
    Trouble { name, path: REGISTER, fault: Some((1, fault)), server: Manners::Exact, ends: Ends::Late }
}

/// Trouble with a registration that does not count.
const fn before(name: &'static str, fault: fn() -> Fault) -> Trouble {
    Trouble { name, path: REGISTER, fault: Some((1, fault)), server: Manners::Exact, ends: Ends::WithTheProcess }
}

/// Trouble with another request.
const fn at(name: &'static str, path: &'static str, fault: fn() -> Fault) -> Trouble {
    Trouble { name, path, fault: Some((1, fault)), server: Manners::Exact, ends: Ends::Late }
}

/// Trouble with a server that counts whatever it hears.
const fn real(name: &'static str, fault: Option<(usize, fn() -> Fault)>) -> Trouble {
    Trouble { name, path: REGISTER, fault, server: Manners::Real, ends: Ends::Late }
}

fn bad_gateway() -> Fault {
    Fault::Status { status: 502, body: "<html>".to_owned(), content_type: "text/html".to_owned() }
}

/// A key is redeemed there.
pub(crate) const REGISTER: &str = "/api/v1/host/register/";
