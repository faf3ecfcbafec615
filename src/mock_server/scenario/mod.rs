//! Scenarios: a server, a timeline of what happens to it, and what a client must have done in the end.
//!
//! ```text
//!  TOML ─► Scenario ─► run: steps at their times, expectations looked at all the while ─► Report ─► JSON, JUnit
//! ```
//!
//! A scenario knows nothing about the client: it is told where the server is and given a token, and does what it does.

mod report;
mod run;

use serde::Deserialize;

pub use self::{
    report::{Leak, Report, Request, Verdict},
    run::{ScenarioError, Stage, run, stage},
};
use super::{NewKey, NewNetwork, Trouble};

/// A scenario file.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows.
    pub name: String,
    /// Seconds after which it has failed, whatever is still missing.
    #[serde(default = "a_minute")]
    pub deadline_seconds: u64,
    /// Seconds during which expectations must go on to hold, once all do.
    #[serde(default = "a_second")]
    pub settle_seconds: u64,
    /// Networks to create.
    #[serde(rename = "network")]
    pub networks: Vec<ScenarioNetwork>,
    /// Keys to create, beside the default keys of the networks.
    #[serde(default, rename = "key")]
    pub keys: Vec<ScenarioKey>,
    /// What happens, and when.
    #[serde(default, rename = "step")]
    pub steps: Vec<Step>,
    /// What must hold in the end.
    #[serde(rename = "expect")]
    pub expectations: Vec<Expectation>,
}

impl Scenario {
    /// Reads a scenario file's text.
    ///
    /// # Errors
    /// [`ScenarioError::Text`] with the line, if it is none.
    pub fn from_toml(text: &str) -> Result<Self, ScenarioError> {
        Ok(toml::from_str(text)?)
    }
}

/// A network of a scenario.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ScenarioNetwork {
    /// Its name.
    pub name: String,
    /// IPv4 addresses for its nodes.
    #[serde(default)]
    pub range4: Option<ipnet::Ipv4Net>,
    /// IPv6 addresses for its nodes.
    #[serde(default)]
    pub range6: Option<ipnet::Ipv6Net>,
}

/// A key of a scenario.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ScenarioKey {
    /// Its name; the token is in the file of that name.
    pub name: String,
    /// The networks it grants.
    pub networks: Vec<String>,
    /// How many hosts may use it; unlimited unless given.
    #[serde(default)]
    pub uses: Option<u32>,
}

/// Something that happens once.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// When.
    #[serde(default)]
    pub when: When,
    /// What.
    #[serde(rename = "do")]
    pub what: Do,
}

/// When a step happens.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// So many seconds after the start.
    After(u64),
    /// Once so many hosts have a record.
    Hosts(usize),
    /// Once so many nodes were made.
    Nodes(usize),
    /// Once such requests came.
    Requests(Requests),
    /// Before the client is told where the server is.
    #[default]
    Start,
}

/// What a step does.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
pub enum Do {
    /// An administrator does something.
    Admin(AdminAction),
    /// Something goes wrong.
    Trouble(Trouble),
}

/// What an administrator does.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum AdminAction {
    /// Deletes every host.
    DeleteHosts,
    /// Deletes a key by its name.
    DeleteKey(String),
    /// Disables a key by its name.
    DisableKey(String),
    /// Marks all nodes of a network for deletion.
    RemoveFrom(String),
}

/// Requests by their method and the beginning of their path.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Requests {
    /// As `POST /api/v1/host/register/`; messages to the broker are `MQTT /ACK`.
    pub like: String,
    /// At least so many.
    #[serde(default = "one")]
    pub at_least: usize,
    /// At most so many; no limit unless given.
    #[serde(default)]
    pub at_most: Option<usize>,
}

/// What must hold in the end.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// What it means, for the report.
    pub name: String,
    /// What must hold.
    pub that: That,
}

/// What can be expected.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum That {
    /// There are so many hosts.
    Hosts(usize),
    /// No secret was seen where it should not be.
    NoLeaks,
    /// There are so many nodes.
    Nodes(usize),
    /// Such requests came one after another, perhaps with others between.
    Order(Vec<String>),
    /// Such requests came.
    Requests(Requests),
    /// So many uses of a key were spent.
    UsesSpent {
        /// The key's name.
        key: String,
        /// How many.
        uses: i64,
    },
}

impl From<&ScenarioNetwork> for NewNetwork {
    fn from(network: &ScenarioNetwork) -> Self {
        let ScenarioNetwork { name, range4, range6 } = network.clone();
        Self { name, range4, range6 }
    }
}

impl From<&ScenarioKey> for NewKey {
    fn from(key: &ScenarioKey) -> Self {
        let ScenarioKey { name, networks, uses } = key.clone();
        Self { name, networks, uses, unlimited: uses.is_none(), ..Self::default() }
    }
}

fn one() -> usize {
    1
}

fn a_second() -> u64 {
    1
}

fn a_minute() -> u64 {
    60
}
