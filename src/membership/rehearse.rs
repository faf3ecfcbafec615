//! A join that changes nothing: everything but redeeming and applying, each step as a check.
//!
//! Only who this host is has to be clear beforehand; whatever else is in the way is told beside the rest.

use std::collections::BTreeSet;

use super::{
    Greeting, Hands, JoinRequest, MembershipError, Tunnel, abilities,
    bond::Means,
    describe,
    found::{choose_interface, found},
    inspect::probe,
    join,
    resume::{absent, admitted},
    spare::Spare,
    tunnel::{self, Whereabouts},
    way,
};
use crate::{
    control::{self, Advice, Freshness, Rest, RestError, knock},
    daemon::clock,
    endpoint::Look,
    facts,
    link::{Link, LinkError, Memory},
    model::{
        Assignment, Backend, Check, Chosen, Class, Enrolled, InterfaceName, KeyFacts, KeyStanding, Membership,
        Observation, Outside, Phase, Server, Status, StunServer, Switch, Withheld,
    },
    plan::{self, Change, Trials},
};

/// What a join would do.
#[derive(Debug)]
pub struct Rehearsal {
    /// Who would carry the packets; `None` if nobody could.
    pub backend: Option<Backend>,
    /// What would change on the interface; empty while the networks are unknown.
    pub changes: Vec<Change>,
    /// What was looked at, in the order of a join.
    pub checks: Vec<Check>,
    /// Which key would be shown.
    pub chosen: Chosen,
    /// The interface that would be used.
    pub interface: InterfaceName,
    /// Whether a use of the key would be spent.
    pub spends: Spending,
    /// The server.
    pub server: Server,
    /// How the membership would look; `None` while the networks are unknown.
    pub status: Option<Status>,
}

/// Whether redeeming would cost a use of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spending {
    /// The key would be shown; where its server does not tell more, whether it is used up only a redemption tells.
    Key,
    /// This host is enrolled with it already.
    Nothing,
}

/// Goes through a join without saving, spending or changing anything.
///
/// # Errors
/// Only if it is not clear who this host would be: as of a machine that may be a copy, or with nothing to join with.
pub async fn rehearse(hands: &Hands, request: &JoinRequest) -> Result<Rehearsal, MembershipError> {
    let mut spare = Spare::of(hands, request)?;
    let (membership, greeting) = imagine(hands, &spare.request(request)).await?;
    let mut stage = Stage::new(hands, membership);
    stage.machine(request).await;
    let is_answering = stage.server().await;
    let spends = match greeting {
        Greeting::Again | Greeting::Offline => Spending::Nothing,
        Greeting::Further | Greeting::New => Spending::Key,
    };
    let mut play = Play::default();
    match spends {
        Spending::Key if is_answering => stage.key(&mut spare).await?,
        Spending::Nothing if is_answering => {
            play = stage.assignment().await.unwrap_or_else(|error| {
                let advice = "`agent status` shows more; nothing was changed";
                stage.checks.push(Check::failed("assignment", error.class(), describe(&error), advice));
                Play::default()
            });
        }
        Spending::Key | Spending::Nothing => {}
    }
    stage.udp(&play.stun).await;
    let Stage { backend, checks, membership, .. } = stage;
    let (interface, server) = (membership.interface, membership.server);
    let Play { changes, status, stun: _ } = play;
    Ok(Rehearsal { backend, changes, checks, chosen: spare.chosen(), interface, spends, server, status })
}

/// The membership as a join would open it, without its lock; nothing is made or saved.
async fn imagine(hands: &Hands, request: &JoinRequest) -> Result<(Membership, Greeting), MembershipError> {
    let server = join::server_of(hands, request)?;
    match admitted(hands, &server, request.choice, Means::Look).await? {
        Some(membership) => Ok(join::resume(membership, request)),
        None if hands.store.is_set_aside(&server) => Err(MembershipError::Deleted(server)),
        None => {
            let token = request.token.as_ref().ok_or_else(|| absent(hands, &server))?;
            let interface = choose_interface(hands, request, &server).await?;
            Ok((found(hands, token, interface, request)?, Greeting::New))
        }
    }
}

/// What is known so far.
struct Stage<'a> {
    backend: Option<Backend>,
    checks: Vec<Check>,
    hands: &'a Hands,
    have: Option<Observation>,
    /// Another agent works on the membership: what it has is ours.
    is_served: bool,
    membership: Membership,
}

/// What an enrolled host would do.
#[derive(Default)]
struct Play {
    changes: Vec<Change>,
    status: Option<Status>,
    stun: Vec<StunServer>,
}

