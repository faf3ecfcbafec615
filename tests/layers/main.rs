//! Keeps the arrows between the layers pointing inward, as the table in `src/lib.rs` draws them.
//!
//! The scan knows tokens, not types: every path in the code counts, in `use` lines and elsewhere, `use` trees and
//! `super` resolved. Code under `#[cfg(test)]` at the end of a file may do as it likes.

mod paths;

use std::{fs, io, path::Path};

use paths::paths;

#[test]
fn every_arrow_points_inward() {
    let sources = sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))).unwrap();
    assert!(sources.len() > 5, "the sources are where this test looks for them");

    let violations: Vec<_> = sources.iter().flat_map(|(path, text)| violations(path, text)).collect();

    assert!(violations.is_empty(), "\n{}\nthe table of layers is in src/lib.rs\n", violations.join("\n"));
}

#[test]
fn a_word_may_not_use_another_layer() {
    let text = "//! Doc.\nuse crate::{\n    model::Device,\n    plan::{self, Change},\n};\n";

    assert_eq!(
        violations("model/device.rs", text),
        [
            "src/model/device.rs:4: model may not use plan (`crate::plan`)",
            "src/model/device.rs:4: model may not use plan (`crate::plan::Change`)",
        ]
    );
}

#[test]
fn a_hand_may_not_use_another_hand() {
    assert_eq!(
        violations("link/kernel.rs", "fn f() { crate::store::load() }"),
        ["src/link/kernel.rs:1: link may not use store (`crate::store::load`)"]
    );
    assert_eq!(
        violations("facts.rs", "use super::link::Link;"),
        ["src/facts.rs:1: facts may not use link (`crate::link::Link`)"]
    );
    assert_eq!(violations("link/kernel.rs", "use super::{LinkError, super::plan::Change};"), [""; 0]);
}

#[test]
fn the_mock_server_uses_only_the_format() {
    assert_eq!(
        violations("mock_server/host.rs", "use crate::control::{seal::open, wire::Host, rest};"),
        ["src/mock_server/host.rs:1: mock_server may not use control (`crate::control::rest`)"]
    );
}

#[test]
fn the_face_knows_neither_wireguard_nor_the_servers_words() {
    assert_eq!(
        violations(
            "cli/join.rs",
            "use enroll_agent::{control::{Lost, wire}, membership};\nuse wireguard_control::Device;"
        ),
        [
            "src/cli/join.rs:1: cli may not use control (`crate::control::wire`)",
            "src/cli/join.rs:2: only link knows WireGuard (`wireguard_control::Device`)",
        ]
    );
}

#[test]
fn only_the_face_prints_and_only_main_exits() {
    assert_eq!(
        violations("daemon/serve.rs", "fn f() {\n    println!(\"{}\", 1);\n    std::process::exit(1);\n}"),
        [
            "src/daemon/serve.rs:2: only cli and main print (`println!`)",
            "src/daemon/serve.rs:3: only main exits (`std::process::exit`)",
        ]
    );
    assert_eq!(
        violations("cli/join.rs", "fn f() { eprintln!(); process::exit(1) }"),
        ["src/cli/join.rs:1: only main exits (`process::exit`)"]
    );
    assert_eq!(violations("main.rs", "fn f() { eprintln!(); process::exit(1) }"), [""; 0]);
}

#[test]
fn only_config_reads_the_environment_and_only_the_clocks_tell_time() {
    assert_eq!(
        violations("store.rs", "use std::{env, time::Instant};\nfn f() { env::var_os(\"A\"); Instant::now(); }"),
        [
            "src/store.rs:2: only config reads the environment (`env::var_os`)",
            "src/store.rs:2: only the clocks tell time (`Instant::now`)",
        ]
    );
    assert_eq!(violations("config.rs", "fn f() { env::var(\"A\") }"), [""; 0]);
    assert_eq!(violations("daemon/clock.rs", "fn f() { Instant::now() }"), [""; 0]);
}

#[test]
fn words_and_mind_touch_nothing() {
    assert_eq!(
        violations("plan/pace.rs", "use std::{collections::BTreeMap, fs};\nuse tracing::info;\nasync fn f() {}"),
        [
            "src/plan/pace.rs:1: plan is pure (`std::fs`)",
            "src/plan/pace.rs:2: plan is pure (`tracing::info`)",
            "src/plan/pace.rs:3: plan is pure (`async`)",
        ]
    );
}

#[test]
fn a_module_without_a_layer_is_told() {
    assert_eq!(violations("util.rs", ""), ["src/util.rs: has no layer; give it one in src/lib.rs and here"]);
}

#[test]
fn words_in_comments_texts_and_tests_are_no_arrows() {
    let text = r##"
        //! See [`crate::daemon`].
        /* crate::store /* nested */ println!() */
        const A: &str = "crate::store \" println!()";
        const B: &str = r#"crate::store " println!()"#;
        const C: char = '"';
        fn f<'a>(_: &'a str) {} // crate::store
#[cfg(test)]
mod tests {
    use crate::store;
}
"##;

    assert_eq!(violations("model/key.rs", text), [""; 0]);
}

