//! Recipes and the README name what there is, and hand no key over where others see it.
//!
//! That they work is tried by `packaging/boot-test`, as far as a Debian machine can.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use clap::CommandFactory;
use enroll_agent::cli::Cli;
use saphyr::{LoadableYamlNode, Yaml};

#[test]
fn every_recipe_is_parsed_by_what_it_is_written_for() {
    for Recipe { path, text } in recipes() {
        let problem = syntax(&path, &text);

        assert_eq!(problem, None, "{}", path.display());
    }
}

#[test]
fn every_recipe_says_what_removes_the_key_and_who_could_see_it() {
    for Recipe { path, text } in recipes() {
        for statement in ["# Removed afterwards: ", "# Leaks: "] {
            let times = text.lines().filter(|line| line.starts_with(statement)).count();

            assert_eq!(times, 1, "{statement} in {}", path.display());
        }
    }
}

#[test]
fn no_recipe_shows_a_key_to_others() {
    for Recipe { path, text } in recipes() {
        for line in text.lines() {
            assert_eq!(shown_key(line), None, "{}", path.display());
        }
    }
}

#[test]
fn a_key_that_others_can_see_is_found() {
    for line in [
        "agent join ENROLLMENT-KEY",
        "/usr/bin/agent join $key",
        "command: [agent, join, '{{ enrollment_key }}']",
        "    cmd: agent join --name x \"{{ key }}\"",
        "Environment=ENROLL_AGENT_KEY=ENROLLMENT-KEY",
        "qemu -smbios type=11,value=io.systemd.credential:enroll-agent.key=$key",
    ] {
        assert!(shown_key(line).is_some(), "{line}");
    }
    for line in ["fetch | agent join -", "agent join --key-file /k; true", "agent join", "agent join - <key.txt"] {
        assert_eq!(shown_key(line), None, "{line}");
    }
}

#[test]
fn recipes_and_the_readme_name_commands_flags_and_variables_that_exist() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut found = 0;
    for Recipe { path, text } in recipes().into_iter().chain([Recipe { path: "README.md".into(), text: readme }]) {
        let is_markdown = path.extension().is_some_and(|extension| extension == "md");
        for line in code(&text, is_markdown) {
            let commands = commands(&line);
            found += commands.len();
            for command in commands {
                assert_eq!(unknown(&command), None, "{} in {}", command.join(" "), path.display());
            }
            for name in words(&line).filter(|word| word.starts_with("ENROLL_AGENT_")) {
                let name = name.split_once('=').map_or(name.as_str(), |(name, _)| name);
                assert!(variables().contains(name), "{name} in {}", path.display());
            }
        }
    }
    assert!(found > 10, "{found} commands");
    assert!(unknown(&["join".to_owned(), "--no-such".to_owned()]).is_some());
    assert!(unknown(&["enlist".to_owned()]).is_some());
}

#[test]
fn recipes_name_units_and_places_that_exist() {
    let shipped = names(&root().join("systemd"));
    let own: BTreeSet<_> =
        recipes().iter().filter_map(|recipe| Some(recipe.path.file_name()?.to_str()?.to_owned())).collect();
    for Recipe { path, text } in recipes() {
        for word in words(&text).map(|word| word.trim_end_matches(['.', ':', ')', '(', '`']).to_owned()) {
            let is_unit = [".service", ".path", ".target"].iter().any(|end| word.ends_with(end));
            if word.starts_with("enroll-agent") && is_unit {
                assert!(shipped.contains(&word) || own.contains(&word), "{word} in {}", path.display());
            }
            if word.starts_with("/etc/enroll-agent/") || word.starts_with("/var/lib/enroll-agent/") {
                assert!(PLACES.contains(&word.as_str()), "{word} in {}", path.display());
            }
        }
    }
}

/// What is installed in one of the agent's folders or looked for there, and what recipes make beside it.
const PLACES: [&str; 5] = [
    "/etc/enroll-agent/",
    "/etc/enroll-agent/.enroll.key",
    "/etc/enroll-agent/agent.toml",
    "/etc/enroll-agent/enroll.key",
    "/etc/enroll-agent/state",
];

struct Recipe {
    path: PathBuf,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `packaging/recipes`.
fn recipes() -> Vec<Recipe> {
    let mut folders = vec![root().join("packaging/recipes")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the repository") {
            let path = entry.expect("an entry of it").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(&path).expect("a text of the repository");
                found.push(Recipe { path, text });
            }
        }
    }
    assert!(found.len() > 15, "{} recipes", found.len());
    found
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder)
        .expect("a folder of the repository")
        .map(|entry| entry.expect("an entry of it").file_name().into_string().expect("a name in UTF-8"))
        .collect()
}

/// Returns what is wrong with a file by its kind; every kind is known.
fn syntax(path: &Path, text: &str) -> Option<String> {
    if text.starts_with("#!") && text.lines().next()?.contains("/sh") || text.starts_with("#!/sbin/openrc-run") {
        let checked = Command::new("sh").arg("-n").arg(path).stdin(Stdio::null()).output().expect("a shell");
        return (!checked.status.success()).then(|| String::from_utf8_lossy(&checked.stderr).into_owned());
    }
    match path.extension()?.to_str()? {
        "bb" => assignments(text),
        "bu" | "yaml" | "yml" => match Yaml::load_from_str(text) {
            Ok(documents) => (documents.len() != 1).then(|| format!("{} documents", documents.len())),
            Err(error) => Some(error.to_string()),
        },
        "conf" | "service" => sections(text),
        "hcl" | "tf" => hcl_edit::parser::parse_body(text).err().map(|error| error.to_string()),
        "toml" => toml::from_str::<toml::Table>(text).err().map(|error| error.to_string()),
        other => Some(format!("nobody knows how to check .{other}")),
    }
}

