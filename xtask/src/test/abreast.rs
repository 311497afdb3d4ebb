//! The end-to-end tests, three at a time: each waits most of its time, for programs that start and for a kernel that takes its
//! probes out. Each process runs its tests one by one, with brokers, ports and folders of its own. Those that measure run
//! afterwards, with the machine to themselves.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Result, bail};

use super::run_live;
use crate::{privilege, util};

/// The lines of a process that tell, and how it ended.
type Done = (Vec<String>, Result<()>);

/// Processes at a time.
const ABREAST: usize = 3;
/// Tests of one process: few, so that all are done at about the same time.
const PORTION: usize = 3;

/// Beginnings of the names of tests that need the machine to themselves: they hold times to a few milliseconds, look at processor time
/// or memory, count what there is in the kernel or on the host, leave nothing for others, or want the agent to be as quick as a program
/// that it never saw before.
const ALONE: [&str; 14] = [
    "backends::leftovers",
    "cache::",
    "faults::many::",
    "flood::",
    "load::",
    "pools::",
    "privileges::doctor_is_content",
    "scenarios::runs_start_and_end_when_they_do",
    "tls::bystanders::",
    "tls::clients::short_lived",
    "tls::sets::eventlet",
    "tls::sets::gevent",
    "tls::sets::threads",
    "workflows::thousands_of_tasks",
];

/// Runs all tests of a program: the lines that tell, and the first failure.
pub(super) fn run(program: &Path) -> Result<Done> {
    let all = names(program)?;
    let (alone, others): (Vec<String>, Vec<String>) = all.into_iter().partition(|name| is_alone(name));
    let portions = Mutex::new(others.chunks(PORTION).map(<[String]>::to_vec));
    let next = || portions.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> Result<Vec<Done>> {
        std::iter::from_fn(next)
            .map(|portion| exactly(program, portion))
            .collect()
    };
    let mut done = thread::scope(|scope| {
        let workers: Vec<_> = (0..ABREAST).map(|_| scope.spawn(work)).collect();
        // A panic in there has been reported by its thread.
        let ended = workers.into_iter().map(|worker| {
            worker
                .join()
                .unwrap_or_else(|_| bail!("a thread of the tests has panicked"))
        });
        let ended = ended.collect::<Result<Vec<_>>>()?;
        anyhow::Ok(ended.into_iter().flatten().collect::<Vec<_>>())
    })?;
    done.push(exactly(program, alone)?);
    let (lines, results): (Vec<_>, Vec<_>) = done.into_iter().unzip();
    Ok((lines.concat(), results.into_iter().collect()))
}

fn exactly(program: &Path, names: Vec<String>) -> Result<Done> {
    let arguments: Vec<String> = names.into_iter().chain(["--exact".to_owned()]).collect();
    run_live(program, &arguments)
}

/// All tests of a program, as libtest lists them.
fn names(program: &Path) -> Result<Vec<String>> {
    let listed = util::output(privilege::command(program, &[]).arg("--list"))?;
    let name = |line: &str| line.strip_suffix(": test").map(str::to_owned);
    Ok(listed.lines().filter_map(name).collect())
}

fn is_alone(name: &str) -> bool {
    ALONE.iter().any(|beginning| name.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Scenario: a program that lists tests as libtest does, and fails in one of those that it is told to run.
    /// Guarantees: every test is run once, those that need it alone, in a process of their own after the others; the failure is told.
    #[test]
    fn every_test_runs_once() {
        let folder = tempfile::tempdir().unwrap();
        let (program, log) = (folder.path().join("live"), folder.path().join("log"));
        let mut all: Vec<String> = (0..12).map(|n| format!("outcomes::n{n}")).collect();
        all.push("pools::solo".to_owned());
        let list: Vec<String> = all.iter().map(|name| format!("{name}: test")).collect();
        let script = format!(
            "#!/bin/sh\nif [ \"$1\" = --list ]; then printf '%s\\n' '{}' '' '13 tests, 0 benchmarks'; exit; fi\n\
             echo \"$@\" >> '{}'\ncase \"$*\" in *n7*) echo '    outcomes::n7'; exit 1;; esac\n",
            list.join("' '"),
            log.display()
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();

        let (lines, result) = run(&program).unwrap();
        let log = std::fs::read_to_string(log).unwrap();
        assert_eq!(lines, ["    outcomes::n7"]);
        assert!(result.is_err());
        assert!(log.trim_end().ends_with("pools::solo --exact"), "{log}");
        let mut ran: Vec<&str> = log
            .split_whitespace()
            .filter(|word| word.contains("::"))
            .collect();
        ran.sort_unstable();
        all.sort_unstable();
        assert_eq!(ran, all);
    }
}
