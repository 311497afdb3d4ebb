//! Other versions, other serializers, other places for results: the same tasks in other forms.

use std::time::Duration;

use crate::check;
use crate::on_brokers::on_brokers;
use crate::rig::worker::Options;
use crate::rig::{Agent, Broker, Publisher, Scene, Worker};
use crate::support::compare::Expect;

/// Plays those of the scenarios that work there on one worker, and compares every span.
fn told_in_full(broker: Broker, scene: Scene, options: &Options, scenarios: &[&str]) {
    let agent = Agent::start(scene.folder(), "agent", &scene.ports(), &["--stats"]);
    let worker = Worker::start(&scene, "w1", options);
    let mut publisher = Publisher::start(&scene, "publisher");
    for scenario in broker.possible(scenarios) {
        publisher.publish(scenario);
    }
    scene.settle(Duration::from_secs(40));
    drop(worker);
    let expect = Expect {
        // Only a prefork pool's pipes tell all times.
        timing: check::few_runs().timing.filter(|_| options.arguments.is_empty()),
        ..check::few_runs()
    };
    check::all_is_told(&scene, &agent.stop(), &expect);
}

fn with_lives() -> Options {
    Options {
        include: vec!["lives"],
        ..Options::default()
    }
}

fn older(broker: Broker, environment: &str) {
    let Some(scene) = Scene::set_on(broker, environment, environment) else {
        return;
    };
    let set = [
        "simple 3",
        "chained",
        "chords 2",
        "retries",
        "failures 2",
        "nesting 2",
        "eta",
        "paced 20",
    ];
    told_in_full(broker, scene, &with_lives(), &set);
}

/// Scenario: Celery 5.2 with redis-py 4: calls, chain, chord, retries, failures, nested calls, ETA.
/// Guarantees: every task is told in full.
fn celery_52(broker: Broker) {
    older(broker, "celery52");
}
on_brokers!(celery_52: redis, rabbitmq);

/// Scenario: the same with Celery 4.4, redis-py 3.5, py-amqp 2.6 and billiard 3.6.
/// Guarantees: every task is told in full.
fn celery_44(broker: Broker) {
    older(broker, "celery44");
}
on_brokers!(celery_44: redis, rabbitmq);

/// Settings for a serializer of tasks and results, a compression of tasks, and a message protocol.
fn serialized(serializer: &str, compression: Option<&str>, protocol: u8) -> String {
    let compression = compression.map_or("null".to_owned(), |name| format!("\"{name}\""));
    format!(
        r#"{{"task_serializer": "{serializer}", "result_serializer": "{serializer}", "accept_content": ["{serializer}", "json"],
            "task_compression": {compression}, "task_protocol": {protocol}}}"#
    )
}

/// Scenario: messages of protocol 1, whose body alone says what they are, in every serializer and compression: calls,
/// failures, retries, groups, nested calls.
/// Guarantees: every task is told in full, as far as protocol 1 says it: each is the root of its own trace.
fn protocol_1_in_every_form(broker: Broker) {
    let forms = [
        ("json", None),
        ("pickle", Some("zlib")),
        ("yaml", Some("bzip2")),
        ("msgpack", Some("zstd")),
    ];
    for (serializer, compression) in forms {
        let Some(scene) = Scene::set_on(broker, serializer, "pools") else {
            return;
        };
        let scene = scene.with_settings(&serialized(serializer, compression, 1));
        let mut set = vec!["simple 3", "failures 1", "retries", "grouped 3", "paced 5"];
        // YAML cannot hold the signature of a nested call's parent.
        if serializer != "yaml" {
            set.push("deepening 2");
        }
        told_in_full(broker, scene, &with_lives(), &set);
    }
}
on_brokers!(protocol_1_in_every_form: redis, rabbitmq);

/// Scenario: tasks and results in every serializer, on threads: no pool pipe tells how a run ended, only its result. Retries
/// follow at once, and end before the attempt that asked for them has said so.
/// Guarantees: every state and exception is told.
fn results_in_every_form(broker: Broker) {
    for (serializer, compression) in [("pickle", "zstd"), ("yaml", "zlib"), ("msgpack", "bzip2")] {
        let Some(scene) = Scene::set_on(broker, serializer, "pools") else {
            return;
        };
        let scene = scene.with_settings(&serialized(serializer, Some(compression), 2));
        let options = Options {
            arguments: vec!["--pool", "threads"],
            ..with_lives()
        };
        let mut set = vec![
            "simple 3",
            "failures 2",
            "retries",
            "retries",
            "retries",
            "grouped 3",
            "paced 5",
        ];
        // YAML cannot hold the signatures of a chain.
        if serializer != "yaml" {
            set.extend(["chained", "nesting 2"]);
        }
        told_in_full(broker, scene, &options, &set);
    }
}
on_brokers!(results_in_every_form: redis, rabbitmq_rpc);

/// Scenario: results in files, which the agent does not see, and which cannot count a chord's parts: Celery polls with
/// `celery.chord_unlock`, which retries until all are there.
/// Guarantees: every task is told in full, the polls included; the callback hangs on the poll that sent it and links to all
/// that the chord waited for.
#[test]
fn chord_unlock() {
    let Some(scene) = Scene::set("unlock", "celery57") else {
        return;
    };
    let results = scene.folder().join("results");
    std::fs::create_dir_all(&results).expect("a folder for results");
    let settings = format!(r#"{{"result_backend": "file://{}"}}"#, results.display());
    let scene = scene.with_settings(&settings);
    let set = ["simple 3", "chords 2", "retries", "failures 2", "nesting 2"];
    told_in_full(Broker::Redis, scene, &with_lives(), &set);
}
