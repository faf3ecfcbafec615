//! Runs a scenario against whatever client comes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    time::Duration,
};

use serde_json::Value;
use time::OffsetDateTime;

use super::{
    AdminAction, Do, Expectation, Leak, Report, Request, Requests, Scenario, ScenarioKey, Step, That, Verdict, When,
};
use crate::{
    control::wire::Secret,
    mock_server::{Handle, Observed, Options, Refusal, StartError, clock::system_now, start},
};

/// Why a scenario cannot be run; one that fails has a [`Report`].
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// A network, a key or a step is refused.
    #[error("scenario cannot be set up")]
    Refused(#[from] Refusal),
    /// The server does not start.
    #[error("cannot start the server")]
    Start(#[from] StartError),
    /// The file is no scenario.
    #[error("not a scenario")]
    Text(#[from] toml::de::Error),
    /// A name stands for nothing.
    #[error("there is no key named {0:?}")]
    UnknownKey(String),
}

/// A server set up for a scenario, before its clock runs.
pub struct Stage {
    /// The server.
    pub handle: Handle,
    /// Tokens by the names of their keys; those of default keys by the names of their networks.
    pub tokens: BTreeMap<String, Secret>,
}

/// Starts a server with what the scenario asks for; the caller then tells the client where it is.
///
/// # Errors
/// [`ScenarioError`] if the server does not start or refuses the scenario's networks or keys.
pub async fn stage(scenario: &Scenario, listener: TcpListener, options: Options) -> Result<Stage, ScenarioError> {
    let handle = start(listener, Options { record_requests: true, ..options }).await?;
    let mut tokens = BTreeMap::new();
    for network in &scenario.networks {
        handle.create_network(&network.into())?;
        tokens.insert(network.name.clone(), handle.default_key(&network.name)?);
    }
    for key in &scenario.keys {
        tokens.insert(key.name.clone(), handle.create_key(key.into())?.token.clone());
    }
    for Step { what, .. } in scenario.steps.iter().filter(|step| step.when == When::Start) {
        act(&handle, what).await?;
    }
    Ok(Stage { handle, tokens })
}

/// Runs until every expectation has held for the settling time, or until the deadline.
///
/// # Errors
/// [`ScenarioError`] if a step is refused; a scenario that fails is a report.
pub async fn run(scenario: &Scenario, stage: &Stage) -> Result<Report, ScenarioError> {
    let Stage { handle, tokens } = stage;
    let started = system_now();
    let mut left: BTreeSet<_> = (0..scenario.steps.len()).collect();
    left.retain(|index| scenario.steps[*index].when != When::Start);
    let mut held_since: Option<OffsetDateTime> = None;
    loop {
        let elapsed = system_now() - started;
        for index in left.clone() {
            let Step { when, what } = &scenario.steps[index];
            if is_time(handle, when, elapsed)? {
                left.remove(&index);
                act(handle, what).await?;
            }
        }
        let report = look(scenario, handle, tokens, &left, elapsed)?;
        let holds = report.passed && left.is_empty();
        held_since = if holds { held_since.or_else(|| Some(system_now())) } else { None };
        let settled = held_since.is_some_and(|since| (system_now() - since) >= seconds(scenario.settle_seconds));
        if settled || elapsed >= seconds(scenario.deadline_seconds) {
            return Ok(report);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn is_time(handle: &Handle, when: &When, elapsed: time::Duration) -> Result<bool, Refusal> {
    Ok(match when {
        When::After(after) => elapsed >= seconds(*after),
        When::Hosts(count) => handle.hosts()?.len() >= *count,
        When::Nodes(count) => handle.nodes()?.len() >= *count,
        When::Requests(requests) => count(&handle.faults().observed(), &requests.like) >= requests.at_least,
        When::Start => true,
    })
}

async fn act(handle: &Handle, what: &Do) -> Result<(), ScenarioError> {
    let key = |name: &String| -> Result<String, ScenarioError> {
        let keys = handle.keys()?;
        let key = keys.iter().find(|key| key.names.iter().flatten().any(|other| other == name));
        key.map(|key| key.id.to_string()).ok_or_else(|| ScenarioError::UnknownKey(name.clone()))
    };
    match what {
        Do::Admin(AdminAction::DeleteHosts) => {
            for host in handle.hosts()? {
                handle.delete_host(host.id)?;
            }
        }
        Do::Admin(AdminAction::DeleteKey(name)) => handle.delete_key(&key(name)?)?,
        Do::Admin(AdminAction::DisableKey(name)) => drop(handle.disable_key(&key(name)?)?),
        Do::Admin(AdminAction::RemoveFrom(network)) => {
            for node in handle.nodes()?.iter().filter(|node| node.network == *network) {
                handle.mark_node_deleted(node.id)?;
            }
        }
        Do::Trouble(trouble) => handle.make(trouble.clone()).await?,
    }
    Ok(())
}

fn look(
    scenario: &Scenario,
    handle: &Handle,
    tokens: &BTreeMap<String, Secret>,
    left: &BTreeSet<usize>,
    elapsed: time::Duration,
) -> Result<Report, Refusal> {
    let observed = handle.faults().observed();
    let mut uses_spent = BTreeMap::new();
    let keys = handle.keys()?;
    for ScenarioKey { name, uses, .. } in &scenario.keys {
        let key = keys.iter().find(|key| key.names.iter().flatten().any(|other| other == name));
        // A key that was deleted counts no more.
        if let (Some(key), Some(uses)) = (key, uses) {
            uses_spent.insert(name.clone(), i64::from(*uses) - key.uses_remaining);
        }
    }
    let leaks = leaks(&observed, tokens);
    let (hosts, nodes) = (handle.hosts()?.len(), handle.nodes()?.len());
    let seen = Seen { observed: &observed, hosts, nodes, uses_spent: &uses_spent, leaks: &leaks };
    let verdicts: Vec<_> = scenario.expectations.iter().map(|expected| seen.judge(expected)).collect();
    Ok(Report {
        scenario: scenario.name.clone(),
        passed: left.is_empty() && verdicts.iter().all(|verdict| verdict.failure.is_none()),
        seconds: elapsed.as_seconds_f64(),
        verdicts,
        requests: observed.iter().map(shown).collect(),
        steps_left: left.iter().map(|index| index + 1).collect(),
        uses_spent,
        leaks,
    })
}

/// What there is to judge by.
struct Seen<'a> {
    observed: &'a [Observed],
    hosts: usize,
    nodes: usize,
    uses_spent: &'a BTreeMap<String, i64>,
    leaks: &'a [Leak],
}

impl Seen<'_> {
    fn judge(&self, expected: &Expectation) -> Verdict {
        let unless = |holds: bool, failure: String| (!holds).then_some(failure);
        let failure = match &expected.that {
            That::Hosts(hosts) => unless(self.hosts == *hosts, format!("there are {} hosts", self.hosts)),
            That::NoLeaks => unless(self.leaks.is_empty(), format!("{} secrets leaked", self.leaks.len())),
            That::Nodes(nodes) => unless(self.nodes == *nodes, format!("there are {} nodes", self.nodes)),
            That::Order(order) => {
                let mut rest = self.observed.iter();
                let missing = order.iter().find(|like| !rest.any(|request| is_like(request, like)));
                missing.map(|like| format!("{like:?} did not come in its turn"))
            }
            That::Requests(Requests { like, at_least, at_most }) => {
                let count = count(self.observed, like);
                let few_enough = at_most.is_none_or(|most| count <= most);
                unless(count >= *at_least && few_enough, format!("{count} such requests came"))
            }
            That::UsesSpent { key, uses } => match self.uses_spent.get(key) {
                Some(spent) => unless(spent == uses, format!("{spent} uses were spent")),
                None => Some(format!("uses of {key:?} are not counted")),
            },
        };
        Verdict { name: expected.name.clone(), failure }
    }
}

fn is_like(request: &Observed, like: &str) -> bool {
    format!("{} {}", request.method, request.path).starts_with(like)
}

fn count(observed: &[Observed], like: &str) -> usize {
    observed.iter().filter(|request| is_like(request, like)).count()
}

fn shown(request: &Observed) -> Request {
    let Observed { method, path, body } = request;
    Request { method: method.clone(), path: path.clone(), bytes: body.len() }
}

/// Looks for what no request may have: private keys anywhere, tokens and passwords where they are not asked for.
fn leaks(observed: &[Observed], tokens: &BTreeMap<String, Secret>) -> Vec<Leak> {
    let mut leaks = BTreeSet::new();
    let mut passwords = BTreeSet::new();
    for request in observed {
        let place = format!("{} {}", request.method, request.path);
        let leak = |what: &str| Leak { what: what.to_owned(), request: place.clone() };
        let text = String::from_utf8_lossy(&request.body);
        let in_request = |secret: &str| text.contains(secret) || request.path.contains(secret);
        if tokens.values().any(|token| in_request(token.expose())) {
            leaks.insert(leak("token"));
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        if has_private(&body) {
            leaks.insert(leak("private key"));
        }
        let asks_for_password = place.starts_with(REGISTER) || place.starts_with(AUTHENTICATE);
        if asks_for_password {
            passwords.extend(body["hostpass"].as_str().filter(|text| !text.is_empty()).map(str::to_owned));
        } else if passwords.iter().any(|password| in_request(password)) {
            leaks.insert(leak("host password"));
        }
    }
    leaks.into_iter().collect()
}

/// Tells whether a document has a field for a private key with something in it.
fn has_private(document: &Value) -> bool {
    match document {
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            let is_empty = match value {
                Value::Null => true,
                Value::String(text) => text.is_empty(),
                Value::Array(items) => items.iter().all(|item| *item == 0),
                Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
            };
            name.to_lowercase().contains("private") && !is_empty || has_private(value)
        }),
        Value::Array(items) => items.iter().any(has_private),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn seconds(count: u64) -> time::Duration {
    time::Duration::seconds(i64::try_from(count).unwrap_or(i64::MAX))
}

const REGISTER: &str = "POST /api/v1/host/register/";

const AUTHENTICATE: &str = "POST /api/hosts/adm/authenticate";

/// Between two looks.
const POLL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_found_where_they_should_not_be() {
        let request = |path: &str, body: Value| Observed {
            method: "POST".into(),
            path: path.into(),
            body: body.to_string().into_bytes(),
        };
        let tokens = BTreeMap::from([("line-3".to_owned(), Secret::from("the token"))]);
        let register = "/api/v1/host/register/…";
        let fine = [
            request(register, json!({"hostpass": "the password", "privatekey": [0, 0], "traffickeyprivate": null})),
            request("/api/hosts/adm/authenticate", json!({"password": "the password"})),
        ];
        assert_eq!(leaks(&fine, &tokens), []);

        let found = leaks(
            &[
                request(register, json!({"hostpass": "the password", "host": {"PrivateKey": [1, 2]}})),
                request("/a?key=the token", Value::Null),
                request("/b", json!({"note": "the password"})),
            ],
            &tokens,
        );

        let what: Vec<_> = found.iter().map(|leak| leak.what.as_str()).collect();
        assert_eq!(what, ["host password", "private key", "token"]);
    }

    #[test]
    fn a_scenario_with_an_unknown_word_is_refused() {
        let text = "name = \"a\"\ntypo = 1\nnetwork = []\nexpect = []\n";

        let error = Scenario::from_toml(text).expect_err("there is no such word");

        assert!(matches!(&error, ScenarioError::Text(why) if why.to_string().contains("typo")), "{error:?}");
    }
}