/// The format of systemd's files, which mkosi takes as well.
fn sections(text: &str) -> Option<String> {
    let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    if !lines.next()?.starts_with('[') {
        return Some("no section at the beginning".to_owned());
    }
    let is_known = |line: &&str| {
        let is_assignment = line.split_once('=').is_some_and(|(name, _)| name.chars().all(char::is_alphanumeric));
        is_assignment || line.starts_with(' ') || line.starts_with('[') && line.ends_with(']')
    };
    lines.find(|line| !is_known(line)).map(str::to_owned)
}

/// A recipe of `BitBake`: assignments, `inherit`, `require`, and functions whose bodies are scripts.
fn assignments(text: &str) -> Option<String> {
    let mut is_inside = false;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line {
            "}" => is_inside = false,
            _ if is_inside => {}
            _ if line.ends_with("() {") => is_inside = true,
            _ if line.starts_with("inherit ") || line.starts_with("require ") => {}
            _ if line.contains(" = \"") && line.ends_with('"') => {}
            _ => return Some(line.to_owned()),
        }
    }
    is_inside.then(|| "a function without an end".to_owned())
}

/// Words of a line in any of these languages, without the signs around them.
fn words(line: &str) -> impl Iterator<Item = String> {
    line.split(|c: char| c.is_whitespace() || "[]{},'\"`".contains(c))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect::<Vec<_>>()
        .into_iter()
}

/// What is code in a text: lines that are no comment, what is between backticks, and in Markdown what is fenced.
fn code(text: &str, is_markdown: bool) -> Vec<String> {
    let mut is_fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            is_fenced = line.starts_with("```console");
        } else if is_fenced && is_markdown {
            found.extend(line.strip_prefix("# ").or(line.strip_prefix("$ ")).map(str::to_owned));
        } else if is_markdown || line.trim_start().starts_with('#') {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        } else {
            found.push(line.to_owned());
        }
    }
    found
}

/// The commands of the agent in a line, each from its verb to its end.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    let mut current: Option<Vec<String>> = None;
    for word in words(line) {
        match &mut current {
            None if word == "agent" || word == "/usr/bin/agent" => current = Some(Vec::new()),
            None => {}
            Some(command) => {
                let ends = word.starts_with(['|', '&', ';', '#', '<', '>']);
                let (word, is_last) = word.strip_suffix(';').map_or((word.as_str(), false), |word| (word, true));
                if !ends {
                    command.push(word.to_owned());
                }
                if ends || is_last {
                    found.extend(current.take());
                }
            }
        }
    }
    found.extend(current);
    found.retain(|command| !command.is_empty());
    found
}

/// Returns what of a command the agent does not know.
fn unknown(command: &[String]) -> Option<String> {
    let cli = Cli::command();
    let verb = &command[0];
    if verb == "help" || verb.starts_with('-') {
        return None;
    }
    let Some(subcommand) = cli.find_subcommand(verb) else { return Some(verb.clone()) };
    let below = command.get(1).and_then(|word| subcommand.find_subcommand(word));
    let subcommand = below.unwrap_or(subcommand);
    let known: BTreeSet<_> = subcommand
        .get_arguments()
        .chain(cli.get_arguments().filter(|argument| argument.is_global_set()))
        .filter_map(|argument| argument.get_long())
        .collect();
    let flags = command.iter().filter_map(|word| word.strip_prefix("--"));
    let mut names = flags.map(|flag| flag.split_once('=').map_or(flag, |(name, _)| name));
    names.find(|name| !known.contains(name)).map(str::to_owned)
}

/// The environment variables that the agent reads.
fn variables() -> BTreeSet<String> {
    let cli = Cli::command();
    let all = all(&cli).into_iter().flat_map(clap::Command::get_arguments);
    let named = all.filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned()));
    // These are no flags, and a key's own variables would not be.
    named
        .chain(["ENROLL_AGENT_", "ENROLL_AGENT_…", "ENROLL_AGENT_LOG"].map(str::to_owned))
        .chain(["ENROLL_AGENT_KEY", "ENROLL_AGENT_KEY_FILE", "ENROLL_AGENT_KEY_FD"].map(str::to_owned))
        .collect()
}

/// `command` and all below it.
fn all(command: &clap::Command) -> Vec<&clap::Command> {
    [command].into_iter().chain(command.get_subcommands().flat_map(all)).collect()
}

/// Returns the word in which a line would show a key: an argument, a variable of a unit, a setting of a hypervisor.
fn shown_key(line: &str) -> Option<String> {
    for command in commands(line).into_iter().filter(|command| command[0] == "join") {
        let mut is_value = false;
        for word in &command[1..] {
            if !is_value && word != "-" && !word.starts_with("--") {
                return Some(word.clone());
            }
            is_value = word.starts_with("--");
        }
    }
    let after = |sign: &str| line.split_once(sign).map(|(_, rest)| rest.to_owned());
    let in_variable = after("ENROLL_AGENT_KEY=").or_else(|| after("ENROLL_AGENT_KEY:"));
    in_variable.or_else(|| after("enroll-agent.key=").filter(|rest| !rest.starts_with("%s")))
}
