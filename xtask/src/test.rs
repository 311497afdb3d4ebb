//! `cargo xtask test`: everything that proves celeryscope, in one command.
//!
//! Set-up, then the checks that need no kernel, then the tests that load BPF programs and watch real Celery workers
//! (the test targets whose names begin with [`LIVE_PREFIX`]). A failing step does not keep the later ones from running;
//! a table at the end says how each went.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::util::Executable;
use crate::{ebpf, layers, privilege, setup, util};

/// Test targets that need root, BPF and a broker are named so; the others run anywhere.
const LIVE_PREFIX: &str = "live";

/// What the user chose.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only tests whose name contains this
    filter: Option<String>,
}

/// Runs the tests.
///
/// # Errors
/// The steps that failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    let filter = args.filter.as_deref();
    let mut steps = Steps::default();
    steps.run("setup", || setup::run().map(|()| String::new()));
    steps.stop_on_failure()?;
    if filter.is_none() {
        steps.run("layers", || layers::run().map(|()| String::new()));
        steps.run("kernel half", || {
            ebpf::verify(util::root()).map(|()| String::new())
        });
    }
    steps.run("unit, replay, doc", || without_kernel(filter));
    steps.run("end to end", || live(filter));
    steps.finish()
}

/// `cargo test` as anybody would run it. Live tests skip themselves in it.
fn without_kernel(filter: Option<&str>) -> Result<String> {
    let mut command = util::cargo();
    command
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(filter)
        .env_remove("CELERYSCOPE_LIVE");
    let (lines, result) = util::run_and_keep(&mut command, |line| line.starts_with("test result:"));
    result.map(|()| Tally::of(&lines).to_string())
}

/// The live test targets, each as root and one test at a time: they share the kernel's probes.
fn live(filter: Option<&str>) -> Result<String> {
    privilege::obtain("loading BPF programs")?;
    let built = Built::all()?;
    check_kernel(&built)?;
    let mut kept = Vec::new();
    let mut failed = Vec::new();
    for live in built.live() {
        util::say("end to end", &live.target);
        let mut command = privilege::command(&live.path, &live_variables()?);
        command
            .current_dir(util::root().join("agent"))
            .arg("--test-threads=1")
            .args(filter);
        let (lines, result) = util::run_and_keep(&mut command, |line| line.starts_with("test result:"));
        kept.extend(lines);
        if result.is_err() {
            failed.push(live.target.as_str());
        }
    }
    if kept.is_empty() {
        bail!("no test target whose name begins with `{LIVE_PREFIX}` ran to its end");
    }
    if !failed.is_empty() {
        bail!("{} failed ({})", failed.join(", "), Tally::of(&kept));
    }
    Ok(Tally::of(&kept).to_string())
}

/// What the tests are made of.
struct Built(Vec<Executable>);

impl Built {
    /// Builds it. The selection is that of `cargo test --workspace`, so that nothing is built twice.
    fn all() -> Result<Self> {
        let mut built = util::build_executables(&["test", "--workspace", "--no-run"])?;
        built.sort_by(|a, b| a.target.cmp(&b.target));
        Ok(Self(built))
    }

    /// The live test targets.
    fn live(&self) -> impl Iterator<Item = &Executable> {
        self.0
            .iter()
            .filter(|built| built.kind == "test" && built.target.starts_with(LIVE_PREFIX))
    }

    fn agent(&self) -> Option<&Executable> {
        self.0
            .iter()
            .find(|built| built.kind == "bin" && !built.is_test && built.target == "celeryscope")
    }
}

/// What the live tests find in their environment: the switch, and the user's cache although they run as root.
pub(crate) fn live_variables() -> Result<Vec<(String, String)>> {
    let cache = util::cache_dir()?
        .to_str()
        .context("the cache directory's name is not UTF-8")?
        .to_owned();
    let path = std::env::var("PATH").unwrap_or_default();
    Ok([
        ("CELERYSCOPE_LIVE", "1".to_owned()),
        ("CELERYSCOPE_CACHE", cache),
        ("PATH", path),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into())
}

/// A kernel that refuses BPF fails all live tests; one line that says so is worth more than their forty.
fn check_kernel(built: &Built) -> Result<()> {
    let agent = built
        .agent()
        .context("cargo built no celeryscope for the tests")?;
    let doctor = privilege::command(&agent.path, &[])
        .arg("doctor")
        .stdin(Stdio::null())
        .output()?;
    if !doctor.status.success() {
        let report = [doctor.stdout, doctor.stderr].concat();
        bail!(
            "this kernel refuses BPF, so nothing was tested end to end; `celeryscope doctor` says:\n{}",
            String::from_utf8_lossy(&report).trim_end()
        );
    }
    Ok(())
}

/// What libtest's closing lines add up to.
#[derive(Default, PartialEq, Eq, Debug)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Tally {
    fn of(lines: &[String]) -> Self {
        let mut tally = Self::default();
        for line in lines {
            let words: Vec<&str> = line.split([' ', ';']).collect();
            for pair in words.windows(2) {
                let [count, what] = pair else { continue };
                let Ok(count) = count.parse::<u64>() else { continue };
                match *what {
                    "passed" => tally.passed += count,
                    "failed" => tally.failed += count,
                    "ignored" => tally.ignored += count,
                    _ => {}
                }
            }
        }
        tally
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} ignored",
            self.passed, self.failed, self.ignored
        )
    }
}

/// The steps so far: name, time, and what came of it.
#[derive(Default)]
struct Steps(Vec<(&'static str, Duration, Result<String>)>);

impl Steps {
    fn run(&mut self, name: &'static str, step: impl FnOnce() -> Result<String>) {
        println!("\n==> {name}");
        let start = Instant::now();
        let result = step();
        if let Err(error) = &result {
            eprintln!("error: {error:#}");
        }
        self.0.push((name, start.elapsed(), result));
    }

    fn stop_on_failure(&mut self) -> Result<()> {
        if self.0.iter().any(|(_, _, result)| result.is_err()) {
            return std::mem::take(self).finish();
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        println!("\n{:<20} {:>8}  result", "step", "seconds");
        let mut failed = Vec::new();
        for (name, time, result) in &self.0 {
            let shown = match result {
                Ok(detail) if detail.is_empty() => "ok".to_owned(),
                Ok(detail) => format!("ok: {detail}"),
                Err(error) => {
                    failed.push(*name);
                    format!("FAILED: {}", error.to_string().lines().next().unwrap_or_default())
                }
            };
            println!("{name:<20} {:>8.1}  {shown}", time.as_secs_f64());
        }
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the closing lines of three test binaries, one of them with a failure.
    /// Guarantees: passed, failed and ignored are added up; times and filtered tests are not mistaken for them.
    #[test]
    fn closing_lines_are_added_up() {
        let lines = [
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.02s",
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s",
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ];
        let tally = Tally::of(&lines.map(str::to_owned));
        assert_eq!(
            tally,
            Tally {
                passed: 17,
                failed: 2,
                ignored: 1
            }
        );
    }
}