impl<'a> Stage<'a> {
    fn new(hands: &'a Hands, membership: Membership) -> Self {
        let is_served = hands.store.is_busy(&membership.server);
        Self { backend: None, checks: Vec::new(), hands, have: None, is_served, membership }
    }

    /// What needs no server.
    async fn machine(&mut self, request: &JoinRequest) {
        let (backend, checks) = abilities::backend(request.backend, None).await;
        self.backend = backend;
        self.checks.extend(checks);
        let interface = self.interface().await;
        self.checks.push(interface);
        self.checks.push(self.port());
        let policy = &self.membership.policy;
        let port = tunnel::listen_port(&self.membership, self.have.as_ref());
        if let Ok(port) = port {
            let name = control::host(&self.membership, &facts::gather(&[super::OWN_PREFIX]), port).name;
            self.checks.push(Check::ok("name", format!("the administrator will see {name}")));
        }
        self.checks.push(abilities::firewall(policy.firewall));
        self.checks.push(abilities::resolver(policy.dns).await);
    }

    async fn interface(&mut self) -> Check {
        const ID: &str = "interface";
        let name = self.membership.interface.clone();
        let backend = self.backend.unwrap_or(Backend::Kernel);
        let looked = async {
            let mut tunnel = Tunnel::open(backend, &self.membership)?;
            Ok::<_, MembershipError>(tunnel.observe().await?.cloned())
        };
        let check = match looked.await {
            Ok(have) => {
                let detail = if have.is_some() { "is there, and ours" } else { "is free" };
                self.have = have;
                Check::ok(ID, detail)
            }
            Err(MembershipError::Link(LinkError::Taken(_))) if self.is_served => {
                Check::ok(ID, "the agent that serves has it")
            }
            Err(error) => {
                let advice = "choose another name with --interface, or remove that interface";
                Check::failed(ID, error.class(), describe(&error), advice)
            }
        };
        check.of(name)
    }

    fn port(&self) -> Check {
        const ID: &str = "port";
        if self.is_served {
            return Check::ok(ID, "the agent that serves has one");
        }
        let port = tunnel::refuse_taken_port(&self.membership, self.have.as_ref())
            .and_then(|()| tunnel::listen_port(&self.membership, self.have.as_ref()));
        match port {
            Ok(port) => Check::ok(ID, format!("UDP port {port} is free, or ours")),
            Err(error) => {
                let advice = "choose another with --port, or stop whoever has it";
                Check::failed(ID, error.class(), describe(&error), advice)
            }
        }
    }

    /// The way to the server; returns whether it answers.
    async fn server(&mut self) -> bool {
        match self.hands.rest(&self.membership) {
            Ok(rest) => {
                let seen = knock(rest.server(), rest.trust()).await;
                let is_answering = seen.answer.is_some();
                self.checks.extend(way::checks(rest.server(), seen, clock::unix_seconds()));
                is_answering
            }
            Err(error) => {
                let advice = "give the server's certificate authority with --ca-file";
                self.checks.push(Check::failed("certificate", error.class(), describe(&error), advice));
                false
            }
        }
    }

