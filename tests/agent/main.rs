//! The agent end to end: the real program in network namespaces, against the bundled server over real TLS.

#[path = "../lab/mod.rs"]
mod lab;

mod actions;
mod endpoint;
mod firewall;
mod images;
mod join;
mod keys;
mod lasting;
mod leave;
mod names;
mod packages;
mod refused;
mod run;
mod scenario;
mod service;
mod status;
mod traffic;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut cases = actions::cases();
    cases.extend(endpoint::cases());
    cases.extend(firewall::cases());
    cases.extend(images::cases());
    cases.extend(join::cases());
    cases.extend(keys::cases());
    cases.extend(lasting::cases());
    cases.extend(leave::cases());
    cases.extend(names::cases());
    cases.extend(packages::cases());
    cases.extend(refused::cases());
    cases.extend(run::cases());
    cases.extend(scenario::cases());
    cases.extend(service::cases());
    cases.extend(traffic::cases());
    lab::trials(cases)
}
