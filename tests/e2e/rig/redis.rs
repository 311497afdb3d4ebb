//! A Redis of one test's own: free port, both loopback addresses, nothing on disk that outlives it.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::hosts::Host;
use super::loopback::{Family, answers, free_port};
use super::process::{Process, wait_for};

/// A server on 127.0.0.1 and, where the host has IPv6, on ::1.
#[derive(Debug)]
pub(crate) struct Redis {
    process: Process,
    port: u16,
    /// Where it is instead, on a host of the test's own.
    address: Option<Ipv4Addr>,
}

impl Redis {
    /// Starts it and waits until it answers.
    pub(crate) fn start(folder: &Path) -> Self {
        Self::start_on(folder, free_port())
    }

    /// The same on a port that was chosen before.
    pub(crate) fn start_on(folder: &Path, port: u16) -> Self {
        let data = folder.join(format!("redis-{port}"));
        std::fs::create_dir_all(&data).expect("a folder for Redis");
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
        if Family::V6.is_there() {
            command.arg("::1");
        }
        command
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--dir")
            .arg(&data);
        let process = Process::spawn(&format!("redis-{port}"), &command, folder, None);
        let redis = Self {
            process,
            port,
            address: None,
        };
        wait_for("an answer of redis-server", Duration::from_secs(10), || {
            answers(port, b"PING\r\n", b"+PONG\r\n").ok()
        });
        redis
    }

    /// Starts one on a host of the test's own, open to that host's neighbour; waits until it says that it listens.
    pub(crate) fn start_on_host(folder: &Path, host: &Host) -> Self {
        let port = 6379;
        let mut command = host.command("redis-server");
        command
            .args(["--port", &port.to_string(), "--bind", &host.address().to_string()])
            .args(["--protected-mode", "no", "--save", "", "--appendonly", "no"])
            .args(["--daemonize", "no", "--dir"])
            .arg(folder);
        let process = Process::spawn("redis", &command, folder, None);
        wait_for("redis-server to listen", Duration::from_secs(10), || {
            process
                .log()
                .contains("Ready to accept connections")
                .then_some(())
        });
        Self {
            process,
            port,
            address: Some(host.address()),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self, family: Family) -> String {
        let host = match (self.address, family) {
            (Some(address), _) => address.to_string(),
            (None, family) => family.host().to_owned(),
        };
        format!("redis://{host}:{}/0", self.port)
    }

    pub(crate) fn usage(&self) -> super::process::Usage {
        self.process.usage()
    }
}
