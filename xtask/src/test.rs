//! `cargo xtask test`: everything that proves celeryscope, in one command.
//!
//! Set-up, then the checks that need no kernel, then the live tests, which load BPF programs and watch real Celery workers: the
//! test targets whose names begin with [`LIVE_PREFIX`], and the agent's unit tests in [`LIVE_MODULE`]; then other kernels, in
//! QEMU. A failing step does not keep the later ones from running; a table at the end says how each went.

mod abreast;

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::steps::{Steps, Tally};
use crate::util::Executable;
use crate::{ebpf, layers, privilege, setup, util, vm};

/// Test targets that need root, BPF and a broker are named so; the others run anywhere.
const LIVE_PREFIX: &str = "live";
/// Unit tests of the agent that need root and BPF.
const LIVE_MODULE: &str = "capture::tests";
/// The live tests that stand for all of them where they run in a guest, which is slow.
const LIVE_IN_A_GUEST: &str = "variants::";

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
    let mut built = None;
    steps.run("build", || {
        built = Some(Built::all()?);
        Ok(String::new())
    });
    if let Some(built) = built {
        steps.run("unit, replay", || without_kernel(&built, filter));
        steps.run("documentation", || cargo_test(&["--doc"], filter, &[]));
        steps.run("end to end", || live(&built, filter));
        steps.run("kernels in QEMU", || match filter {
            None => vm::all(&built.programs()?),
            Some(_) => Ok("skipped, since a filter was given: `cargo xtask vm` runs them".to_owned()),
        });
    }
    steps.finish()
}

/// Everything but the live tests.
fn without_kernel(built: &Built, filter: Option<&str>) -> Result<String> {
    let mut selection = vec!["--lib", "--bins"];
    for target in built
        .0
        .iter()
        .filter(|built| built.kind == "test" && !is_live(built))
    {
        selection.extend(["--test", &target.target]);
    }
    cargo_test(&selection, filter, &["--skip", LIVE_MODULE])
}

fn cargo_test(selection: &[&str], filter: Option<&str>, libtest: &[&str]) -> Result<String> {
    let mut command = util::cargo();
    command
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(selection)
        .args(filter);
    command.arg("--").args(libtest).env_remove("CELERYSCOPE_LIVE");
    let (lines, result) = util::run_and_keep(&mut command, is_closing);
    result.map(|()| Tally::of(&lines).to_string())
}

/// The live tests, as root: of the capture one at a time, since they share the kernel's probes; of the whole as [`abreast`] says.
fn live(built: &Built, filter: Option<&str>) -> Result<String> {
    privilege::obtain("loading BPF programs")?;
    if let Some(refusal) = refusal(built)? {
        return live_in_a_guest(built, filter, &refusal);
    }
    let mut runs = vec![(
        "the agent's capture",
        built.agent_tests()?,
        filter.or(Some(LIVE_MODULE)),
    )];
    for live in built.0.iter().filter(|built| is_live(built)) {
        runs.push((&live.target, &live.path, filter));
    }
    let mut kept = Vec::new();
    let mut failed = Vec::new();
    let mut unsteady = 0;
    for (name, program, filter) in runs {
        util::say("end to end", name);
        let (lines, result) = match filter {
            Some(filter) => run_live(program, &[filter.to_owned()])?,
            None => abreast::run(program)?,
        };
        let doubtful = failures(&lines);
        kept.extend(lines);
        if result.is_err() {
            if passes_alone(program, &doubtful)? {
                unsteady += doubtful.len() as u64;
            } else {
                failed.push(name);
            }
        }
    }
    let mut tally = Tally::of(&kept);
    tally.passed += unsteady;
    tally.failed = tally.failed.saturating_sub(unsteady);
    if !failed.is_empty() {
        bail!("{} failed ({tally})", failed.join(", "));
    }
    if unsteady == 0 {
        return Ok(tally.to_string());
    }
    Ok(format!("{tally}; {unsteady} at the second try only"))
}

/// Some of the live tests, or those that the filter names, in QEMU; said loudly, since it is not what was asked for.
fn live_in_a_guest(built: &Built, filter: Option<&str>, refusal: &str) -> Result<String> {
    const LOUD: &str = "THIS HOST'S KERNEL REFUSED BPF: the live tests ran in a VM";
    eprintln!("{refusal}");
    util::say(
        "end to end",
        "THIS HOST'S KERNEL REFUSES BPF: live tests run in a VM",
    );
    let (lines, passed) = vm::in_place_of_the_host(
        &built.programs()?,
        filter.unwrap_or(LIVE_MODULE),
        filter.unwrap_or(LIVE_IN_A_GUEST),
    )?;
    let tally = Tally::of(
        &lines
            .into_iter()
            .filter(|line| is_closing(line))
            .collect::<Vec<_>>(),
    );
    if !passed {
        bail!("{LOUD}, and failed ({tally})");
    }
    Ok(format!("{LOUD} ({tally})"))
}

/// Failures that are tried once more, alone. Real programs on a machine that others use miss a moment now and then; more
/// than these few fail for another reason.
const DOUBTFUL: usize = 3;

