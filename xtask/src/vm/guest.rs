//! What a guest finds when its job starts: the environment of the live tests, with patience, and the programs under test.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::kernels::{Image, Kernel};
use super::qemu;
use crate::process::Interrupt;
use crate::{test, util};

pub(crate) use super::qemu::Clock;
pub(super) use super::qemu::{Ended, Job};

/// By how much longer than on a usual machine the tests wait for anything.
const PATIENCE: &str = "8";
/// For a guest that runs alone.
pub(crate) const ALONE: Clock = Clock::Time(2);
/// The kernel that stands in for the host's where that refuses BPF, and how long it may take.
pub(super) const IN_PLACE_OF_THE_HOST: &str = "6.12";
pub(super) const LIMIT_OF_LIVE_TESTS: Duration = Duration::from_mins(60);

/// What was built on the host and runs in the guest.
pub(crate) struct Programs {
    /// The agent.
    pub(crate) agent: PathBuf,
    /// The others, each with the variable that tells the job where it is: `LIVE` the live tests, `CAPTURE` the agent's unit
    /// tests, those of its capture among them, `BENCH` the live benches.
    pub(crate) others: Vec<(&'static str, PathBuf)>,
}

/// Gets the kernel and runs the job in it, with the environment set and in the folder where the tests expect to be.
pub(super) fn run(
    kernel: Kernel,
    programs: &Programs,
    job: &Job<'_>,
    interrupt: &Interrupt,
    line: &mut dyn FnMut(&str),
) -> Result<Ended> {
    let image = kernel.obtain()?;
    run_image(kernel, &image, programs, job, interrupt, line)
}

/// The same with a kernel that was got already.
pub(super) fn run_image(
    kernel: Kernel,
    image: &Image,
    programs: &Programs,
    job: &Job<'_>,
    interrupt: &Interrupt,
    line: &mut dyn FnMut(&str),
) -> Result<Ended> {
    let with = match job.clock {
        Clock::Time(processors) => format!("{processors} processors"),
        Clock::Instructions => "a clock that counts instructions".to_owned(),
    };
    util::say("vm", format!("kernel {} with {with}", image.release));
    let script = environment(programs)? + job.script;
    let job = Job {
        script: &script,
        ..*job
    };
    qemu::run(kernel, image, &job, interrupt, line)
}

/// Shows a line of one of several guests.
pub(super) fn show(kernel: Kernel, line: &str) {
    println!("{:>5} | {line}", kernel.name);
}

fn environment(programs: &Programs) -> Result<String> {
    let mut variables = test::live_variables()?;
    let text = |path: &PathBuf| {
        let text = path.to_str().map(str::to_owned);
        text.with_context(|| format!("{} is not UTF-8", path.display()))
    };
    let agents = programs.agent.parent().context("the agent has no folder")?;
    for (name, value) in &mut variables {
        if name == "PATH" {
            *value = format!("{}:{value}", agents.display());
        }
    }
    for (name, program) in &programs.others {
        variables.push(((*name).to_owned(), text(program)?));
    }
    for (name, value) in [
        ("CELERYSCOPE_PATIENCE", PATIENCE.to_owned()),
        // The console is a terminal, but nobody looks at it.
        ("TERM", "dumb".to_owned()),
    ] {
        variables.push((name.to_owned(), value));
    }
    let mut script = String::new();
    for (name, value) in variables {
        // Writing to a string does not fail.
        let _ = writeln!(script, "export {name}={}", quoted(&value));
    }
    let _ = writeln!(script, "cd {}", quoted(&text(&util::root().join("agent"))?));
    Ok(script)
}

/// A word for the shell.
pub(super) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a word with everything that a shell takes for its own.
    /// Guarantees: the shell gives it back unchanged.
    #[test]
    fn words_are_quoted() {
        let word = "it's $HOME; \"x\" \\ *";
        let mut shell = std::process::Command::new("sh");
        let printed = util::output(shell.args(["-c", &format!("printf %s {}", quoted(word))]));
        assert_eq!(printed.expect("a shell"), word);
    }
}
