//! Programs that end by SIGKILL.

use std::time::Duration;

use super::{LIMIT, nothing_is_wrong};
use crate::check;
use crate::on_brokers::on_brokers;
use crate::rig::process::wait_for;
use crate::rig::worker::Options;
use crate::rig::{Agent, Broker, Publisher, Scene, Worker};

/// Waits until a client has sent so many messages more.
fn sent(scene: &Scene, more: usize) {
    let least = scene.truth().published_ids().len() + more;
    wait_for("a client at work", Duration::from_secs(20), || {
        (scene.truth().published_ids().len() >= least).then_some(())
    });
}

/// Scenario: SIGKILL to a client that publishes 400 tasks a second; another comes after it.
/// Guarantees: what both sent is told in full. Of the killed one's last message the broker may know what the client could not say.
fn publisher(broker: Broker) {
    let Some(scene) = Scene::set_on(broker, "publisher-killed", "celery57") else {
        return;
    };
    let agent = Agent::watch(&scene, "agent");
    let worker = Worker::start(&scene, "w1", &Options::default());
    let mut victim = Publisher::start(&scene, "victim");
    victim.begin("load 4000 400");
    sent(&scene, 300);
    victim.kill();
    Publisher::start(&scene, "next").publish("simple 3");
    scene.settle(LIMIT);
    drop(worker);
    let left = agent.stop();
    check::nothing_lost(&left);
    let ids = scene.truth().published_ids();
    let (told, last) = check::only(left, &ids);
    assert!(last.len() <= 2, "made up: {last:?}");
    scene.truth().forget_tasks_but(&ids);
    check::spans_equal(&scene, &told, &check::few_runs());
}
on_brokers!(publisher: redis, rabbitmq);

/// Scenario: SIGKILL to the agent while a client publishes 200 tasks a second and a worker runs them; another agent is started while all
/// connections are open.
/// Guarantees: what is published once the other is ready is told in full; of what either told before and in between nothing is
/// wrong.
fn agent(broker: Broker) {
    let Some(scene) = Scene::set_on(broker, "agent-killed", "celery57") else {
        return;
    };
    let first = Agent::watch(&scene, "first");
    let worker = Worker::start(&scene, "w1", &Options::default());
    let mut publisher = Publisher::start(&scene, "publisher");
    publisher.begin("load 2000 200");
    sent(&scene, 300);
    first.signal("KILL");
    let early = first.ended();
    assert!(early.len() > 100, "{} spans of the first agent", early.len());
    let second = Agent::watch(&scene, "second");
    // What was on its way when it came it may have seen in part.
    sent(&scene, 20);
    let before = scene.truth().published_ids();
    publisher.finish("load");
    scene.settle(LIMIT);
    drop(worker);
    let left = second.stop();
    check::nothing_lost(&left);
    let truth = scene.whole_truth();
    nothing_is_wrong(&early, &truth);
    nothing_is_wrong(&left.spans, &truth);

    let after = &scene.truth().published_ids() - &before;
    assert!(
        after.len() > 400,
        "{} tasks after the second agent came",
        after.len()
    );
    scene.truth().forget_tasks_but(&after);
    check::spans_equal(&scene, &check::only(left, &after).0, &check::few_runs());
}
on_brokers!(agent: redis, rabbitmq);
