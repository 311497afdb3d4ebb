//! Other versions, other serializers, other places for results: the same tasks in other forms.

use std::time::Duration;

use crate::check;
use crate::rig::worker::Options;
use crate::rig::{Agent, Publisher, Scene, Worker};
use crate::support::compare::Expect;

/// Plays scenarios on one worker and compares every span.
fn told_in_full(scene: Scene, options: &Options, scenarios: &[&str]) {
    let agent = Agent::start(scene.folder(), "agent", &[scene.port()], &["--stats"]);
    let worker = Worker::start(&scene, "w1", options);
    let mut publisher = Publisher::start(&scene, "publisher");
    for scenario in scenarios {
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

/// Scenario: Celery 4.4 with redis-py 3.5 and billiard 3.6: calls, chain, chord, retries, failures, nested calls.
/// Guarantees: every task is told in full.
#[test]
fn celery_44() {
    let Some(scene) = Scene::set("celery44", "celery44") else {
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
    told_in_full(scene, &with_lives(), &set);
}

/// What each serializer needs said: its name for tasks, results and what is accepted, and a compression to go with it.
fn serialized(serializer: &str, compression: &str, protocol: u8) -> String {
    format!(
        r#"{{"task_serializer": "{serializer}", "result_serializer": "{serializer}", "accept_content": ["{serializer}", "json"],
            "task_compression": "{compression}", "task_protocol": {protocol}}}"#
    )
}

/// Scenario: messages of protocol 1, whose body alone says what they are, in every serializer and compression: calls,
/// failures, retries, groups, nested calls.
/// Guarantees: every task is told in full, as far as protocol 1 says it: each is the root of its own trace.
#[test]
fn protocol_1_in_every_form() {
    for (serializer, compression) in [("pickle", "zlib"), ("yaml", "bzip2"), ("msgpack", "zstd")] {
        let Some(scene) = Scene::set(serializer, "pools") else {
            return;
        };
        let scene = scene.with_settings(&serialized(serializer, compression, 1));
        let mut set = vec!["simple 3", "failures 1", "retries", "grouped 3", "paced 5"];
        // YAML cannot hold the signature of a nested call's parent.
        if serializer != "yaml" {
            set.push("deepening 2");
        }
        told_in_full(scene, &with_lives(), &set);
    }
}

/// Scenario: tasks and results in every serializer, on threads: no pool pipe tells how a run ended, only its result.
/// Guarantees: every state and exception is told.
#[test]
fn results_in_every_form() {
    for (serializer, compression) in [("pickle", "zstd"), ("yaml", "zlib"), ("msgpack", "bzip2")] {
        let Some(scene) = Scene::set(serializer, "pools") else {
            return;
        };
        let scene = scene.with_settings(&serialized(serializer, compression, 2));
        let options = Options {
            arguments: vec!["--pool", "threads"],
            ..with_lives()
        };
        let set = [
            "simple 3",
            "failures 2",
            "retries",
            "retries",
            "retries",
            "grouped 3",
            "paced 5",
        ];
        told_in_full(scene, &options, &set);
    }
}

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
    told_in_full(scene, &with_lives(), &set);
}
