//! What packages hold beside the program: man pages and completions for everything the program can do.

#[path = "../packaging/pages/manual.rs"]
mod manual;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use clap::{Command, CommandFactory};
use enroll_agent::cli::Cli;

#[test]
fn every_visible_command_has_a_page_and_no_hidden_one() {
    let files = manual::files("2026-01-02").unwrap();
    let pages: BTreeSet<_> = files.keys().filter_map(|name| name.strip_prefix("man/")).map(str::to_owned).collect();

    let expected = names(&Cli::command(), "agent");
    assert!(expected.len() > 10, "{expected:?}");
    assert_eq!(pages, expected);
}

fn names(command: &Command, name: &str) -> BTreeSet<String> {
    let visible = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    let below = visible.flat_map(|sub| names(sub, &format!("{name}-{}", sub.get_name())));
    below.chain([format!("{name}.1")]).collect()
}

#[test]
fn the_manual_has_every_exit_code_of_the_code() {
    let section = section(&page("agent"), "EXIT STATUS");
    let source = fs::read_to_string(root().join("src/cli/failure.rs")).unwrap();
    let codes: Vec<_> = source
        .lines()
        .filter_map(|line| line.strip_prefix("const ")?.split_once(": u8 = ")?.1.strip_suffix(';'))
        .collect();

    assert!(codes.len() >= 10, "{codes:?}");
    for code in codes.into_iter().chain(["0"]) {
        assert!(section.contains(&format!("\n\\fB{code}\\fR\n")), "{code} is missing in\n{section}");
    }
}

#[test]
fn the_manual_has_every_variable_that_the_code_reads() {
    let section = section(&page("agent"), "ENVIRONMENT");
    let mut known = BTreeSet::new();
    for folder in ["src/cli", "src/config"] {
        variables(&root().join(folder), &mut known).unwrap();
    }
    // Notes of the program to itself.
    known.retain(|name| !name.ends_with("ARGUMENT_FD") && !name.ends_with("VARIABLE_FD"));

    assert!(known.len() > 30, "{known:?}");
    for name in known {
        assert!(section.contains(&format!("\n\\fB{name}\\fR\n")), "{name} is missing in\n{section}");
    }
}

#[test]
fn pages_have_the_date_they_are_given_and_no_other() {
    assert!(page("agent-join").contains(".TH agent-join 1 2026-01-02"), "{}", page("agent-join"));
}

#[test]
fn every_shell_completes_every_visible_command() {
    let files = manual::files("2026-01-02").unwrap();
    let command = Cli::command();

    for name in ["completions/_agent", "completions/agent", "completions/agent.fish"] {
        let script = text(&files, name);
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            assert!(script.contains(sub.get_name()), "{name} has no {}", sub.get_name());
        }
    }
}

#[test]
fn both_packages_hold_the_same_units_and_rules() {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let metadata = &manifest["package"]["metadata"];
    let deb = metadata["deb"]["assets"].as_array().unwrap().iter().map(|asset| asset[0].as_str().unwrap());
    let rpm =
        metadata["generate-rpm"]["assets"].as_array().unwrap().iter().map(|asset| asset["source"].as_str().unwrap());
    let ours = |source: &&str| source.starts_with("systemd/");
    let (deb, rpm): (BTreeSet<_>, BTreeSet<_>) = (deb.filter(ours).collect(), rpm.filter(ours).collect());

    let there: BTreeSet<_> = fs::read_dir(root().join("systemd"))
        .unwrap()
        .map(|entry| format!("systemd/{}", entry.unwrap().file_name().into_string().unwrap()))
        .collect();

    assert_eq!(deb, rpm);
    assert_eq!(deb, there.iter().map(String::as_str).collect());
}

#[test]
fn the_packaged_configuration_says_nothing_by_itself() {
    let settings: toml::Table = fs::read_to_string(root().join("packaging/agent.toml")).unwrap().parse().unwrap();

    assert_eq!(settings, toml::Table::new());
}

fn page(name: &str) -> String {
    text(&manual::files("2026-01-02").expect("memory can be written"), &format!("man/{name}.1"))
}

fn text(files: &BTreeMap<String, Vec<u8>>, name: &str) -> String {
    String::from_utf8(files[name].clone()).expect("it is text")
}

/// One section of a page, names as they are read and not as they are escaped.
fn section(page: &str, name: &str) -> String {
    let (_, rest) = page
        .split_once(&format!(".SH \"{name}\"\n"))
        .or(page.split_once(&format!(".SH {name}\n")))
        .expect("the section is there");
    rest.split("\n.SH ").next().unwrap_or_default().replace("\\-", "-").replace("\\_", "_")
}

/// Collects names of our variables from the sources in `folder`.
fn variables(folder: &Path, known: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let text = fs::read_to_string(entry?.path())?;
        for (start, _) in text.match_indices("\"ENROLL_AGENT_") {
            let name: String = text[start + 1..].chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
            known.insert(name);
        }
    }
    Ok(())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
