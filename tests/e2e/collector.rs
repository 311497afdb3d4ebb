//! A real OpenTelemetry collector at the other end.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use crate::check;
use crate::rig::collector::{Collector, Ports};
use crate::rig::process::wait_for;
use crate::rig::worker::Options;
use crate::rig::{Agent, Publisher, Scene, Worker, agent};

fn start_agent(scene: &Scene, protocol: &str, endpoint: &str) -> Agent {
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
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
    Agent::spawn(scene.folder(), "agent", &command, output)
}

fn told(left: &agent::Left) -> BTreeSet<(String, String)> {
    left.spans
        .iter()
        .map(|span| (span.span_id.to_string(), span.name.to_string()))
        .collect()
}

fn delivers(name: &str, protocol: &str, endpoint: fn(&Collector) -> String) {
    let Some(scene) = Scene::set(name, "celery57") else {
        return;
    };
    let collector = Collector::start(&scene, "collector", Ports::free(), true);
    let agent = start_agent(&scene, protocol, &endpoint(&collector));
    let worker = Worker::start(&scene, "w1", &Options::default());
    let mut publisher = Publisher::start(&scene, "publisher");
    for scenario in ["simple 5", "chained", "failures 1", "nesting 2"] {
        publisher.publish(scenario);
    }
    scene.settle(Duration::from_secs(20));
    drop(worker);
    let left = agent.stop();
    check::all_is_told(&scene, &left, &check::few_runs());
    wait_for("the last batch", Duration::from_secs(5), || {
        (collector.received() == told(&left)).then_some(())
    });
}

/// Scenario: spans go to a real collector over gRPC.
/// Guarantees: it receives exactly the spans that the agent wrote to its file.
#[test]
fn delivers_over_grpc() {
    delivers("otlp-grpc", "grpc", Collector::grpc);
}

/// Scenario: spans go to a real collector over HTTP/protobuf.
/// Guarantees: it receives exactly the spans that the agent wrote to its file.
#[test]
fn delivers_over_http() {
    delivers("otlp-http", "http/protobuf", Collector::http);
}

/// Scenario: the collector is away for a minute while tasks run, and comes back on the same port.
/// Guarantees: the agent stays up and says once that it can't deliver; what it held is delivered, so that in the end
/// every span has arrived.
#[test]
fn collector_goes_and_comes_back() {
    let Some(scene) = Scene::set("otlp-gap", "celery57") else {
        return;
    };
    let ports = Ports::free();
    let first = Collector::start(&scene, "collector-1", ports, true);
    let mut agent = start_agent(&scene, "grpc", &first.grpc());
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

    publisher.publish("load 600 10");
    scene.settle(Duration::from_secs(10));
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

    let second = Collector::start(&scene, "collector-2", ports, true);
    publisher.publish("simple 2");
    scene.settle(Duration::from_secs(10));
    drop(worker);
    wait_for(
        "what was held and what came after",
        Duration::from_secs(40),
        || (second.received().len() >= 2 * (600 + 2)).then_some(()),
    );
    let left = agent.stop();
    check::all_is_told(&scene, &left, &check::few_runs());
    received.extend(second.received());
    assert_eq!(received, told(&left));
}
