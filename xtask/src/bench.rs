//! `cargo xtask bench`: how fast the core is, and what the agent costs a host.
//!
//! The core's figures come from criterion's benches. The agent's come from live runs of the release build: the load test
//! (2,000 publishes a second for ten seconds, the agent's processor time and memory beside them), the comparison of what
//! tracing costs the watched programs, what the agent holds in memory, and what each hook costs. Those print their own tables, shown
//! once more at the end; what each round measured is kept in a file.
//! The last is then measured again in QEMU, on a kernel that has every back end: a machine that is emulated tells nothing
//! about time, but how the back ends stand to each other.

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
    let start = SystemTime::now();
    let mut command = util::cargo();
    command
        .args(["bench", "--package", "celeryscope-core", "--benches", "--"])
        .args(&args.filter);
    util::run(&mut command)?;
    let figures = core_figures(&target_dir()?.join("criterion"), start);
    let benches = args.filter.is_none().then(prepared).transpose()?;
    if benches.is_some() {
        // The last run's.
        _ = fs::remove_file(raw_figures()?);
    }
    let live = benches.as_ref().map(live_figures).transpose()?;

    println!("\n{:<48} {:>10} {:>12} {:>10}", "core", "time", "items/s", "MB/s");
    for figure in figures {
        println!("{}", figure.row());
    }
    if let Some(live) = live {
        println!("\n{}", live.trim_end());
        println!("\nraw figures: {}", raw_figures()?.display());
    }
    benches.as_ref().map_or(Ok(()), ratios)
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
}

/// Gets what the live programs need, and builds the benches.
fn prepared() -> Result<Built> {
    setup::run()?;
    setup::for_vm()?;
    privilege::obtain("the agent that is measured (it loads BPF programs)")?;
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
    Ok(format!("{load}\n{cost}\n{memory}\n{}", hooks(benches)?))
}

/// What each hook costs on this kernel.
fn hooks(benches: &Built) -> Result<String> {
    util::say("hooks", "what each costs on this kernel");
    tables(&benches.program, &["--bench", "hooks"])
}

/// Calls of each kind in the guest, where they take long.
const CALLS_IN_A_GUEST: usize = 3200;

/// What the hooks cost by each back end, in QEMU; the guest's lines are shown as they come.
fn ratios(benches: &Built) -> Result<()> {
    util::say(
        "hooks",
        "the same in QEMU for every back end: only ratios, since times in an emulated machine mean nothing",
    );
    let in_guest = vm::Programs {
        agent: benches.agent.clone(),
        others: vec![("BENCH", benches.program.clone())],
    };
    let script = format!("\"$BENCH\" --bench hooks --ratios --calls {CALLS_IN_A_GUEST}\n");
    match vm::in_one(&in_guest, &script)? {
        (_, true) => Ok(()),
        (_, false) => bail!("the hooks could not be measured in a guest"),
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

/// One bench's result.
#[derive(Debug, PartialEq)]
struct Figure {
    name: String,
    /// Of one iteration.
    nanoseconds: f64,
    elements: Option<f64>,
    bytes: Option<f64>,
}

impl Figure {
    /// From criterion's `benchmark.json` and `estimates.json`.
    fn parse(benchmark: &Value, estimates: &Value) -> Option<Self> {
        let amount = |paths: [&str; 2]| {
            let found = paths
                .iter()
                .find_map(|path| benchmark.get("throughput")?.pointer(path));
            found.and_then(Value::as_f64)
        };
        Some(Self {
            name: benchmark.get("full_id")?.as_str()?.to_owned(),
            nanoseconds: estimates.pointer("/median/point_estimate")?.as_f64()?,
            elements: amount(["/Elements", "/ElementsAndBytes/elements"]),
            bytes: amount(["/Bytes", "/ElementsAndBytes/bytes"]),
        })
    }

    fn row(&self) -> String {
        let a_second = |amount: Option<f64>, unit: f64| {
            amount.map_or_else(String::new, |amount| {
                format!("{:.0}", amount / self.nanoseconds * 1e9 / unit)
            })
        };
        let (elements, megabytes) = (a_second(self.elements, 1.0), a_second(self.bytes, 1e6));
        format!(
            "{:<48} {:>10} {elements:>12} {megabytes:>10}",
            self.name,
            shown_time(self.nanoseconds)
        )
    }
}

fn shown_time(nanoseconds: f64) -> String {
    let (value, unit) = match nanoseconds {
        n if n < 1e3 => (n, "ns"),
        n if n < 1e6 => (n / 1e3, "µs"),
        n => (n / 1e6, "ms"),
    };
    format!("{value:.1} {unit}")
}

/// The results below criterion's directory that are not older than `start`, by name.
fn core_figures(dir: &Path, start: SystemTime) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        dirs.extend(
            fs::read_dir(&dir)
                .into_iter()
                .flatten()
                .flatten()
                .map(|e| e.path())
                .filter(|p| p.is_dir()),
        );
        let fresh = |file: &PathBuf| {
            file.metadata()
                .and_then(|m| m.modified())
                .is_ok_and(|time| time >= start)
        };
        let read = |name: &str| {
            let file = Some(dir.join(name)).filter(fresh)?;
            serde_json::from_slice::<Value>(&fs::read(file).ok()?).ok()
        };
        if dir.ends_with("new")
            && let (Some(benchmark), Some(estimates)) = (read("benchmark.json"), read("estimates.json"))
        {
            figures.extend(Figure::parse(&benchmark, &estimates));
        }
    }
    figures.sort_by(|a, b| a.name.cmp(&b.name));
    figures
}

fn target_dir() -> Result<PathBuf> {
    let metadata = util::output(util::cargo().args(["metadata", "--format-version=1", "--no-deps"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let dir = metadata.get("target_directory").and_then(Value::as_str);
    dir.map(PathBuf::from)
        .context("cargo metadata names no target directory")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Scenario: criterion's two files of a bench that counts bytes, and of one that counts elements and bytes.
    /// Guarantees: name, median, elements and megabytes a second are what criterion measured.
    #[test]
    fn figures_come_from_criterions_files() {
        let estimates = json!({"median": {"point_estimate": 4000.0}, "mean": {"point_estimate": 9.0}});
        let row = |throughput: Value| {
            let benchmark = json!({"full_id": "resp/lpush", "throughput": throughput});
            let row = Figure::parse(&benchmark, &estimates).expect("a figure").row();
            row.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(row(json!({"Bytes": 2000})), "resp/lpush 4.0 µs 500");
        let both = json!({"ElementsAndBytes": {"elements": 4, "bytes": 2000}});
        assert_eq!(row(both), "resp/lpush 4.0 µs 1000000 500");
    }

    /// Scenario: a result of this run, and the base line that criterion keeps beside it.
    /// Guarantees: only the new one is taken, and none when it is older than this run.
    #[test]
    fn old_results_are_left_out() {
        let dir = tempfile::tempdir().expect("a directory");
        for kind in ["new", "base"] {
            let result = dir.path().join("resp").join(kind);
            fs::create_dir_all(&result).expect("a directory");
            fs::write(result.join("benchmark.json"), r#"{"full_id": "resp"}"#).expect("a file");
            fs::write(
                result.join("estimates.json"),
                r#"{"median": {"point_estimate": 1}}"#,
            )
            .expect("a file");
        }
        assert_eq!(core_figures(dir.path(), SystemTime::UNIX_EPOCH).len(), 1);
        let tomorrow = SystemTime::now() + std::time::Duration::from_hours(24);
        assert_eq!(core_figures(dir.path(), tomorrow), []);
    }
}
