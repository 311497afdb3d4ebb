//! Programs that end by SIGKILL.

use std::collections::HashSet;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{LIMIT, nothing_is_wrong};
use crate::check;
use crate::on_brokers::on_brokers;
use crate::rig::loopback::Family;
use crate::rig::process::{wait_for, within};
use crate::rig::way::Way;
use crate::rig::worker::Options;
use crate::rig::{Agent, Broker, Publisher, Scene, Worker};
use crate::support::compare::text;
use crate::support::truth::Run;

/// What is published before the broker is killed, and after.
const SET: &[&str] = &["simple 3", "chained", "retries", "large 1"];
/// After how long a message that was taken from Redis and not acked goes back.
const VISIBLE: Duration = Duration::from_secs(2);
/// What ended this long before its main process was killed, in s, may have been of concern to it yet: the call that carries an ack over TLS
/// is told when it returns.
const AMID: f64 = 0.2;

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

/// Scenario: SIGHUP to the agent, as when its terminal is closed, right after a client has published.
/// Guarantees: it ends, and has told what was published.
#[test]
fn terminal() {
    let Some(scene) = Scene::set("terminal-closed", "celery57") else {
        return;
    };
    let agent = Agent::watch(&scene, "agent");
    let mut client = Publisher::start(&scene, "client");
    client.publish("load 50 50");
    agent.signal("HUP");
    let spans = agent.ended();
    let told: HashSet<String> = spans
        .iter()
        .filter_map(|span| text(span, "messaging.message.id").map(str::to_owned))
        .collect();
    assert_eq!(told, scene.truth().published_ids());
}

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

/// Scenario: SIGKILL to the broker while a client publishes 400 tasks a second and a worker runs them. It comes back on its port; the
/// worker connects again by itself, or falls over, as Celery 5.7 does on Redis where messages were not acked yet (kombu restores them by a
/// transport that it has closed), and is started again; a new client comes.
/// Guarantees: the agent goes on; tasks from before that and from after it are told in full, those in the midst of it don't mislead it.
fn broker(broker: Broker) {
    broker_over(Family::V4, broker);
}
on_brokers!(broker: redis, rabbitmq);

/// The same over TLS, or in clear.
pub(crate) fn broker_over(way: impl Into<Way>, broker: Broker) {
    let Some(mut scene) = Scene::set_over(way, broker, "killed", "celery57") else {
        return;
    };
    let mut agent = Agent::watch(&scene, "agent");
    let mut workers = vec![Worker::start(&scene, "w1", &Options::default())];
    let publish_set = |scene: &Scene, name: &str| {
        let mut publisher = Publisher::start_watched(scene, name);
        for scenario in SET {
            publisher.publish(scenario);
        }
    };
    publish_set(&scene, "before");
    scene.settle(LIMIT);
    let mut kept = scene.truth().published_ids();

    // Whether this one survives is no matter: what it was told last, nobody will answer.
    let mut unlucky = Publisher::start(&scene, "unlucky");
    unlucky.begin("load 4000 400");
    sent(&scene, 150);
    scene.servers().kill_broker();
    scene.servers().start_broker_again();
    drop(unlucky);
    assert!(agent.alive(), "the agent fell over: {}", agent.log());

    let amid = scene.truth().published_ids();
    scene.truth().forget_tasks_but(&kept);
    let taken = scene.truth().received();
    publish_set(&scene, "after");
    let fell_over = wait_for("a worker that is back or gone", LIMIT, || {
        let gone = workers[0].has_ended();
        (gone || scene.truth().received() > taken).then_some(gone)
    });
    if fell_over {
        workers.push(Worker::start(&scene, "w2", &Options::default()));
    }
    scene.settle(LIMIT);
    kept.extend(&scene.truth().published_ids() - &amid);
    drop(workers);
    let left = agent.stop();
    check::nothing_lost(&left);
    // What the broker had stored has run since.
    scene.truth().forget_tasks_but(&kept);
    check::spans_equal(&scene, &check::only(left, &kept).0, &check::few_runs());
}

/// Scenario: SIGKILL to a worker's main process while a client publishes 400 tasks a second; some seconds later another takes over. The
/// visibility timeout is short.
/// Guarantees: one publish each, one run for each attempt; what had to be run again follows in the same trace, marked as redelivered. Of
/// what the main process was at when it was killed something may be missing, and nothing is wrong.
fn worker(broker: Broker) {
    worker_over(Family::V4, broker);
}
on_brokers!(worker: redis, rabbitmq);

/// The same over TLS, or in clear.
pub(crate) fn worker_over(way: impl Into<Way>, broker: Broker) {
    let Some(scene) = Scene::set_over(way, broker, "worker-killed", "celery57") else {
        return;
    };
    // RabbitMQ itself sees that a worker is gone.
    let scene = match broker {
        Broker::Redis => scene.with_settings(r#"{"broker_transport_options": {"visibility_timeout": 2}}"#),
        _ => scene,
    };
    let agent = Agent::watch(&scene, "agent");
    let victim = Worker::start(&scene, "victim", &Options::default());
    let mut publisher = Publisher::start_watched(&scene, "publisher");
    publisher.begin("load 1600 400");
    sent(&scene, 400);
    let (killed, at) = (victim.pid(), now());
    victim.end("KILL");
    // A worker on Redis looks for what others left when it starts, and not again for a while.
    sleep(VISIBLE + Duration::from_millis(200));
    let next = Worker::start(&scene, "next", &Options::default());
    publisher.finish("load");
    // kombu takes a message off Redis's list before it notes that it has it: one of which it was about to is gone with it.
    let gone = usize::from(broker == Broker::Redis);
    wait_for("all messages dealt with but one", LIMIT, || {
        (scene.truth().unsettled().len() <= gone).then_some(())
    });
    within(Duration::from_secs(5), || {
        scene.truth().unsettled().is_empty().then_some(())
    });
    let gone = scene.truth().unsettled();
    sleep(Duration::from_millis(300));
    drop(next);
    let left = agent.stop();
    check::nothing_lost(&left);

    let truth = scene.whole_truth();
    let is_amid = |run: &Run| truth.leader(run.pid) == killed && run.end.is_none_or(|end| end > at - AMID);
    let amid: HashSet<String> = truth
        .runs()
        .filter(|(_, run)| is_amid(run))
        .map(|(task, _)| task.id.clone())
        .collect();
    nothing_is_wrong(&left.spans, &truth);
    let mut others = &scene.truth().published_ids() - &amid;
    others.retain(|id| !gone.iter().any(|message| message.contains(id)));
    assert!(others.len() > 1400, "{} tasks beside the kill", others.len());
    scene.truth().forget_tasks_but(&others);
    check::spans_equal(&scene, &check::only(left, &others).0, &check::few_runs());
}

/// The wall clock, in s.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_secs_f64()
}
