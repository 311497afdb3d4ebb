//! Connections that end in the middle.

use std::time::Duration;

use super::LIMIT;
use crate::check;
use crate::on_brokers::on_brokers;
use crate::rig::process::wait_for;
use crate::rig::worker::Options;
use crate::rig::{Agent, Broker, Publisher, Scene, Tls, Worker};

const SET: &[&str] = &["simple 3", "chained", "retries", "large 1"];

/// Scenario: SIGKILL to the broker while a client publishes 400 tasks a second and a worker runs them: every session is reset in
/// mid-stream. It comes back on its port; the worker connects again by itself, a new client comes.
/// Guarantees: the agent goes on; tasks from before that and from after it are told in full, those in the midst of it don't mislead it.
fn broker_is_killed(broker: Broker) {
    let Some(mut scene) = Scene::set_over(Tls::V13, broker, "killed", "celery57") else {
        return;
    };
    let mut agent = Agent::watch(&scene, "agent");
    let worker = Worker::start(&scene, "w1", &Options::default());
    let publish_set = |scene: &Scene, name: &str| {
        let mut publisher = Publisher::start(scene, name);
        for scenario in SET {
            publisher.publish(scenario);
        }
        scene.settle(LIMIT);
    };
    publish_set(&scene, "before");
    let mut kept = scene.truth().published_ids();

    // Whether this one survives is no matter: what it was told last, nobody will answer.
    let mut unlucky = Publisher::start(&scene, "unlucky");
    unlucky.begin("load 4000 400");
    wait_for("a client at work", Duration::from_secs(20), || {
        (scene.truth().published_ids().len() >= kept.len() + 150).then_some(())
    });
    scene.servers().kill_broker();
    scene.servers().start_broker_again();
    drop(unlucky);
    assert!(agent.alive(), "the agent fell over: {}", agent.log());

    let amid = scene.truth().published_ids();
    scene.truth().forget_tasks_but(&kept);
    publish_set(&scene, "after");
    kept.extend(&scene.truth().published_ids() - &amid);
    drop(worker);
    let left = agent.stop();
    check::nothing_lost(&left);
    // What the broker had stored has run since.
    scene.truth().forget_tasks_but(&kept);
    check::spans_equal(&scene, &check::only(left, &kept).0, &check::few_runs());
}
on_brokers!(broker_is_killed: redis, rabbitmq);
