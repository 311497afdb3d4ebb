//! A Redis of one test's own: free port, both loopback addresses, nothing on disk that outlives it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::hosts::Host;
use super::process::{Process, wait_for};

/// A server on 127.0.0.1 and, where the host has IPv6, on ::1.
#[derive(Debug)]
pub(crate) struct Redis {
    process: Process,
    port: u16,
    /// Where it is instead, on a host of the test's own.
    address: Option<Ipv4Addr>,
}

/// The loopback address by which programs reach the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
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
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
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
            redis.ping().ok()
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
            (None, Family::V4) => "127.0.0.1".to_owned(),
            (None, Family::V6) => "[::1]".to_owned(),
        };
        format!("redis://{host}:{}/0", self.port)
    }

    /// Whether it listens there as well.
    pub(crate) fn has(&self, family: Family) -> bool {
        let ip = match family {
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        };
        TcpStream::connect(SocketAddr::new(ip, self.port)).is_ok()
    }

    pub(crate) fn usage(&self) -> super::process::Usage {
        self.process.usage()
    }

    fn ping(&self) -> std::io::Result<()> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        if &answer == b"+PONG\r\n" {
            Ok(())
        } else {
            Err(std::io::ErrorKind::InvalidData.into())
        }
    }
}

/// A port that nobody listened on a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("the port of a listener").port()
}
