//! Man pages and completions, made from what the command line says of itself.

use std::{collections::BTreeMap, io};

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};
use enroll_agent::{cli::Cli, config};

/// Returns every file by its name, with the folder it belongs to; `date` is that of the pages, as `2026-11-26`.
///
/// # Errors
/// Only if memory cannot be written to.
pub(crate) fn files(date: &str) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut top = Cli::command()
        .disable_help_subcommand(true)
        .subcommand_help_heading("COMMANDS")
        .subcommand_value_name("command");
    top.build();
    let mut files = BTreeMap::new();
    add_page(&top, &page_names(&top), date, &mut files)?;
    for (shell, name) in [(Shell::Bash, "agent"), (Shell::Fish, "agent.fish"), (Shell::Zsh, "_agent")] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "agent", &mut script);
        files.insert(format!("completions/{name}"), script);
    }
    Ok(files)
}

/// Adds the page of `command` and those of the commands below it.
fn add_page(command: &Command, all: &[String], date: &str, files: &mut BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let name = page_name(command);
    let man = Man::new(command.clone()).date(date).source(concat!("enroll-agent ", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let below: Vec<_> = visible(command).collect();
    if !below.is_empty() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut more = Roff::new();
    if let Some(codes) = command.get_after_help() {
        exit_status(&codes.to_string(), &mut more);
        environment(command, &mut more);
        settled_files(&mut more);
    }
    see_also(&name, all, &mut more);
    more.to_writer(&mut page)?;
    for sub in below {
        add_page(sub, all, date, files)?;
    }
    files.insert(format!("man/{name}.1"), page);
    Ok(())
}

/// The table of `agent --help`, as it stands there.
fn exit_status(table: &str, roff: &mut Roff) {
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in table.lines().filter_map(|line| line.trim().split_once("  ")) {
        entry(code, meaning, roff);
    }
}

/// All variables of all commands.
fn environment(top: &Command, roff: &mut Roff) {
    let mut variables: BTreeMap<String, String> =
        config::VARIABLES.iter().map(|(name, meaning)| ((*name).to_owned(), (*meaning).to_owned())).collect();
    for command in all(top) {
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let (Some(name), Some(long)) = (argument.get_env(), argument.get_long()) else { continue };
            variables.entry(name.to_string_lossy().into_owned()).or_insert_with(|| format!("the same as --{long}"));
        }
    }
    roff.control("SH", ["ENVIRONMENT"]);
    for (name, meaning) in &variables {
        entry(name, meaning, roff);
    }
}

fn settled_files(roff: &mut Roff) {
    roff.control("SH", ["FILES"]);
    for (path, meaning) in config::FILES {
        entry(path, meaning, roff);
    }
}

fn see_also(name: &str, all: &[String], roff: &mut Roff) {
    roff.control("SH", ["SEE ALSO"]);
    let others: Vec<_> = all.iter().filter(|other| *other != name).map(|other| format!("{other}(1)")).collect();
    roff.text([roman(others.join(", "))]);
}

fn entry(term: &str, meaning: &str, roff: &mut Roff) {
    roff.control("TP", []);
    roff.text([bold(term)]);
    roff.text([roman(meaning)]);
}

/// Names of the page of `command` and of all below it.
fn page_names(command: &Command) -> Vec<String> {
    let below = visible(command).flat_map(page_names);
    [page_name(command)].into_iter().chain(below).collect()
}

fn page_name(command: &Command) -> String {
    command.get_display_name().unwrap_or(command.get_name()).to_owned()
}

/// `command` and all below it.
fn all(command: &Command) -> Vec<&Command> {
    [command].into_iter().chain(visible(command).flat_map(all)).collect()
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set())
}