/// What some top-level modules may use of ours besides themselves; lists are names with spaces between.
struct Layer {
    modules: &'static str,
    /// Beginnings of paths below `crate::`.
    may_use: &'static str,
    /// What they may not use of those.
    may_not: &'static str,
}

const LAYERS: &[Layer] = &[
    Layer { modules: "model", may_use: "", may_not: "" },
    Layer { modules: "plan", may_use: "model", may_not: "" },
    Layer { modules: "control dns endpoint facts firewall hooks ipc link store", may_use: "model plan", may_not: "" },
    Layer {
        modules: "daemon membership",
        may_use: "control daemon dns endpoint facts firewall hooks ipc link membership model plan store",
        may_not: "",
    },
    // The errors of the hands come up to where they are put into words; their work does not.
    Layer {
        modules: "cli config main",
        may_use: "cli config control daemon facts hooks ipc link membership model plan store",
        may_not: "control::mqtt control::rest control::seal control::wire link::Kernel link::Link link::Memory \
                  link::Userspace link::kernel link::memory link::netlink link::userspace",
    },
    Layer { modules: "bin mock_server", may_use: "control::seal control::wire mock_server", may_not: "" },
];

/// Something only some places may do.
struct Privilege {
    /// Ends of paths; a `*` matches the rest of a name.
    ends: &'static [&'static str],
    /// Beginnings of file paths.
    places: &'static [&'static str],
    rule: &'static str,
}

const PRIVILEGES: &[Privilege] = &[
    Privilege {
        ends: &["print!", "println!", "eprint!", "eprintln!", "dbg!", "io::stdout", "io::stderr"],
        places: &["bin/", "cli/", "cli.rs", "main.rs"],
        rule: "only cli and main print",
    },
    Privilege { ends: &["process::exit", "process::abort"], places: &["bin/", "main.rs"], rule: "only main exits" },
    Privilege {
        ends: &["env::var*", "env::set_var", "env::remove_var"],
        places: &["config.rs", "config/"],
        rule: "only config reads the environment",
    },
    Privilege {
        ends: &["Instant::now", "SystemTime::now", "UtcDateTime::now", "OffsetDateTime::now*"],
        // The kernel gives a handshake as a date, of which the rest of us wants the age.
        places: &["daemon/clock.rs", "link/kernel.rs", "mock_server/clock.rs"],
        rule: "only the clocks tell time",
    },
];

/// Beginnings of paths that only the hand for WireGuard may use.
const WIREGUARD: &str = "gotatun wireguard_control";

/// Beginnings of paths that would let a pure module touch the world, or wait for it.
const WORLD: &str = "async await getrandom nix rand reqwest rtnetlink std::env std::fs std::io std::process std::thread \
                     tokio tracing";

const PURE: &[&str] = &["model", "plan"];

/// Returns what `text`, the file at `path` below `src/`, does that its layer may not.
fn violations(path: &str, text: &str) -> Vec<String> {
    let module = path.split(['/', '.']).next().unwrap_or_default();
    if module == "lib" || path.ends_with("tests.rs") {
        return Vec::new();
    }
    let Some(layer) = layer_of(module) else {
        return vec![format!("src/{path}: has no layer; give it one in src/lib.rs and here")];
    };
    let mut found = Vec::new();
    for (line, used) in paths(path, text) {
        let mut say = |rule: &str| found.push(format!("src/{path}:{line}: {rule} (`{used}`)"));
        if let Some(ours) = used.strip_prefix("crate::") {
            let other = ours.split("::").next().unwrap_or_default();
            let allowed = other == module || listed(layer.may_use, ours) && !listed(layer.may_not, ours);
            if !allowed && layer_of(other).is_some() {
                say(&format!("{module} may not use {other}"));
            }
        }
        for privilege in PRIVILEGES {
            let here = privilege.places.iter().any(|place| path.starts_with(place));
            if !here && privilege.ends.iter().any(|end| ends(&used, end)) {
                say(privilege.rule);
            }
        }
        if module != "link" && listed(WIREGUARD, &used) {
            say("only link knows WireGuard");
        }
        if PURE.contains(&module) && listed(WORLD, &used) {
            say(&format!("{module} is pure"));
        }
    }
    found
}

fn layer_of(module: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|layer| layer.modules.split(' ').any(|name| name == module))
}

fn listed(starts: &str, path: &str) -> bool {
    let is_below = |rest: &str| rest.is_empty() || rest.starts_with("::");
    starts.split_whitespace().any(|start| path.strip_prefix(start).is_some_and(is_below))
}

fn ends(path: &str, end: &str) -> bool {
    let (path, end) = (path.rsplit("::"), end.rsplit("::"));
    let wanted = end.clone().count();
    path.clone().count() >= wanted
        && path.zip(end).all(|(name, wanted)| match wanted.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == wanted,
        })
}

/// Returns every Rust file below `folder`, by its path from there.
fn sources(folder: &Path) -> io::Result<Vec<(String, String)>> {
    let mut sources = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(folder).map_err(io::Error::other)?.to_string_lossy().into_owned();
                sources.push((name, fs::read_to_string(path)?));
            }
        }
    }
    sources.sort();
    Ok(sources)
}
