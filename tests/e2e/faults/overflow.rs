//! A ring buffer that is too small.

use std::collections::HashSet;
use std::thread::sleep;
use std::time::Duration;

use super::{LIMIT, nothing_is_wrong};
use crate::check;
use crate::rig::worker::Options;
use crate::rig::{Agent, Publisher, Scene, Worker};

/// How long the agent reads nothing.
const STALLED: Duration = Duration::from_secs(3);

/// Scenario: a ring buffer of 256 KiB, and an agent that is stopped for three seconds while a client publishes 400 tasks a second and a
/// worker runs them.
/// Guarantees: records are lost, and counted as such; spans are missing, and none is wrong; what is published after that is told
/// in full.
#[test]
fn ring_buffer() {
    let Some(scene) = Scene::set("overflow", "celery57") else {
        return;
    };
    let options = ["--stats", "--ring-size", "256K"];
    let agent = Agent::start(scene.folder(), "agent", &scene.ports(), &options);
    let worker = Worker::start(&scene, "w1", &Options::default());
    let mut publisher = Publisher::start(&scene, "publisher");
    publisher.publish("simple 3");
    scene.settle(LIMIT);
    publisher.begin("load 1600 400");
    sleep(Duration::from_millis(300));
    agent.signal("STOP");
    sleep(STALLED);
    agent.signal("CONT");
    publisher.finish("load");
    scene.settle(LIMIT);
    let amid = scene.truth().published_ids();
    // What lost its end waits for it no longer.
    sleep(Duration::from_secs(4));
    publisher.publish("simple 3");
    publisher.publish("chained");
    scene.settle(LIMIT);
    drop(worker);
    let left = agent.stop();

    let lost = check::counters(&left.log)["records_lost"];
    assert!(lost > 1000, "{lost} records lost");
    let missing = |ids: &HashSet<String>| {
        2 * ids.len()
            - left
                .spans
                .iter()
                .filter(|span| check::of_tasks(ids)(span))
                .count()
    };
    assert!(missing(&amid) > 100, "{} spans missing", missing(&amid));
    nothing_is_wrong(&left.spans, &scene.whole_truth());

    let after = &scene.truth().published_ids() - &amid;
    scene.truth().forget_tasks_but(&after);
    check::spans_equal(&scene, &check::only(left, &after).0, &check::few_runs());
}