    /// Asks about one key after the other until the server knows one.
    async fn key(&mut self, spare: &mut Spare) -> Result<(), MembershipError> {
        while let Some(token) = spare.token().cloned() {
            let fingerprint = token.fingerprint();
            match probe(self.hands, &self.membership, &token).await {
                Ok(told) => {
                    self.checks.push(known(told.as_ref()).of(fingerprint));
                    self.checks.extend(told.map(|told| ranges(&told, &self.membership)));
                    return Ok(());
                }
                Err(error) => {
                    let advice = "ask your administrator for a new key";
                    let check = Check::failed("key", error.class(), describe(&error), advice).of(fingerprint);
                    match spare.pass_over(error) {
                        Ok(()) => self.checks.push(Check::warning("key", check.detail, advice).of(token.fingerprint())),
                        Err(_) => {
                            self.checks.push(check);
                            return Ok(());
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// What the server assigns to a host that is enrolled, and what would become of it here.
    async fn assignment(&mut self) -> Result<Play, MembershipError> {
        let mut rest = self.hands.rest(&self.membership)?;
        let assignment = pull(&mut rest, &self.membership).await?;
        let place = Whereabouts { confirmed: rest.confirmed(), looked_for: rest.addresses() };
        let surroundings = tunnel::surroundings(&self.membership, place).await?;
        let trials = Trials::default();
        let (changes, withheld) =
            tunnel::changes(&self.membership, &assignment, self.have.as_ref(), &surroundings, &trials)?;
        self.checks.push(overlaps(&withheld));
        let mut imagined = Memory::with(self.have.clone());
        imagined.apply(&changes).await?;
        let after = imagined.observe().await?;
        let stun = assignment.stun.clone();
        let membership = with(self.membership.clone(), assignment);
        let status = plan::summarize(&membership, after.as_ref(), self.backend, &withheld, None);
        // Somebody else carries it, and only a change of plan would show here.
        let changes = if self.is_served { Vec::new() } else { changes };
        Ok(Play { changes, status: Some(status), stun })
    }

    /// Whether UDP gets out and back.
    async fn udp(&mut self, named: &[StunServer]) {
        let policy = &self.membership.policy;
        let servers = match (policy.endpoint, &policy.stun) {
            (Some(endpoint), _) => {
                let detail = format!("not asked: peers are told {endpoint}, as configured");
                return self.checks.push(Check::ok("udp", detail));
            }
            (None, Some(choice)) => choice.servers().to_vec(),
            (None, None) => named.to_vec(),
        };
        if servers.is_empty() {
            let detail = "a port can be bound; no STUN server is known that tells whether packets come back";
            return self.checks.push(Check::ok("udp", detail));
        }
        let found = Look::begin(None, &servers, &[]).finished().await;
        self.checks.push(seen_from_outside(found));
    }
}

fn seen_from_outside(found: Outside) -> Check {
    let addresses: Vec<_> = found.all().map(|seen| format!("{} ({})", seen.address, seen.nat.word())).collect();
    if addresses.is_empty() {
        let advice = "UDP may be closed on the way out: peers that cannot be reached need a relay gateway";
        return Check::warning("udp", "no STUN server answers", advice);
    }
    Check::ok("udp", format!("seen from outside as {}", addresses.join(", ")))
}

/// The membership with what the server assigns now.
fn with(mut membership: Membership, assignment: Assignment) -> Membership {
    membership.switch = Switch::On;
    if let Phase::Enrolled(enrolled) = membership.phase {
        membership.phase = Phase::Enrolled(Box::new(Enrolled { assignment, ..*enrolled }));
    }
    membership
}

/// One proof and one plain pull, which change nothing on the server.
async fn pull(rest: &mut Rest, membership: &Membership) -> Result<Assignment, MembershipError> {
    let server = || membership.server.clone();
    let verdict = |error: RestError| match error.advice() {
        Advice::Denied => MembershipError::Proof(server()),
        Advice::Gone => MembershipError::Deleted(server()),
        Advice::Broken | Advice::RetryAfter(_) => error.into(),
    };
    rest.authenticate(&membership.identity).await.map_err(verdict)?;
    let pulled = rest.pull(Freshness::Cached).await.map_err(verdict)?;
    let assignment = control::assignment(&pulled, &membership.identity);
    assignment.map_err(|source| MembershipError::Assignment { server: server(), source })
}

fn known(told: Option<&KeyFacts>) -> Check {
    const ID: &str = "key";
    let ended = |what: &str| Check::failed(ID, Class::Refused, what, "ask your administrator for a new key");
    let Some(facts) = told else {
        return Check::ok(ID, "the server knows it; whether it is used up only joining tells");
    };
    match facts.standing(clock::unix_seconds()) {
        KeyStanding::Disabled => ended("the server knows it, and it is disabled"),
        KeyStanding::Expired => ended("the server knows it, and it has expired"),
        KeyStanding::UsedUp => ended("the server knows it, and it was used as often as it may be"),
        KeyStanding::Good => {
            let networks: Vec<_> = facts.networks.iter().map(String::as_str).collect();
            Check::ok(ID, format!("the server knows it; it grants {}", networks.join(", ")))
        }
    }
}

/// Holds the ranges of networks that a key grants against those that this machine is in.
fn ranges(told: &KeyFacts, membership: &Membership) -> Check {
    let around = facts::networks(&membership.interface);
    let meets = |range: &ipnet::IpNet| {
        let overlapping = |net: &ipnet::IpNet| net.contains(range) || range.contains(net);
        let found = around.iter().find(|neighbour| overlapping(&neighbour.net.trunc()))?;
        Some(format!("{range} meets {} on {}", found.net.trunc(), found.interface))
    };
    overlapping(&told.ranges.iter().filter_map(meets).collect::<Vec<_>>())
}

fn overlaps(withheld: &BTreeSet<Withheld>) -> Check {
    overlapping(&withheld.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn overlapping(found: &[String]) -> Check {
    if found.is_empty() {
        return Check::ok("overlaps", "nothing known of the networks is in use here");
    }
    let advice = "free that range on this machine, or set `overlap` to say what becomes of it";
    Check::warning("overlaps", found.join("; "), advice)
}
