//! A Redis of one test's own: free port, both loopback addresses, nothing on disk that outlives it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::hosts::Host;
use super::loopback::{Family, answers, free_port};
use super::process::{Process, wait_for};
use super::tls::{Identity, Tls};

/// What a client has to bring.
#[derive(Clone, Debug, Default)]
pub(crate) struct Guard {
    /// Where there is one, the server speaks TLS only.
    pub(crate) identity: Option<Identity>,
    pub(crate) password: Option<&'static str>,
}

/// A server on 127.0.0.1 and, where the host has IPv6, on ::1.
#[derive(Debug)]
pub(crate) struct Redis {
    // None while it is stopped.
    process: Option<Process>,
    command: Command,
    folder: PathBuf,
    guard: Guard,
    port: u16,
    /// Where it is instead, on a host of the test's own.
    address: Option<Ipv4Addr>,
}

impl Redis {
    /// Starts it and waits until it answers.
    pub(crate) fn start(folder: &Path, guard: Guard) -> Self {
        let port = free_port();
        let data = folder.join(format!("redis-{port}"));
        std::fs::create_dir_all(&data).expect("a folder for Redis");
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1"]);
        if Family::V6.is_there() {
            command.arg("::1");
        }
        command
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--dir")
            .arg(&data);
        match &guard.identity {
            Some(identity) => tls_only(&mut command, port, identity),
            None => _ = command.args(["--port", &port.to_string()]),
        }
        if let Some(password) = guard.password {
            command.args(["--requirepass", password]);
        }
        let mut redis = Self {
            process: None,
            command,
            folder: folder.to_owned(),
            guard,
            port,
            address: None,
        };
        redis.start_again();
        redis
    }

    /// Starts it on the same port, with nothing in it.
    pub(crate) fn start_again(&mut self) {
        let name = format!("redis-{}", self.port);
        let process = Process::spawn(&name, &self.command, &self.folder, None);
        self.process = Some(process);
        let Guard { identity, password } = &self.guard;
        let (question, answer) = match password {
            Some(password) => (format!("AUTH {password}\r\n"), "+OK\r\n"),
            None => ("PING\r\n".to_owned(), "+PONG\r\n"),
        };
        let (question, answer) = (question.as_bytes(), answer.as_bytes());
        wait_for("an answer of redis-server", Duration::from_secs(10), || {
            answers(self.port, identity.as_ref(), question, answer).ok()
        });
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
            process: Some(process),
            command,
            folder: folder.to_owned(),
            guard: Guard::default(),
            port,
            address: Some(host.address()),
        }
    }

    /// Ends it as the kernel does when memory is short, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().expect("a Redis that runs");
        process.signal("KILL");
        let status = process.wait(Duration::from_secs(10));
        assert!(status.is_some(), "Redis outlived SIGKILL");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self, family: Family) -> String {
        let scheme = self.guard.identity.as_ref().map_or("redis", |_| "rediss");
        let user = self.guard.password.map(|password| format!(":{password}@"));
        let host = match (self.address, family) {
            (Some(address), _) => address.to_string(),
            (None, family) => family.host().to_owned(),
        };
        format!("{scheme}://{}{host}:{}/0", user.unwrap_or_default(), self.port)
    }

    /// While it runs.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("a server that runs").pid()
    }
}

/// Options that put TLS in the place of plain connections.
fn tls_only(command: &mut Command, port: u16, identity: &Identity) {
    let version = match identity.tls {
        Tls::V12 => "TLSv1.2",
        Tls::V13 => "TLSv1.3",
    };
    command
        .args(["--port", "0", "--tls-port", &port.to_string()])
        .args(["--tls-auth-clients", "no", "--tls-protocols", version]);
    for (option, file) in [
        ("--tls-ca-cert-file", &identity.authority),
        ("--tls-cert-file", &identity.certificate),
        ("--tls-key-file", &identity.key),
    ] {
        command.arg(option).arg(file);
    }
}
