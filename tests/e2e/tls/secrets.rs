//! What nobody may read in the agent's output.

use std::process::Command;

use super::LIMIT;
use crate::check;
use crate::rig::agent::binary;
use crate::rig::secret;
use crate::rig::worker::Options;
use crate::rig::{Agent, Broker, Publisher, Scene, Tls, Way, Worker};

const PASSWORD: &str = "quincunx-obelisk-7261";
const ARGUMENT: &str = "card-4929-0071-2218-ferruginous";

/// Scenario: a Redis that asks for a password, over TLS; a task with a secret argument; an agent that logs all it can, and is there
/// from before the password is said.
/// Guarantees: every task is told in full; neither the password nor the argument nor the server's private key is in the log or in the
/// spans, in clear or in base64.
#[test]
fn nothing_is_given_away() {
    let way = Way {
        password: Some(PASSWORD),
        ..Tls::V13.into()
    };
    let Some(scene) = Scene::set_over(way, Broker::Redis, "secrets", "celery57") else {
        return;
    };
    let spans = scene.folder().join("agent.spans.jsonl");
    let port = scene.port().to_string();
    let mut command = Command::new(binary());
    command
        .args(["run", "--stats", "--broker-port", &port, "--tls-port", &port])
        .arg("--output")
        .arg(format!("otlp-json={}", spans.display()))
        .env("CELERYSCOPE_LOG", "trace");
    let agent = Agent::spawn(scene.folder(), "agent", &command, spans.clone());
    let worker = Worker::start(&scene, "w1", &Options::default());
    let mut publisher = Publisher::start_watched(&scene, "publisher");
    let weighing = format!("weighing {ARGUMENT}");
    for scenario in ["simple 3", &weighing, "failures 1", &weighing] {
        publisher.publish(scenario);
    }
    scene.settle(LIMIT);
    drop(worker);
    let left = agent.stop();
    check::all_is_told(&scene, &left, &check::few_runs());
    assert!(
        left.log.contains("TRACE") || left.log.contains("DEBUG"),
        "no log to search"
    );

    let mut secrets = vec![PASSWORD.to_owned(), ARGUMENT.to_owned()];
    let key = &scene.identity().expect("a stage with TLS").key;
    let key = std::fs::read_to_string(key).expect("the private key");
    let body = key.lines().filter(|line| !line.starts_with("-----"));
    secrets.extend(body.map(str::to_owned));
    assert!(secrets.len() > 2, "no body of a private key: {key}");
    let exported = std::fs::read_to_string(&spans).expect("the spans' file");
    secret::assert_absent(&secrets, "the log", left.log.as_bytes());
    secret::assert_absent(&secrets, "the spans", exported.as_bytes());
}
