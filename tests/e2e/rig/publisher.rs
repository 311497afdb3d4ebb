//! A long-lived client program that publishes what it is told to.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::thread::spawn;
use std::time::Duration;

use super::openssl::Text;
use super::patience::patient;
use super::process::{Process, wait_for};
use super::scene::Scene;

/// A running `publisher.py`.
#[derive(Debug)]
pub(crate) struct Publisher {
    process: Process,
    lines: Receiver<String>,
}

impl Publisher {
    /// Starts it and waits until it takes commands. No connection is open yet.
    pub(crate) fn start(scene: &Scene, name: &str) -> Self {
        Self::start_module(scene, name, "publisher")
    }

    /// The same where an agent is there before it, which has it covered afterwards. Over TLS probes are put into a program that was never
    /// seen before when it connects; what it says until they are in is lost, and how long that takes is for the kernel and a full
    /// machine to say. So it connects once, and that is waited for.
    pub(crate) fn start_watched(scene: &Scene, name: &str) -> Self {
        let mut publisher = Self::start(scene, name);
        if scene.identity().is_some() {
            let pid = publisher.process.pid();
            publisher.publish("connecting");
            wait_for("probes in a publisher", Duration::from_secs(20), || {
                Text::of(pid)?.is_changed().then_some(())
            });
        }
        publisher
    }

    /// The same program wrapped in another module.
    pub(crate) fn start_module(scene: &Scene, name: &str, module: &str) -> Self {
        let mut command = scene.python();
        command.args(["-m", module]);
        let mut process = Process::spawn(name, &command, scene.folder(), Some(Stdio::piped()));
        let stdout = process.child().stdout.take().expect("a piped stdout");
        let (sender, lines) = channel();
        spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let publisher = Self { process, lines };
        publisher.expect("up");
        publisher
    }

    /// Tells it a scenario and its arguments, and waits until all messages are sent.
    pub(crate) fn publish(&mut self, scenario: &str) {
        self.begin(scenario);
        self.finish(scenario);
    }

    /// Tells it a scenario and goes on.
    pub(crate) fn begin(&mut self, scenario: &str) {
        let stdin = self.process.child().stdin.as_mut().expect("a piped stdin");
        writeln!(stdin, "{scenario}")
            .and_then(|()| stdin.flush())
            .expect("a publisher that listens");
    }

    /// SIGKILL, whatever it is at.
    pub(crate) fn kill(mut self) {
        self.process.signal("KILL");
        let status = self.process.wait(Duration::from_secs(10));
        assert!(status.is_some(), "SIGKILL did not end a publisher");
    }

    /// Waits for the end of a scenario that was begun. Returns what it printed meanwhile.
    pub(crate) fn finish(&mut self, scenario: &str) -> Vec<String> {
        let name = scenario.split(' ').next().unwrap_or(scenario);
        self.expect(&format!("ok {name}"))
    }

    fn expect(&self, wanted: &str) -> Vec<String> {
        let mut before = Vec::new();
        loop {
            match self.lines.recv_timeout(patient(Duration::from_secs(60))) {
                Ok(line) if line == wanted => return before,
                Ok(line) => before.push(line),
                Err(e) => panic!(
                    "the publisher did not say {wanted:?} ({e}): {}",
                    self.process.log()
                ),
            }
        }
    }
}
