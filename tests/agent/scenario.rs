//! The scenarios that come with the package, played to the real agent by the real program.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    lab::{Case, Lab, Node, Process, Program, eventually},
    world::{DONE, JOINED},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("the_scenario_of_a_lost_answer_passes", lost_answer),
        ("the_scenario_of_a_removal_passes", removal),
        ("a_scenario_fails_when_the_client_does_not_come", nobody_comes),
    ]
}

fn lost_answer(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let mut stage = Stage::new("lost-answer")?;

    let _serving = stage.join(&node, "line-3")?;

    let report = stage.report()?;
    assert_eq!(report["passed"], true, "{report:#}");
    assert_eq!(report["uses_spent"], json!({"line-3": 1}));
    assert_eq!(report["leaks"], json!([]));
    let junit = fs::read_to_string(stage.out.path().join("junit.xml"))?;
    ensure!(junit.contains("tests=\"5\" failures=\"0\""), "{junit}");
    Ok(())
}

fn removal(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let mut stage = Stage::new("removed-from-network")?;

    let _serving = stage.join(&node, "both")?;

    let report = stage.report()?;
    assert_eq!(report["passed"], true, "{report:#}");
    assert_eq!(report["steps_left"], json!([]));
    Ok(())
}

fn nobody_comes(_lab: &mut Lab) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = fs::read_to_string(shipped("lost-answer"))?.replace("deadline_seconds = 120", "deadline_seconds = 1");
    let file = folder.path().join("short.toml");
    fs::write(&file, text)?;
    let mut stage = Stage::of(&file)?;

    ensure!(!stage.child.wait()?.success(), "it succeeded");

    let report: Value = serde_json::from_str(&fs::read_to_string(stage.out.path().join("report.json"))?)?;
    assert_eq!(report["passed"], false);
    assert_eq!(report["verdicts"][0]["failure"], "0 uses were spent");
    Ok(())
}

/// A scenario that runs in the hub.
struct Stage {
    child: Child,
    out: TempDir,
}

impl Stage {
    fn new(name: &str) -> Result<Self> {
        Self::of(Path::new(&shipped(name)))
    }

    fn of(file: &Path) -> Result<Self> {
        let out = tempfile::tempdir()?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_mock-server"))
            .arg("scenario")
            .arg(file)
            .args(["--listen", &format!("{}:0", Lab::V4), "--out"])
            .arg(out.path())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().context("it has an output")?).read_line(&mut line)?;
        ensure!(line.starts_with("url: https://"), "{line}");
        fs::write(out.path().join("agent.toml"), "")?;
        Ok(Self { child, out })
    }

    fn join(&self, node: &Node, key: &str) -> Result<Process> {
        let own = self.out.path().join("device");
        let program = Program::new(env!("CARGO_BIN_EXE_agent"))
            .args(["join", "--json", "--endpoint", &node.v4.to_string(), "--key-file"])
            .arg(self.out.path().join(format!("{key}.key")))
            .env("ENROLL_AGENT_CA_FILE", self.out.path().join("ca.pem"))
            .env("ENROLL_AGENT_CONFIG", self.out.path().join("agent.toml"))
            .env("ENROLL_AGENT_NAME", &node.name)
            .env("ENROLL_AGENT_RUNTIME_DIR", own.join("run"))
            .env("ENROLL_AGENT_STATE_DIR", own.join("state"));
        let process = node.spawn(program)?;
        let result = process.json(JOINED)?;
        ensure!(result.get("error").is_none(), "join failed: {result}");
        Ok(process)
    }

    /// Waits for the scenario's end.
    fn report(&mut self) -> Result<Value> {
        let file = self.out.path().join("report.json");
        eventually("the end of the scenario", DONE, || self.child.try_wait().transpose())??;
        Ok(serde_json::from_str(&fs::read_to_string(file)?)?)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn shipped(name: &str) -> String {
    format!("{}/packaging/scenarios/{name}.toml", env!("CARGO_MANIFEST_DIR"))
}
