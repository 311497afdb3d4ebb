//! How many instructions a task's whole life takes in the core.
//!
//! Unlike times they hardly depend on what else the machine does. valgrind counts them, in two runs of the same program
//! that are alike but for the number of tasks: the difference is that of the tasks alone.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::util;

/// Tasks that are prepared in each run.
const PREPARED: u64 = 12_000;
/// Tasks that are fed in the shorter one. The longer is fed all.
const FEW: u64 = 2000;

/// The brokers whose tasks are counted, by the names of their benches.
const BENCHES: [(&str, &str); 2] = [("redis", "lives/redis"), ("rabbitmq", "lives/rabbitmq")];

/// The table of the benches whose name contains `filter`; none where there is no such bench, or no valgrind.
///
/// # Errors
/// The bench can't be built, or fails.
pub(super) fn table(filter: Option<&str>) -> Result<Option<String>> {
    let wanted =
        BENCHES.map(|(broker, name)| (broker, name, filter.is_none_or(|filter| name.contains(filter))));
    if !wanted.iter().any(|(.., wanted)| *wanted) {
        return Ok(None);
    }
    let Some(valgrind) = util::find_program("valgrind") else {
        util::say(
            "lives",
            "the instructions that a task takes are not counted: install valgrind for that",
        );
        return Ok(None);
    };
    util::say("lives", "counts the instructions that a task takes");
    let bench = [
        "bench",
        "--package",
        "celeryscope-core",
        "--bench",
        "lives",
        "--no-run",
    ];
    let built = util::build_executables(&bench)?;
    let bench = built
        .iter()
        .find(|built| built.target == "lives")
        .context("cargo built no bench `lives`")?;
    let mut table = format!("{:<48} {:>10}", "core", "instructions a task");
    for (broker, name, wanted) in wanted {
        if wanted {
            let few = count(&valgrind, &bench.path, broker, FEW)?;
            let all = count(&valgrind, &bench.path, broker, PREPARED)?;
            let of_one = all.saturating_sub(few) / (PREPARED - FEW);
            table += &format!("\n{name:<48} {of_one:>19}");
        }
    }
    Ok(Some(table))
}

/// The instructions of a run that is fed so many tasks.
fn count(valgrind: &Path, bench: &Path, broker: &str, fed: u64) -> Result<u64> {
    let mut command = Command::new(valgrind);
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(bench)
        .args(["--instructions", broker, &PREPARED.to_string(), &fed.to_string()]);
    let out = command
        .output()
        .with_context(|| format!("cannot start {}", valgrind.display()))?;
    let said = String::from_utf8_lossy(&out.stderr);
    match collected(&said) {
        Some(count) if out.status.success() => Ok(count),
        _ => bail!(
            "{} under valgrind failed ({}):\n{said}",
            bench.display(),
            out.status
        ),
    }
}

/// The number in what callgrind says at its end.
fn collected(said: &str) -> Option<u64> {
    let number = said
        .lines()
        .find_map(|line| line.strip_prefix("==")?.split_once("== Collected : "));
    number?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: what callgrind prints, of a program that says something itself; and of one that never ran.
    /// Guarantees: the number is that of callgrind's line, and there is none without it.
    #[test]
    fn instructions_are_in_callgrinds_line() {
        let said = "Collected : 7\n==4496== Events    : Ir\n==4496== Collected : 677961016\n==4496== \n\
                    ==4496== I   refs:      677,961,016\n";
        assert_eq!(collected(said), Some(677_961_016));
        assert_eq!(collected("valgrind: no such program\n"), None);
    }
}
