//! Many attempts: a sample for every day, or all of them by two workers.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};

use crate::{
    attempt::{Plan, Seen, Verb},
    disk::Loss,
    lab::{Case, Lab, Missing, Role, enter},
    troubles::{TROUBLES, Trouble},
};

/// Which attempts somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// One call; `None` is all of them.
    at: Option<u64>,
    /// Every how many calls there is an attempt.
    every: u64,
    /// `None` takes them in turn.
    loss: Option<Loss>,
    /// `None` is all.
    trouble: Option<String>,
    /// `None` takes them in turn.
    verb: Option<Verb>,
}

impl Wanted {
    /// `None` without `--all` or `--at`.
    pub(crate) fn from_arguments() -> Option<Self> {
        let arguments: Vec<String> = env::args().collect();
        let value = |name: &str| {
            let place = arguments.iter().position(|argument| argument == name)?;
            arguments.get(place + 1).cloned()
        };
        let at = value("--at").and_then(|text| text.parse().ok());
        let is_all = arguments.iter().any(|argument| argument == "--all");
        (is_all || at.is_some()).then(|| Self {
            at,
            every: value("--every").and_then(|text| text.parse().ok()).unwrap_or(1).max(1),
            loss: value("--loss").and_then(|text| LOSSES.into_iter().find(|loss| word(*loss) == text)),
            trouble: value("--trouble"),
            verb: value("--verb").and_then(|text| VERBS.into_iter().find(|verb| name(*verb) == text)),
        })
    }

    fn troubles(&self) -> impl Iterator<Item = &'static Trouble> {
        TROUBLES.iter().filter(|trouble| self.trouble.as_deref().is_none_or(|name| name == trouble.name))
    }
}

/// What came of many attempts.
#[derive(Default)]
struct Tally {
    runs: u64,
    as_planned: u64,
    was_counted: u64,
    failures: Vec<String>,
}

impl Tally {
    fn attempt(&mut self, lab: &Lab, plan: &Plan) -> Option<Seen> {
        self.runs += 1;
        match plan.carry_out(lab) {
            Ok(seen) => {
                self.as_planned += u64::from(seen.as_planned);
                self.was_counted += u64::from(seen.was_counted);
                Some(seen)
            }
            Err(error) => {
                self.failures.push(format!("{error:#}\n  again: {}", replay(plan)));
                None
            }
        }
    }
}

/// The sample, one trial for each trouble.
pub(crate) fn cases() -> Vec<Case> {
    macro_rules! samples {
        ($($index:literal)*) => { vec![$((TROUBLES[$index].name, sample::<$index> as fn(&mut Lab) -> Result<()>)),*] };
    }
    samples!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19)
}

fn sample<const INDEX: usize>(lab: &mut Lab) -> Result<()> {
    if fs::read_to_string(YAMA).is_ok_and(|scope| scope.trim() == "3") {
        return Err(Missing(format!("needs ptrace, which {YAMA} forbids to everybody")).into());
    }
    let trouble = &TROUBLES[INDEX];
    let seed = env::var(SEED).ok().and_then(|text| text.parse().ok()).unwrap_or_else(now);
    let mut random = seed ^ (INDEX as u64) << 32;
    let mut tally = Tally::default();
    let end = Instant::now() + SAMPLE_TIME;
    let verb = VERBS[usize::try_from(next(&mut random) % 2)?];
    let whole = Plan { at: u64::MAX, loss: Loss::None, trouble, verb };
    let calls = whole.carry_out(lab).context("killed once it has joined")?.calls;
    while Instant::now() < end && tally.runs < SAMPLE_SIZE {
        let at = next(&mut random) % calls + 1;
        let loss = LOSSES[usize::try_from(next(&mut random) % 3)?];
        tally.attempt(lab, &Plan { at, loss, trouble, verb });
    }
    ensure!(tally.as_planned > 0, "no call was hit in {} runs", tally.runs);
    ensure!(tally.failures.is_empty(), "seed {seed} ({SEED}), {} runs:\n{}", tally.runs, tally.failures.join("\n"));
    Ok(())
}

