//! Workers that have nothing to do.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use crate::check;
use crate::rig::loopback::Family;
use crate::rig::process::wait_for;
use crate::rig::report::say;
use crate::rig::worker::Options;
use crate::rig::{Agent, Broker, Publisher, Scene, Tls, Way, Worker};

/// How long a worker is idle: so many polls, one a second.
const IDLE: Duration = Duration::from_secs(6);

/// Numbers of a running agent, as SIGUSR1 has it print them.
fn numbers(agent: &Agent) -> BTreeMap<String, u64> {
    let printed = |log: &str| log.matches("\ngauge attempts_limit=").count();
    let before = printed(&agent.log());
    agent.signal("USR1");
    wait_for("the numbers on standard error", Duration::from_secs(10), || {
        (printed(&agent.log()) > before).then_some(())
    });
    check::counters(&agent.log())
}

/// Some work, a pause, some work: the pause makes no records to speak of, and the work is told in full. Nothing is a gap; over TLS, nothing
/// from the pause on.
fn pause(way: impl Into<Way>, broker: Broker, name: &str, environment: &str, left_out: &str) {
    let Some(scene) = Scene::set_over(way, broker, name, environment) else {
        return;
    };
    // A heartbeat a second each way; and none of Celery's own, which are messages with something to say.
    let scene = scene.with_settings(r#"{"broker_heartbeat": 2}"#);
    let agent = Agent::watch(&scene, "agent");
    let options = Options {
        arguments: vec!["--without-heartbeat", "--without-gossip", "--without-mingle"],
        ..Options::default()
    };
    let worker = Worker::start(&scene, "w1", &options);
    let mut publisher = Publisher::start_watched(&scene, "publisher");
    publisher.publish("simple 3");
    scene.settle(Duration::from_secs(20));
    // The first poll after work is told, and its answer.
    sleep(Duration::from_secs(2));
    let before = numbers(&agent);
    sleep(IDLE);
    let after = numbers(&agent);
    let grown = |name: &str| after[name] - before[name];
    let (records, idle) = (grown("records"), grown(left_out));
    say(&format!(
        "{name}: {records} records and {idle} {left_out} in {IDLE:?}"
    ));
    assert!(
        records <= 3,
        "{records} records of an idle worker: {before:?} {after:?}"
    );
    assert!(idle >= 3, "{idle} {left_out}: the worker did nothing at all");
    assert_eq!(
        grown("records_idle"),
        0,
        "what is left out is told when something else is"
    );

    for scenario in ["chained", "simple 3", "retries"] {
        publisher.publish(scenario);
    }
    scene.settle(Duration::from_secs(20));
    drop(worker);
    let left = agent.stop();
    check::all_is_told(&scene, &left, &check::few_runs());
    let counters = check::counters(&left.log);
    assert!(counters["stream_idle_bytes"] > 0, "{counters:?}");
    assert!(
        counters["stream_idle_bytes"] <= counters["idle_bytes"],
        "{counters:?}"
    );
    // What the worker says over TLS before its probes are in is a gap: at the beginning, not here, and in clear nowhere.
    let over_tls = scene.identity().is_some();
    for none in [
        "stream_gaps",
        "resp_sync_losses",
        "amqp_sync_losses",
        "commands_unpaired",
        "replies_unpaired",
        "implied_unknown",
    ] {
        let begun = if over_tls { before[none] } else { 0 };
        assert_eq!(counters[none], begun, "{none}: {before:?} {counters:?}");
    }
}

/// Scenario: a worker on Redis works, is idle for some seconds, and works; RESP3.
/// Guarantees: its polls make no records while it is idle; every task before and after is told in full, and nothing is a gap.
#[test]
fn redis() {
    pause(Family::V4, Broker::Redis, "idle-resp3", "celery57", "idle_polls");
}

/// Scenario: the same over RESP2.
/// Guarantees: the same.
#[test]
fn redis_of_old() {
    pause(Family::V4, Broker::Redis, "idle-resp2", "redis64", "idle_polls");
}

/// Scenario: the same over TLS.
/// Guarantees: the same, but that nothing is a gap from the pause on.
#[test]
fn redis_over_tls() {
    pause(Tls::V13, Broker::Redis, "idle-tls", "celery57", "idle_polls");
}

/// Scenario: the same on RabbitMQ, with heartbeats.
/// Guarantees: the same of heartbeats.
#[test]
fn rabbitmq() {
    pause(
        Family::V4,
        Broker::RabbitMq,
        "idle-rabbitmq",
        "celery57",
        "heartbeats",
    );
}