/// Runs these few tests a second time and says so; false where one fails again, or where there are too many or none.
fn passes_alone(program: &Path, names: &[String]) -> Result<bool> {
    if names.is_empty() || names.len() > DOUBTFUL {
        return Ok(false);
    }
    util::say("once more", names.join(", "));
    let exact = names.iter().cloned().chain(["--exact".to_owned()]);
    let (_, result) = run_live(program, &exact.collect::<Vec<_>>())?;
    if result.is_ok() {
        util::say(
            "unsteady",
            format!("passed at the second try only: {}", names.join(", ")),
        );
    }
    Ok(result.is_ok())
}

fn run_live(program: &Path, arguments: &[String]) -> Result<(Vec<String>, Result<()>)> {
    let mut command = privilege::command(program, &live_variables()?);
    command
        .current_dir(util::root().join("agent"))
        .arg("--test-threads=1")
        .args(arguments);
    Ok(util::run_and_keep(&mut command, tells))
}

/// Whether a line of libtest's is needed: how many passed, and which failed.
fn tells(line: &str) -> bool {
    is_closing(line) || failure(line).is_some()
}

/// The names in libtest's closing list of failures, each once.
fn failures(lines: &[String]) -> Vec<String> {
    let mut names: Vec<String> = lines
        .iter()
        .filter_map(|line| failure(line))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The test that a line of that list names.
fn failure(line: &str) -> Option<&str> {
    let name = line.strip_prefix("    ")?;
    let path = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | ':');
    (name.contains("::") && name.chars().all(path)).then_some(name)
}

fn is_live(built: &Executable) -> bool {
    built.kind == "test" && built.target.starts_with(LIVE_PREFIX)
}

/// Whether a line is what libtest closes with.
fn is_closing(line: &str) -> bool {
    line.starts_with("test result:")
}

/// What the tests are made of.
pub(crate) struct Built(Vec<Executable>);

impl Built {
    /// Builds it. The selection is that of `cargo test --workspace`, so that nothing is built twice.
    pub(crate) fn all() -> Result<Self> {
        let mut built = util::build_executables(&["test", "--workspace", "--no-run"])?;
        built.sort_by(|a, b| a.target.cmp(&b.target));
        Ok(Self(built))
    }

    /// What runs in guests.
    pub(crate) fn programs(&self) -> Result<vm::Programs> {
        let mut live = self.0.iter().filter(|built| is_live(built));
        let live = live.next().context("cargo built no live tests")?;
        Ok(vm::Programs {
            agent: self.agent()?.to_owned(),
            others: vec![
                ("LIVE", live.path.clone()),
                ("CAPTURE", self.agent_tests()?.to_owned()),
            ],
        })
    }

    fn agent(&self) -> Result<&Path> {
        let is_it =
            |built: &&Executable| built.kind == "bin" && !built.is_test && built.target == "celeryscope";
        let agent = self.0.iter().find(is_it);
        Ok(&agent.context("cargo built no celeryscope for the tests")?.path)
    }

    fn agent_tests(&self) -> Result<&Path> {
        let is_it = |built: &&Executable| built.kind == "lib" && built.target == "celeryscope";
        let tests = self.0.iter().find(is_it);
        Ok(&tests.context("cargo built no unit tests of the agent")?.path)
    }
}

/// What the live tests find in their environment: the switch, and the user's cache although they run as root.
pub(crate) fn live_variables() -> Result<Vec<(String, String)>> {
    let cache = util::cache_dir()?
        .to_str()
        .context("the cache directory's name is not UTF-8")?
        .to_owned();
    let path = std::env::var("PATH").unwrap_or_default();
    let variables = [
        ("CELERYSCOPE_LIVE", "1".to_owned()),
        ("CELERYSCOPE_CACHE", cache),
        ("PATH", path),
    ];
    let backends = std::env::var("CELERYSCOPE_BACKENDS").ok();
    let backends = backends.map(|names| ("CELERYSCOPE_BACKENDS", names));
    Ok(variables
        .into_iter()
        .chain(backends)
        .map(|(name, value)| (name.to_owned(), value))
        .collect())
}

/// What the doctor says where the host's kernel refuses BPF: that would fail every live test. `CELERYSCOPE_HOST_BPF=no` has the
/// same effect on a host that allows it, to try what happens then.
fn refusal(built: &Built) -> Result<Option<String>> {
    if std::env::var_os("CELERYSCOPE_HOST_BPF").is_some_and(|value| value == "no") {
        return Ok(Some("CELERYSCOPE_HOST_BPF=no".to_owned()));
    }
    let doctor = privilege::command(built.agent()?, &[])
        .arg("doctor")
        .stdin(Stdio::null())
        .output()?;
    if doctor.status.success() {
        return Ok(None);
    }
    let report = [doctor.stdout, doctor.stderr].concat();
    Ok(Some(format!(
        "`celeryscope doctor` says:\n{}",
        String::from_utf8_lossy(&report).trim_end()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a program that prints what libtest prints of failures, among other indented lines.
    /// Guarantees: each failed test is named once, and nothing else.
    #[test]
    fn failures_are_named() {
        let lines = [
            "failures:",
            "    pools::solo",
            "    pools::solo",
            "    at ./src/x.rs:1",
            "   0: a::b",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored",
        ];
        let mut program = std::process::Command::new("printf");
        let (kept, result) = util::run_and_keep(program.arg("%s\n").args(lines), tells);
        result.expect("printf is everywhere");
        assert_eq!(failures(&kept), ["pools::solo"]);
        let tally = Tally::of(&kept);
        assert_eq!((tally.passed, tally.failed), (1, 2));
    }
}
