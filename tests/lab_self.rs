//! The lab holds what it promises to the tests that are built on it.

mod lab;

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::process::parent_id,
    path::PathBuf,
    process::{ExitCode, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lab::{Cable, Exit, Forwarding, Lab, Pings, Program, Role, enter, eventually, trials};
use nix::sys::signal::Signal;

fn main() -> ExitCode {
    match env::args().nth(1).as_deref() {
        Some("echo") => return echo(),
        Some("read") => return read(),
        Some("wait") => wait(),
        Some(_) | None => {}
    }
    if Role::current() == Role::Hub("victim".to_owned()) {
        return victim();
    }
    trials(vec![
        ("nodes_reach_each_other_through_the_hub", nodes_reach_each_other_through_the_hub),
        ("nodes_reach_the_hub_by_its_own_address", nodes_reach_the_hub_by_its_own_address),
        ("without_forwarding_nothing_passes", without_forwarding_nothing_passes),
        ("an_unplugged_node_is_unreachable_until_it_is_plugged_in", an_unplugged_node_is_unreachable),
        ("files_are_shared_with_the_nodes_and_not_with_the_machine", files_are_shared_with_the_nodes),
        ("a_refused_ping_says_why", a_refused_ping_says_why),
        ("a_node_sees_only_its_own_interfaces", a_node_sees_only_its_own_interfaces),
        ("a_program_gets_its_arguments_environment_and_input", a_program_gets_what_it_was_given),
        ("a_program_that_cannot_be_run_says_why", a_program_that_cannot_be_run_says_why),
        ("waiting_in_vain_tells_what_was_said", waiting_in_vain_tells_what_was_said),
        ("a_signal_ends_a_program", a_signal_ends_a_program),
        ("a_dropped_node_takes_its_programs_along", a_dropped_node_takes_its_programs_along),
        ("a_killed_hub_leaves_nothing", a_killed_hub_leaves_nothing),
    ])
}

fn nodes_reach_each_other_through_the_hub(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);

    let v4 = one.ping(two.v4, 3, SOON)?;
    let v6 = two.ping(one.v6, 3, SOON)?;

    assert_eq!((v4.replies.len(), v6.replies.len()), (3, 3), "{v4:?} {v6:?}");
    assert_eq!((v4.lost, v6.lost), (0, 0), "{v4:?} {v6:?}");
    Ok(())
}

fn nodes_reach_the_hub_by_its_own_address(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;

    assert_eq!(node.ping(Lab::V4, 1, SOON)?.replies.len(), 1);
    assert_eq!(node.ping(Lab::V6, 1, SOON)?.replies.len(), 1);
    Ok(())
}

fn without_forwarding_nothing_passes(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);

    lab.forward(Forwarding::Off)?;

    assert_eq!(one.ping(two.v4, 1, MOMENT)?.replies, []);
    assert_eq!(one.ping(two.v6, 1, MOMENT)?.replies, []);
    lab.forward(Forwarding::On)?;
    assert_eq!(one.ping(two.v4, 1, SOON)?.replies.len(), 1);
    assert_eq!(one.ping(two.v6, 1, SOON)?.replies.len(), 1);
    Ok(())
}

fn an_unplugged_node_is_unreachable(lab: &mut Lab) -> Result<()> {
    let (one, two) = (lab.node("one")?, lab.node("two")?);

    lab.plug(&two, Cable::Out)?;

    assert_eq!(one.ping(two.v4, 1, MOMENT)?.replies, []);
    lab.plug(&two, Cable::In)?;
    assert_eq!(one.ping(two.v4, 1, SOON)?.replies.len(), 1);
    Ok(())
}

fn files_are_shared_with_the_nodes(lab: &mut Lab) -> Result<()> {
    let folder = lab.folder("one")?;
    fs::write(folder.join("text"), "shared")?;
    let node = lab.node("one")?;

    let output = node.run(ourselves("read")?.arg(folder.join("text")), SOON)?;

    assert_eq!(output.stdout, ["shared"]);
    let seen_by_the_machine = fs::read_dir(format!("/proc/{}/root{}", parent_id(), folder.display()));
    assert!(seen_by_the_machine.is_err(), "{seen_by_the_machine:?}");
    Ok(())
}

fn a_refused_ping_says_why(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;

    let Pings { sent, lost, replies, refused } = node.ping([255, 255, 255, 255], 1, MOMENT)?;

    assert!(sent > 0);
    assert_eq!(lost, sent);
    assert_eq!(replies, []);
    assert_eq!(refused.as_deref(), Some("Permission denied (os error 13)"));
    Ok(())
}

fn a_node_sees_only_its_own_interfaces(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;

    let interfaces = node.interfaces()?;

    let names: Vec<_> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
    assert_eq!(names, ["eth0", "lo"]);
    let eth0 = &interfaces[0];
    assert!(eth0.up);
    assert!(eth0.addresses.contains(&format!("{}/30", node.v4).parse()?), "{eth0:?}");
    assert!(eth0.addresses.contains(&format!("{}/126", node.v6).parse()?), "{eth0:?}");
    let names: Vec<_> = lab.interfaces()?.into_iter().map(|interface| interface.name).collect();
    assert_eq!(names, ["lo", "node1"]);
    Ok(())
}

