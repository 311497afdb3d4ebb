//! The agent under test: the built binary, as a user starts it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use celeryscope_core::Span;

use super::hosts::Host;
use super::patience::patient;
use super::process::{Process, Usage, within};
use super::scene::Scene;
use super::spans;

/// A running `celeryscope run`.
#[derive(Debug)]
pub(crate) struct Agent {
    name: String,
    process: Process,
    output: PathBuf,
}

/// What an agent left behind.
#[derive(Debug)]
pub(crate) struct Left {
    /// The agent's name.
    pub(crate) name: String,
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
        or_panic(Self::try_start(folder, name, ports, more))
    }

    /// Watches a stage's ports, and is told where TLS is spoken there.
    pub(crate) fn watch(scene: &Scene, name: &str) -> Self {
        or_panic(Self::try_watch(scene, name, &[]))
    }

    /// The same with more options, where an agent that does not get ready is the caller's to tell: why not.
    pub(crate) fn try_watch(scene: &Scene, name: &str, more: &[&str]) -> Result<Self, String> {
        let ports = scene.ports();
        let spoken = ports.iter().filter(|_| scene.identity().is_some());
        let spoken: Vec<String> = spoken.map(|port| format!("--tls-port={port}")).collect();
        let mut all = vec!["--stats"];
        all.extend(more);
        all.extend(spoken.iter().map(String::as_str));
        Self::try_start(scene.folder(), name, &ports, &all)
    }

    /// The same where an agent that does not get ready is the caller's to tell: why not.
    pub(crate) fn try_start(folder: &Path, name: &str, ports: &[u16], more: &[&str]) -> Result<Self, String> {
        Self::start_by(Command::new(binary()), folder, name, ports, more)
    }

    /// The same on a host of the test's own, watching that host alone.
    pub(crate) fn start_on(host: &Host, folder: &Path, name: &str, port: u16, more: &[&str]) -> Self {
        let more = [&["--netns", "own"], more].concat();
        or_panic(Self::start_by(
            host.command(binary()),
            folder,
            name,
            &[port],
            &more,
        ))
    }

    fn start_by(
        mut command: Command,
        folder: &Path,
        name: &str,
        ports: &[u16],
        more: &[&str],
    ) -> Result<Self, String> {
        command.arg("run");
        for port in ports {
            command.args(["--broker-port", &port.to_string()]);
        }
        let output = folder.join(format!("{name}.spans.jsonl"));
        command
            .arg("--output")
            .arg(format!("otlp-json={}", output.display()));
        command.args(more);
        let mut agent = Self::begin(folder, name, &command, output);
        agent.get_ready()?;
        Ok(agent)
    }

    /// Starts a command line of the caller's making; returns when it is ready.
    pub(crate) fn spawn(folder: &Path, name: &str, command: &Command, output: PathBuf) -> Self {
        let mut agent = Self::begin(folder, name, command, output);
        or_panic(agent.get_ready());
        agent
    }

    fn begin(folder: &Path, name: &str, command: &Command, output: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            process: Process::spawn(name, command, folder, None),
            output,
        }
    }

    fn get_ready(&mut self) -> Result<(), String> {
        let limit = Duration::from_secs(20);
        let ready = within(limit, || {
            if self.process.ended().is_some() {
                return Some(Err(format!("the agent ended at once: {}", self.log())));
            }
            self.backend().map(|_| Ok(()))
        });
        ready.unwrap_or_else(|| Err(format!("no line \"ready\" within {limit:?}: {}", self.log())))
    }

    /// The back end that its line "ready" names.
    pub(crate) fn backend(&self) -> Option<String> {
        let log = self.log();
        let ready = log.lines().find_map(|line| line.strip_prefix("ready probes="))?;
        ready.split(' ').next().map(str::to_owned)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
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
    pub(crate) fn stop(self) -> Left {
        or_panic(self.try_stop())
    }

    /// The same where a bad end is the caller's to tell.
    pub(crate) fn try_stop(mut self) -> Result<Left, String> {
        let usage = self.process.usage();
        if !self.alive() {
            return Err(format!("the agent had ended by itself: {}", self.log()));
        }
        self.process.terminate();
        let asked = Instant::now();
        let status = self.process.wait(Duration::from_secs(10));
        let took = asked.elapsed();
        if !status.is_some_and(|status| status.success()) {
            return Err(format!("the agent's end: {status:?}: {}", self.log()));
        }
        if took >= patient(Duration::from_secs(5)) {
            return Err(format!("the agent took {took:?} to end"));
        }
        Ok(Left {
            spans: spans::read(&self.output),
            log: self.log(),
            name: self.name,
            usage,
        })
    }

    /// SIGTERM for one that records: it must end its file and exit with 0. Gives its log.
    pub(crate) fn end_recording(mut self) -> String {
        assert!(self.alive(), "the recording had ended by itself: {}", self.log());
        self.process.terminate();
        let status = self.process.wait(Duration::from_secs(10));
        assert!(
            status.is_some_and(|status| status.success()),
            "the recording's end: {status:?}: {}",
            self.log()
        );
        self.log()
    }

    /// Sends it a signal and goes on.
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Waits until a signal has ended it; where that was SIGKILL, its last span may be cut off.
    pub(crate) fn ended(mut self) -> Vec<Span> {
        let status = self.process.wait(Duration::from_secs(10));
        assert!(
            status.is_some(),
            "a signal did not end {}: {}",
            self.name,
            self.log()
        );
        spans::read_cut(&self.output)
    }
}

fn or_panic<T>(result: Result<T, String>) -> T {
    result.unwrap_or_else(|why| panic!("{why}"))
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
