//! The agent under test: the built binary, as a user starts it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use celeryscope_core::Span;

use super::hosts::Host;
use super::patience::patient;
use super::process::{Process, Usage, wait_for};
use super::spans;

/// A running `celeryscope run`.
#[derive(Debug)]
pub(crate) struct Agent {
    process: Process,
    output: PathBuf,
}

/// What an agent left behind.
#[derive(Debug)]
pub(crate) struct Left {
    /// Its spans, in the order they were written.
    pub(crate) spans: Vec<Span>,
    /// All of its stderr.
    pub(crate) log: String,
    /// What it had used when it was told to end.
    pub(crate) usage: Usage,
}

impl Agent {
    /// Watches `ports`, writing spans to a file; returns when it is ready.
    pub(crate) fn start(folder: &Path, name: &str, ports: &[u16], more: &[&str]) -> Self {
        Self::start_by(Command::new(binary()), folder, name, ports, more)
    }

    /// The same on a host of the test's own, watching that host alone.
    pub(crate) fn start_on(host: &Host, folder: &Path, name: &str, port: u16, more: &[&str]) -> Self {
        let more = [&["--netns", "own"], more].concat();
        Self::start_by(host.command(binary()), folder, name, &[port], &more)
    }

    fn start_by(mut command: Command, folder: &Path, name: &str, ports: &[u16], more: &[&str]) -> Self {
        command.arg("run");
        for port in ports {
            command.args(["--broker-port", &port.to_string()]);
        }
        let output = folder.join(format!("{name}.spans.jsonl"));
        command
            .arg("--output")
            .arg(format!("otlp-json={}", output.display()));
        command.args(more);
        Self::spawn(folder, name, &command, output)
    }

    /// Starts a command line of the caller's making; returns when it is ready.
    pub(crate) fn spawn(folder: &Path, name: &str, command: &Command, output: PathBuf) -> Self {
        let mut agent = Self {
            process: Process::spawn(name, command, folder, None),
            output,
        };
        wait_for("the agent's line \"ready\"", Duration::from_secs(20), || {
            let log = agent.process.log();
            assert!(agent.process.ended().is_none(), "the agent ended at once: {log}");
            log.lines().any(|line| line.starts_with("ready ")).then_some(())
        });
        agent
    }

    pub(crate) fn usage(&self) -> Usage {
        self.process.usage()
    }

    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    pub(crate) fn alive(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// SIGTERM; it must flush and exit with 0 within 5 s.
    pub(crate) fn stop(mut self) -> Left {
        let usage = self.process.usage();
        assert!(
            self.alive(),
            "the agent had ended by itself: {}",
            self.process.log()
        );
        self.process.terminate();
        let asked = Instant::now();
        let status = self.process.wait(Duration::from_secs(10));
        let took = asked.elapsed();
        assert!(
            status.is_some_and(|s| s.success()),
            "the agent's end: {status:?}: {}",
            self.process.log()
        );
        assert!(
            took < patient(Duration::from_secs(5)),
            "the agent took {took:?} to end"
        );
        Left {
            spans: spans::read(&self.output),
            log: self.process.log(),
            usage,
        }
    }
}

/// Runs the binary to its end with `arguments`.
pub(crate) fn run_once(command: &mut Command) -> (ExitStatus, String, String) {
    let output = command.output().expect("the built binary");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status, text(output.stdout), text(output.stderr))
}

/// The binary under test: `CELERYSCOPE_BIN` (a release build, say), else the one cargo built for this test.
pub(crate) fn binary() -> PathBuf {
    let built = PathBuf::from(env!("CARGO_BIN_EXE_celeryscope"));
    std::env::var_os("CELERYSCOPE_BIN").map_or(built, PathBuf::from)
}
