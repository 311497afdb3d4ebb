//! `cargo xtask bench`: how fast the core is, and what the agent costs a host.
//!
//! The core's figures come from criterion's benches, and from valgrind, where it is there (`instructions.rs`). The agent's
//! come from live runs of the release build: the load test (2,000 publishes a second for ten seconds, the agent's processor
//! time and memory beside them), the comparison of what tracing costs the watched programs, what the agent adds to a worker, what it
//! holds in memory, and what each hook costs. Those print their own tables, shown once more at the end; what each round measured is kept in a
//! file. The last is then measured again in QEMU, on a kernel that has every back end: a machine that is emulated tells nothing
//! about time, but how the back ends stand to each other, and how many instructions tracing adds to each program.

mod figures;
mod instructions;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{privilege, setup, test, util, vm};

/// What the user chose.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only the core's benches whose name contains this, and no live load
    filter: Option<String>,
    /// Measure only what each hook costs
    #[arg(long, conflicts_with = "filter")]
    hooks: bool,
    /// Measure only what tracing adds to a working worker, which takes some ten minutes
    #[arg(long, conflicts_with_all = ["filter", "hooks"])]
    worker: bool,
    /// Count only the instructions that tracing adds to each program, in QEMU, which takes some ten minutes
    #[arg(long, conflicts_with_all = ["filter", "hooks", "worker"])]
    instructions: bool,
}

/// Runs the benches and ends with a table of their figures.
///
/// # Errors
/// What could not be built or run.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.hooks {
        let benches = prepared()?;
        println!("\n{}", hooks(&benches)?.trim_end());
        return ratios(&benches);
    }
    if args.worker {
        println!("\n{}", worker(&prepared()?)?.trim_end());
        return Ok(());
    }
    if args.instructions {
        return counted(&prepared()?);
    }
    let start = SystemTime::now();
    let mut command = util::cargo();
    command
        .args(["bench", "--package", "celeryscope-core", "--benches", "--"])
        .args(&args.filter);
    util::run(&mut command)?;
    let figures = figures::core_figures(&target_dir()?.join("criterion"), start);
    let instructions = instructions::table(args.filter.as_deref())?;
    let benches = args.filter.is_none().then(prepared).transpose()?;
    let live = benches.as_ref().map(live_figures).transpose()?;

    println!(
        "\n{:<48} {:>10} {:>12} {:>10}",
        "core", "time", "items/s", "MiB/s"
    );
    for figure in figures {
        println!("{}", figure.row());
    }
    if let Some(instructions) = instructions {
        println!("\n{instructions}");
    }
    if let Some(live) = live {
        println!("\n{}", live.trim_end());
        println!("\nraw figures: {}", raw_figures()?.display());
    }
    benches.as_ref().map_or(Ok(()), |benches| {
        ratios(benches)?;
        counted(benches)
    })
}

/// A live program of a kind (`test`, `bench`), and the agent that it starts.
struct Built {
    program: PathBuf,
    agent: PathBuf,
}

impl Built {
    fn of(kind: &str) -> Result<Self> {
        let target = format!("--{kind}");
        let built = util::build_executables(&[
            "test",
            "--release",
            "--package",
            "celeryscope",
            &target,
            "live",
            "--no-run",
        ])?;
        let path = |kind: &str, target: &str| {
            let found = built
                .iter()
                .find(|built| built.kind == kind && built.target == target);
            let path = found.map(|built| built.path.clone());
            path.with_context(|| format!("cargo built no {kind} `{target}`"))
        };
        Ok(Self {
            program: path(kind, "live")?,
            agent: path("bin", "celeryscope")?,
        })
    }

    fn in_a_guest(&self) -> vm::Programs {
        vm::Programs {
            agent: self.agent.clone(),
            others: vec![("BENCH", self.program.clone())],
        }
    }
}

/// Gets what the live programs need, and builds the benches.
fn prepared() -> Result<Built> {
    setup::run()?;
    setup::for_vm()?;
    privilege::obtain("the agent that is measured (it loads BPF programs)")?;
    // The last run's.
    _ = fs::remove_file(raw_figures()?);
    Built::of("bench")
}