fn a_program_gets_what_it_was_given(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let program = ourselves("echo")?.arg("a b").env("LAB_SELF", "c").stdin("d\ne");

    let output = node.run(program, SOON)?;

    assert_eq!(output.stdout, [r#"["a b"]"#, "c", "no role", "d", "e"]);
    assert_eq!(output.stderr, ["done"]);
    assert_eq!(output.exit, Some(Exit::Code(3)));
    Ok(())
}

fn a_program_that_cannot_be_run_says_why(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;

    let output = node.run(Program::new("/no/such/program"), SOON)?;

    assert_eq!(output.stderr, ["lab: cannot run /no/such/program: No such file or directory (os error 2)"]);
    assert_eq!(output.exit, Some(Exit::Code(127)));
    Ok(())
}

fn waiting_in_vain_tells_what_was_said(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let process = node.spawn(ourselves("echo")?)?;

    let error = process.line(SOON, |line| line == "never said").expect_err("it never says this");

    let message = format!("{error:#}");
    assert!(message.contains("ended without a line of output: Code(3)"), "{message}");
    assert!(message.contains("no role"), "{message}");
    Ok(())
}

fn a_signal_ends_a_program(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let process = node.spawn(ourselves("wait")?)?;
    process.line(SOON, |line| line == "waiting")?;

    process.signal(Signal::SIGTERM)?;

    assert_eq!(process.wait(SOON)?.exit, Some(Exit::Signal(15)));
    Ok(())
}

fn a_dropped_node_takes_its_programs_along(lab: &mut Lab) -> Result<()> {
    let node = lab.node("one")?;
    let process = node.spawn(ourselves("wait")?)?;
    process.line(SOON, |line| line == "waiting")?;
    let namespace = namespace(node.pid())?;

    drop((process, node));

    let names = || lab.interfaces().ok().filter(|interfaces| interfaces.len() == 1);
    eventually("the cable's end", SOON, names)?;
    eventually("the namespace's end", SOON, || nobody_in(&[&namespace]))
}

fn a_killed_hub_leaves_nothing(lab: &mut Lab) -> Result<()> {
    let mut hub = Role::Hub("victim".to_owned()).command()?.stdout(Stdio::piped()).spawn()?;
    let mut ready = String::new();
    BufReader::new(hub.stdout.take().context("standard output is piped")?).read_line(&mut ready)?;
    let pids: Vec<u32> = serde_json::from_str(&ready).context("the hub tells its processes")?;
    ensure!(pids.len() == 4);
    let namespaces = pids.iter().map(|pid| namespace(*pid)).collect::<Result<Vec<_>>>()?;

    hub.kill()?;
    hub.wait()?;

    let namespaces: Vec<_> = namespaces.iter().collect();
    eventually("the namespaces' end", SOON, || nobody_in(&namespaces))?;
    let names: Vec<_> = lab.interfaces()?.into_iter().map(|interface| interface.name).collect();
    assert_eq!(names, ["lo"]);
    Ok(())
}

/// A hub with a node and two programs, which tells the four processes and waits for its death.
fn victim() -> ExitCode {
    let started = enter().map_err(Into::into).and_then(|mut lab| {
        let node = lab.node("victim")?;
        let programs = [node.spawn(ourselves("wait")?)?, node.spawn(ourselves("wait")?)?];
        for program in &programs {
            program.line(SOON, |line| line == "waiting")?;
        }
        let pids = [std::process::id(), node.pid(), programs[0].pid(), programs[1].pid()];
        println!("{}", serde_json::to_string(&pids)?);
        anyhow::Ok((lab, node, programs))
    });
    match started {
        Ok(_alive) => loop {
            thread::park();
        },
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

fn echo() -> ExitCode {
    println!("{:?}", env::args().skip(2).collect::<Vec<_>>());
    println!("{}", env::vars().find(|(name, _)| name == "LAB_SELF").map(|(_, value)| value).unwrap_or_default());
    println!("{}", if Role::current() == Role::Runner { "no role" } else { "a role" });
    let mut input = String::new();
    if io::stdin().read_to_string(&mut input).is_err() {
        return ExitCode::FAILURE;
    }
    println!("{input}");
    eprintln!("done");
    ExitCode::from(3)
}

fn read() -> ExitCode {
    match env::args_os().nth(2).map(fs::read_to_string) {
        Some(Ok(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Some(Err(_)) | None => ExitCode::FAILURE,
    }
}

fn wait() -> ! {
    println!("waiting");
    io::stdout().flush().expect("the lab reads this");
    loop {
        thread::park();
    }
}

fn ourselves(part: &str) -> Result<Program> {
    Ok(Program::new(env::current_exe()?).arg(part))
}

fn namespace(pid: u32) -> Result<PathBuf> {
    Ok(fs::read_link(format!("/proc/{pid}/ns/net"))?)
}

fn nobody_in(namespaces: &[&PathBuf]) -> Option<()> {
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    // A process that ends meanwhile has no namespace any more, and so says nothing.
    let mut theirs = processes.filter_map(|process| fs::read_link(process.path().join("ns/net")).ok());
    (!theirs.any(|namespace| namespaces.contains(&&namespace))).then_some(())
}

/// Long enough for a busy machine; nothing that works takes a tenth of it.
const SOON: Duration = Duration::from_secs(20);

/// How long silence has to last to be believed.
const MOMENT: Duration = Duration::from_millis(600);
