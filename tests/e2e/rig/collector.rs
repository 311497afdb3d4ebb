//! A real OpenTelemetry collector: rotel, whose binary comes in a wheel from PyPI.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::loopback::free_port;
use super::process::{Process, wait_for};
use super::scene::Scene;
use crate::venv;

/// A running collector.
#[derive(Debug)]
pub(crate) struct Collector {
    process: Process,
    ports: Ports,
}

/// A metric as it arrived.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Number {
    pub(crate) unit: String,
    /// `Sum` or `Gauge`.
    pub(crate) kind: String,
    pub(crate) value: f64,
}

/// Its ports, so that it can come back on the same ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) grpc: u16,
    pub(crate) http: u16,
}

impl Ports {
    /// Two that nobody listens on.
    pub(crate) fn free() -> Self {
        Self {
            grpc: free_port(),
            http: free_port(),
        }
    }
}

impl Collector {
    /// Starts it and waits until it listens; `printing` makes it print every span it receives.
    pub(crate) fn start(scene: &Scene, name: &str, ports: Ports, printing: bool) -> Self {
        venv::ensure(&["rotel"]).unwrap_or_else(|e| panic!("{e:#}"));
        let environment = venv::path("rotel").unwrap_or_else(|e| panic!("{e:#}"));
        let find = "import os, rotel; print(os.path.join(os.path.dirname(rotel.__file__), 'rotel-agent'))";
        let mut python = Command::new(environment.join("bin/python"));
        let found = python.args(["-c", find]).output().expect("rotel's Python");
        let binary = PathBuf::from(String::from_utf8_lossy(&found.stdout).trim());
        let mut command = Command::new(binary);
        command
            .args(["start", "--exporter", "blackhole"])
            .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{}", ports.grpc)])
            .args(["--otlp-http-endpoint", &format!("127.0.0.1:{}", ports.http)]);
        if printing {
            for what in ["traces", "metrics"] {
                command.args(["--debug-log", what]);
            }
            command.args(["--debug-log-verbosity", "detailed"]);
        }
        let process = Process::spawn(name, &command, scene.folder(), None);
        let listens = |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        wait_for("a collector that listens", Duration::from_secs(10), || {
            (listens(ports.grpc) && listens(ports.http)).then_some(())
        });
        Self { process, ports }
    }

    /// Where it takes gRPC.
    pub(crate) fn grpc(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.grpc)
    }

    /// Where it takes HTTP/protobuf.
    pub(crate) fn http(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.http)
    }

    /// The last value of each metric that it has received and printed, with unit and type.
    pub(crate) fn metrics(&self) -> BTreeMap<String, Number> {
        let log = self.process.log();
        let mut metrics = BTreeMap::new();
        let mut name = "";
        let mut number = Number::default();
        for line in log.lines() {
            if let Some(found) = line.strip_prefix("     -> Name: ") {
                name = found;
            } else if let Some(unit) = line.strip_prefix("     -> Unit: ") {
                unit.clone_into(&mut number.unit);
            } else if let Some(kind) = line.strip_prefix("     -> DataType: ") {
                kind.clone_into(&mut number.kind);
            } else if let Some(value) = line.strip_prefix("Value: ")
                && let Ok(value) = value.parse()
            {
                number.value = value;
                metrics.insert(name.to_owned(), number.clone());
            }
        }
        metrics
    }

    /// All that it has printed.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Span id and name of everything it has received and printed.
    pub(crate) fn received(&self) -> BTreeSet<(String, String)> {
        let log = self.process.log();
        let mut received = BTreeSet::new();
        let mut id = "";
        for line in log.lines() {
            if let Some(found) = line.strip_prefix("    ID             : ") {
                id = found;
            } else if let Some(name) = line.strip_prefix("    Name           : ") {
                received.insert((id.to_owned(), name.to_owned()));
            }
        }
        received
    }
}