/// The tables of the live runs.
fn live_figures(benches: &Built) -> Result<String> {
    util::say("load", "2,000 publishes a second for ten seconds");
    let load = tables(&Built::of("test")?.program, &["--test-threads=1", "load::"])?;
    util::say(
        "cost",
        "the same work without tracing, with celeryscope, with in-process tracing (some minutes)",
    );
    let cost = tables(&benches.program, &["--bench"])?;
    util::say(
        "memory",
        "with tasks in flight, and over a soak of a million (some minutes)",
    );
    let memory = tables(&benches.program, &["--bench", "memory"])?;
    let worker = worker(benches)?;
    Ok(format!("{load}\n{cost}\n{worker}\n{memory}\n{}", hooks(benches)?))
}

/// What the agent adds to a working worker.
fn worker(benches: &Built) -> Result<String> {
    util::say(
        "worker",
        "without the agent, beside it, and with in-process tracing, in turns (some ten minutes)",
    );
    tables(&benches.program, &["--bench", "worker"])
}

/// What each hook costs on this kernel.
fn hooks(benches: &Built) -> Result<String> {
    util::say("hooks", "what each costs on this kernel");
    tables(&benches.program, &["--bench", "hooks"])
}

/// Counts in the guest. A Python counts alike each time only where its sets are in the same order each time.
const COUNT: &str = "\
    export PYTHONHASHSEED=0\n\
    echo 0 > /proc/sys/kernel/randomize_va_space\n\
    \"$BENCH\" --bench counted\n";

/// Calls of each kind in the guest, where they take long.
const CALLS_IN_A_GUEST: usize = 3200;

/// What the hooks cost by each back end, in QEMU; the guest's lines are shown as they come.
fn ratios(benches: &Built) -> Result<()> {
    util::say(
        "hooks",
        "the same in QEMU for every back end: only ratios, since times in an emulated machine mean nothing",
    );
    let script = format!("\"$BENCH\" --bench hooks --ratios --calls {CALLS_IN_A_GUEST}\n");
    match vm::in_one(&benches.in_a_guest(), &script, vm::ALONE)? {
        (_, true) => Ok(()),
        (_, false) => bail!("the hooks could not be measured in a guest"),
    }
}

/// What tracing adds in instructions, by each back end and in-process; the guest's lines are shown as they come.
fn counted(benches: &Built) -> Result<()> {
    util::say(
        "counted",
        "instructions a task in QEMU, without tracing, by each back end, with in-process tracing (some ten minutes)",
    );
    match vm::in_one(&benches.in_a_guest(), COUNT, vm::Clock::Instructions)? {
        (_, true) => Ok(()),
        (_, false) => bail!("the instructions could not be counted in a guest"),
    }
}

/// What a live program prints on standard error: its tables. libtest's own lines are on standard output.
fn tables(program: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = privilege::command(program, &test::live_variables()?);
    command.args(arguments).current_dir(util::root().join("agent"));
    let out = command
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let tables = String::from_utf8_lossy(&out.stderr).into_owned();
    if !out.status.success() {
        bail!(
            "{} failed:\n{}\n{tables}",
            program.display(),
            String::from_utf8_lossy(&out.stdout)
        );
    }
    let raw = raw_figures()?;
    let mut file = fs::OpenOptions::new().create(true).append(true).open(&raw)?;
    file.write_all(tables.as_bytes())
        .with_context(|| format!("cannot write {}", raw.display()))?;
    // What the rounds said in passing is in the tables, and in that file.
    Ok(tables
        .lines()
        .filter(|line| !line.starts_with("round "))
        .map(|line| format!("{line}\n"))
        .collect())
}

/// Where all that the live programs said is kept, round for round.
fn raw_figures() -> Result<PathBuf> {
    Ok(target_dir()?.join("bench-live.txt"))
}

fn target_dir() -> Result<PathBuf> {
    let metadata = util::output(util::cargo().args(["metadata", "--format-version=1", "--no-deps"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let dir = metadata.get("target_directory").and_then(Value::as_str);
    dir.map(PathBuf::from)
        .context("cargo metadata names no target directory")
}
