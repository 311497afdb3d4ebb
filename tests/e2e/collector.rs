//! A real OpenTelemetry collector at the other end: rotel, from PyPI.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::check;
use crate::rig::process::{Process, wait_for};
use crate::rig::redis::free_port;
use crate::rig::worker::Options;
use crate::rig::{Agent, Publisher, Scene, Worker, agent};
use crate::support::compare::Expect;
use crate::venv;

/// A running collector that prints every span it receives.
struct Collector {
    process: Process,
}

/// Its addresses, kept over a restart.
#[derive(Clone, Copy)]
struct Ports {
    grpc: u16,
    http: u16,
}

impl Collector {
    fn start(scene: &Scene, name: &str, ports: Ports) -> Self {
        let environment = venv::path("rotel").unwrap_or_else(|e| panic!("{e:#}"));
        let find = "import os, rotel; print(os.path.join(os.path.dirname(rotel.__file__), 'rotel-agent'))";
        let found = Command::new(environment.join("bin/python"))
            .args(["-c", find])
            .output()
            .expect("rotel's Python");
        let binary = PathBuf::from(String::from_utf8_lossy(&found.stdout).trim());
        let mut command = Command::new(binary);
        command
            .args([
                "start",
                "--exporter",
                "blackhole",
                "--debug-log",
                "traces",
                "--debug-log-verbosity",
                "detailed",
            ])
            .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{}", ports.grpc)])
            .args(["--otlp-http-endpoint", &format!("127.0.0.1:{}", ports.http)]);
        let process = Process::spawn(name, &command, scene.folder(), None);
        wait_for("a collector that listens", Duration::from_secs(10), || {
            [ports.grpc, ports.http]
                .iter()
                .all(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok())
                .then_some(())
        });
        Self { process }
    }

    /// Span id and name of everything it has received.
    fn received(&self) -> BTreeSet<(String, String)> {
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

fn start_agent(scene: &Scene, protocol: &str, endpoint: u16) -> Agent {
    let output = scene.folder().join("agent.spans.jsonl");
    let mut command = Command::new(agent::binary());
    command
        .args([
            "run",
            "--broker-port",
            &scene.port().to_string(),
            "--output",
            "otlp",
            "--output",
        ])
        .arg(format!("otlp-json={}", output.display()))
        .env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("http://127.0.0.1:{endpoint}"),
        )
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
    Agent::spawn(scene.folder(), "agent", &command, output)
}

fn told(left: &agent::Left) -> BTreeSet<(String, String)> {
    left.spans
        .iter()
        .map(|span| (span.span_id.to_string(), span.name.clone()))
        .collect()
}

fn delivers(name: &str, protocol: &str, endpoint: fn(Ports) -> u16) {
    let Some(scene) = Scene::set(name, "celery57") else {
        return;
    };
    venv::ensure(&["rotel"]).unwrap_or_else(|e| panic!("{e:#}"));
    let ports = Ports {
        grpc: free_port(),
        http: free_port(),
    };
    let collector = Collector::start(&scene, "collector", ports);
    let agent = start_agent(&scene, protocol, endpoint(ports));
    let worker = Worker::start(&scene, "w1", &Options::default());
    let mut publisher = Publisher::start(&scene, "publisher");
    for scenario in ["simple 5", "chained", "failures 1", "nesting 2"] {
        publisher.publish(scenario);
    }
    scene.settle(Duration::from_secs(20));
    drop(worker);
    let left = agent.stop();
    check::all_is_told(&scene, &left, &Expect::default());
    wait_for("the last batch", Duration::from_secs(5), || {
        (collector.received() == told(&left)).then_some(())
    });
}

/// Scenario: spans go to a real collector over gRPC.
/// Guarantees: it receives exactly the spans that the agent wrote to its file.
#[test]
fn delivers_over_grpc() {
    delivers("otlp-grpc", "grpc", |ports| ports.grpc);
}

/// Scenario: spans go to a real collector over HTTP/protobuf.
/// Guarantees: it receives exactly the spans that the agent wrote to its file.
#[test]
fn delivers_over_http() {
    delivers("otlp-http", "http/protobuf", |ports| ports.http);
}

/// Scenario: the collector is stopped, tasks run, it comes back on the same port.
/// Guarantees: the agent stays up and says once that it can't deliver; what it held is delivered, so that in the end
/// every span has arrived.
#[test]
fn collector_goes_and_comes_back() {
    let Some(scene) = Scene::set("otlp-gap", "celery57") else {
        return;
    };
    venv::ensure(&["rotel"]).unwrap_or_else(|e| panic!("{e:#}"));
    let ports = Ports {
        grpc: free_port(),
        http: free_port(),
    };
    let first = Collector::start(&scene, "collector-1", ports);
    let mut agent = start_agent(&scene, "grpc", ports.grpc);
    let worker = Worker::start(&scene, "w1", &Options::default());
    let mut publisher = Publisher::start(&scene, "publisher");
    publisher.publish("simple 3");
    scene.settle(Duration::from_secs(10));
    wait_for("the first six spans", Duration::from_secs(10), || {
        (first.received().len() >= 6).then_some(())
    });
    let mut received = first.received();
    drop(first);
    let quiet = agent.log();

    publisher.publish("simple 4");
    scene.settle(Duration::from_secs(10));
    // Long enough for several attempts to deliver.
    std::thread::sleep(Duration::from_secs(6));
    assert!(
        agent.alive(),
        "the agent ended when its collector did: {}",
        agent.log()
    );
    let said: Vec<String> = agent.log()[quiet.len()..].lines().map(str::to_owned).collect();
    assert_eq!(
        said.len(),
        1,
        "one line about a collector that is away: {said:#?}"
    );

    let second = Collector::start(&scene, "collector-2", ports);
    publisher.publish("simple 2");
    scene.settle(Duration::from_secs(10));
    drop(worker);
    wait_for(
        "what was held and what came after",
        Duration::from_secs(40),
        || (second.received().len() >= 12).then_some(()),
    );
    let left = agent.stop();
    check::all_is_told(&scene, &left, &Expect::default());
    received.extend(second.received());
    assert_eq!(received, told(&left));
}
