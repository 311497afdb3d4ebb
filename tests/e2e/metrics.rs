//! The agent's own numbers: to a real collector, and over HTTP.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::Duration;

use celeryscope_core::SpanKind;

use crate::check;
use crate::rig::collector::{Collector, Ports};
use crate::rig::loopback::free_port;
use crate::rig::process::wait_for;
use crate::rig::worker::Options;
use crate::rig::{Agent, Publisher, Scene, Worker, agent};

fn counted(left: &agent::Left, kind: SpanKind) -> f64 {
    left.spans.iter().filter(|span| span.kind == kind).count() as f64
}

fn work(scene: &Scene) {
    let worker = Worker::start(scene, "w1", &Options::default());
    let mut publisher = Publisher::start(scene, "publisher");
    for scenario in ["simple 5", "chained", "failures 1"] {
        publisher.publish(scenario);
    }
    scene.settle(Duration::from_secs(20));
    drop(worker);
}

fn arrive(name: &str, protocol: &str, endpoint: fn(&Collector) -> String) {
    let Some(scene) = Scene::set(name, "celery57") else {
        return;
    };
    let collector = Collector::start(&scene, "collector", Ports::free(), true);
    let output = scene.folder().join("agent.spans.jsonl");
    let mut command = Command::new(agent::binary());
    command
        .args(["run", "--broker-port", &scene.port().to_string()])
        .args(["--output", "otlp", "--output"])
        .arg(format!("otlp-json={}", output.display()))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint(&collector))
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .env("OTEL_METRIC_EXPORT_INTERVAL", "500");
    let agent = Agent::spawn(scene.folder(), "agent", &command, output);
    wait_for("numbers of a running agent", Duration::from_secs(10), || {
        collector
            .metrics()
            .contains_key("celeryscope.records")
            .then_some(())
    });
    work(&scene);
    let left = agent.stop();
    check::all_is_told(&scene, &left, &check::few_runs());
    wait_for("the last numbers", Duration::from_secs(5), || {
        let metrics = collector.metrics();
        let runs = metrics.get("celeryscope.runs")?.value;
        (runs == counted(&left, SpanKind::Run)).then_some(())
    });
    let metrics = collector.metrics();
    let publishes = &metrics["celeryscope.publishes"];
    assert_eq!(publishes.value, counted(&left, SpanKind::Publish));
    assert_eq!(
        (publishes.kind.as_str(), publishes.unit.as_str()),
        ("Sum", "{publish}")
    );
    let limit = &metrics["celeryscope.attempts_limit"];
    assert_eq!((limit.kind.as_str(), limit.value), ("Gauge", 100_000.0));
    assert_eq!(metrics["celeryscope.stream_bytes"].unit, "By");
    assert!(metrics["process.memory.usage"].value > 1e6);
    let log = collector.log();
    for attribute in [
        "service.name: Str(celeryscope)",
        "service.version: Str(",
        "host.name: Str(",
    ] {
        assert!(
            log.contains(&format!("     -> {attribute}")),
            "{attribute} is not in the resource"
        );
    }
}

/// Scenario: the agent's own numbers go to a real collector beside the spans, over gRPC.
/// Guarantees: they arrive while it runs and once more at its end, with unit, type and resource; they say of spans what the
/// spans themselves say.
#[test]
fn arrive_over_grpc() {
    arrive("metrics-grpc", "grpc", Collector::grpc);
}

/// Scenario: the same over HTTP/protobuf.
/// Guarantees: the same.
#[test]
fn arrive_over_http() {
    arrive("metrics-http", "http/protobuf", Collector::http);
}

/// Scenario: `--metrics-listen` while tasks run; SIGUSR1; a second agent that wants the same address.
/// Guarantees: ready and healthy; the numbers add up and say what the spans say; the signal prints them with what is held;
/// the second agent ends with code 1 and says why.
#[test]
fn served_over_http() {
    let Some(scene) = Scene::set("metrics-served", "celery57") else {
        return;
    };
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let mut agent = Agent::start(
        scene.folder(),
        "agent",
        &[scene.port()],
        &["--metrics-listen", &listen],
    );
    assert_eq!(get(port, "/readyz").0, 200);
    assert_eq!(get(port, "/healthz").0, 200);
    work(&scene);
    // Acks may be on their way, and numbers are up to a second old.
    wait_for("attempts that are all over", Duration::from_secs(20), || {
        let now = metrics(port);
        let held = ["attempts", "runs", "publishes"].map(|what| now[&format!("celeryscope_{what}_held")]);
        (held == [0.0; 3]).then_some(())
    });
    let now = metrics(port);
    let of = |name: &str| now[&format!("celeryscope_{name}")];
    let over = of("runs_total") + of("attempts_unstarted_total");
    assert_eq!(of("attempts_total"), over + of("attempts_held") + of("runs_held"));
    assert_eq!(
        of("spans_total") + of("publishes_held"),
        of("publishes_total") + of("runs_total")
    );
    let output = |name: &str| of(&format!("export_{name}{{output=\"otlp-json\"}}"));
    assert_eq!(of("spans_total"), output("accepted_total"));
    assert_eq!(
        output("accepted_total"),
        output("exported_total") + output("held")
    );
    assert!(now["process_resident_memory_bytes"] > 1e6 && now["process_cpu_seconds_total"] > 0.0);

    let taken = Command::new(agent::binary())
        .args(["run", "--output", "tree", "--metrics-listen", &listen])
        .output()
        .expect("the built binary");
    let said = String::from_utf8_lossy(&taken.stderr);
    assert_eq!(taken.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&listen) && said.contains("another program listens there"),
        "{said}"
    );

    agent.signal("USR1");
    wait_for("the numbers on standard error", Duration::from_secs(5), || {
        agent
            .log()
            .contains("\ngauge attempts_limit=100000 ")
            .then_some(())
    });
    assert!(agent.alive());
    let left = agent.stop();
    check::all_is_told(&scene, &left, &check::few_runs());
    assert_eq!(of("runs_total"), counted(&left, SpanKind::Run));
    assert_eq!(of("publishes_total"), counted(&left, SpanKind::Publish));
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
}

/// Status and body.
fn get(port: u16, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the endpoint");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer
        .split_once("\r\n\r\n")
        .map_or(String::new(), |(_, body)| body.to_owned());
    (status.expect("a status"), body)
}

/// Every sample by its name and labels.
fn metrics(port: u16) -> BTreeMap<String, f64> {
    let (status, body) = get(port, "/metrics");
    assert_eq!(status, 200, "{body}");
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    let pair = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a number");
        (name.to_owned(), value.parse().expect("a number"))
    };
    samples.map(pair).collect()
}
