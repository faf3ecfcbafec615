//! The agent end to end: the real program in network namespaces, against the bundled server over real TLS.

#[path = "../lab/mod.rs"]
mod lab;

mod actions;
mod doctor;
mod endpoint;
mod firewall;
mod hooks;
mod hygiene;
mod images;
mod import;
mod inspect;
mod join;
mod joining;
mod keys;
mod lasting;
mod leave;
mod names;
mod packages;
mod receipts;
mod refused;
mod run;
mod scenario;
mod service;
mod status;
mod traffic;
mod trust;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut cases = actions::cases();
    cases.extend(doctor::cases());
    cases.extend(endpoint::cases());
    cases.extend(firewall::cases());
    cases.extend(hooks::cases());
    cases.extend(hygiene::cases());
    cases.extend(images::cases());
    cases.extend(import::cases());
    cases.extend(inspect::cases());
    cases.extend(join::cases());
    cases.extend(joining::cases());
    cases.extend(keys::cases());
    cases.extend(lasting::cases());
    cases.extend(leave::cases());
    cases.extend(names::cases());
    cases.extend(packages::cases());
    cases.extend(receipts::cases());
    cases.extend(refused::cases());
    cases.extend(run::cases());
    cases.extend(scenario::cases());
    cases.extend(service::cases());
    cases.extend(traffic::cases());
    cases.extend(trust::cases());
    lab::trials(cases)
}