/// All attempts that are wanted, by two workers with a server and namespaces of their own.
pub(crate) fn run(wanted: &Wanted) -> ExitCode {
    let workers = if wanted.at.is_some() { 1 } else { WORKERS };
    let started = Instant::now();
    let sums: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|worker| scope.spawn(move || supervise(worker, workers))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow::anyhow!("panicked")).flatten()).collect()
    });
    let mut total = [0; 4];
    for sum in sums {
        match sum {
            Ok(sum) => total.iter_mut().zip(sum).for_each(|(total, one)| *total += one),
            Err(error) => {
                eprintln!("a worker failed: {error:#}");
                return ExitCode::FAILURE;
            }
        }
    }
    let [runs, as_planned, was_counted, failures] = total;
    println!(
        "{runs} runs in {} s: {as_planned} killed at a call, {was_counted} after the key was counted",
        started.elapsed().as_secs()
    );
    println!("{failures} failures (a use lost or spent twice, a second host, another identity, something left behind)");
    if failures == 0 && runs > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn supervise(worker: u64, workers: u64) -> Result<[u64; 4]> {
    let mut command: Command = Role::Hub(format!("worker {worker} {workers}")).command()?;
    command.args(env::args().skip(1)).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().context("standard output is piped")?;
    let mut sum = None;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        match line.strip_prefix("sum ") {
            Some(numbers) => {
                let numbers: Vec<u64> = numbers.split(' ').map(str::parse).collect::<Result<_, _>>()?;
                sum = numbers.try_into().ok();
            }
            None => println!("{line}"),
        }
    }
    child.wait()?;
    sum.context("it ended early")
}

/// Plays a worker, if that is the part of this process.
pub(crate) fn worker() -> Option<ExitCode> {
    let Role::Hub(name) = Role::current() else { return None };
    let mut words = name.strip_prefix("worker ")?.split(' ');
    let (worker, workers) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let wanted = Wanted::from_arguments()?;
    Some(match enter() {
        Ok(lab) => {
            let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
            work(&lab, &wanted, worker, workers)
        }
        Err(missing) => {
            eprintln!("{missing}");
            ExitCode::FAILURE
        }
    })
}

fn work(lab: &Lab, wanted: &Wanted, worker: u64, workers: u64) -> ExitCode {
    let mut tally = Tally::default();
    for trouble in wanted.troubles() {
        let before = (tally.runs, tally.failures.len());
        let started = Instant::now();
        for verb in VERBS.into_iter().filter(|verb| wanted.verb.is_none_or(|wanted| wanted == *verb)) {
            let loss = wanted.loss.unwrap_or(Loss::None);
            let whole = Plan { at: wanted.at.unwrap_or(u64::MAX), loss, trouble, verb };
            let calls = tally.attempt(lab, &whole).map_or(0, |seen| seen.calls);
            for at in (1..=calls).filter(|_| wanted.at.is_none()) {
                // Workers take turns, and so do losses.
                let turn = at / wanted.every;
                if at % wanted.every == 0 && turn % workers == worker {
                    let loss = wanted.loss.unwrap_or(LOSSES[usize::try_from(turn / workers % 3).unwrap_or_default()]);
                    tally.attempt(lab, &Plan { at, loss, trouble, verb });
                }
            }
        }
        for failure in &tally.failures[before.1..] {
            println!("FAILED {failure}");
        }
        let (runs, failures) = (tally.runs - before.0, tally.failures.len() - before.1);
        println!("{:22} {runs:5} runs {failures:3} failures {:5} s", trouble.name, started.elapsed().as_secs());
    }
    println!("sum {} {} {} {}", tally.runs, tally.as_planned, tally.was_counted, tally.failures.len());
    ExitCode::SUCCESS
}

fn replay(plan: &Plan) -> String {
    let Plan { at, loss, trouble, verb } = plan;
    let (loss, trouble, verb) = (word(*loss), trouble.name, name(*verb));
    format!("cargo test --test crash -- --at {at} --loss {loss} --trouble {trouble} --verb {verb}")
}

fn word(loss: Loss) -> &'static str {
    match loss {
        Loss::All => "all",
        Loss::Bytes => "bytes",
        Loss::None => "none",
    }
}

fn name(verb: Verb) -> &'static str {
    match verb {
        Verb::Join => "join",
        Verb::Run => "run",
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// The next number of a sequence that looks random (xorshift64*, G. Marsaglia and S. Vigna).
fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
}

const LOSSES: [Loss; 3] = [Loss::None, Loss::Bytes, Loss::All];

const VERBS: [Verb; 2] = [Verb::Join, Verb::Run];

/// Attempts of a trouble in the sample, if there is time for them.
const SAMPLE_SIZE: u64 = 8;

const SAMPLE_TIME: Duration = Duration::from_secs(8);

/// Names a seed for the sample.
const SEED: &str = "ENROLL_AGENT_TEST_SEED";

const WORKERS: u64 = 2;

/// Who may trace whom (Documentation/admin-guide/LSM/Yama.rst).
const YAMA: &str = "/proc/sys/kernel/yama/ptrace_scope";
