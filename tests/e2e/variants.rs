//! A representative set of tasks over other clients, address families, and orders of starting.

use std::time::Duration;

use crate::check;
use crate::on_brokers::on_brokers;
use crate::rig::agent::Left;
use crate::rig::loopback::{Family, free_port};
use crate::rig::report::say;
use crate::rig::worker::Options;
use crate::rig::{Agent, Broker, Publisher, Scene, Way, Worker};

pub(crate) const SET: &[&str] = &[
    "simple 3",
    "chained",
    "chorded 3",
    "retries",
    "requeues",
    "large 1",
    "forking 2 3",
    "paced 10",
];

/// When the agent comes: before any connection is open, or when worker and publisher have worked already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comes {
    First,
    Last,
}

fn run(name: &str, environment: &str, family: Family, comes: Comes) {
    run_on(Broker::Redis, name, environment, family, comes);
}

fn run_on(broker: Broker, name: &str, environment: &str, family: Family, comes: Comes) {
    if let Some(scene) = stage(broker, name, environment, family) {
        told_in_full(&scene, broker, comes, SET, Duration::from_secs(30));
    }
}

/// A stage that is reached this way; `None`, with a line that says why, where its loopback address is not there or live tests are
/// not asked for.
pub(crate) fn stage(broker: Broker, name: &str, environment: &str, way: impl Into<Way>) -> Option<Scene> {
    let way = way.into();
    let family = way.family;
    if !family.is_there() {
        say(&format!("{name}: skipped: this host has no {family:?} loopback"));
        return None;
    }
    Scene::set_over(way, broker, name, environment)
}

/// Plays the scenarios with an agent that comes first or last, and compares every span.
pub(crate) fn told_in_full(
    scene: &Scene,
    broker: Broker,
    comes: Comes,
    scenarios: &[&str],
    limit: Duration,
) -> Left {
    let watch = || Agent::watch(scene, "agent");
    let left = played(scene, broker, comes, scenarios, limit, watch).stop();
    check::all_is_told(scene, &left, &check::few_runs());
    left
}

/// Plays those of the scenarios that work there before whoever watches, one agent or several; `limit` is for the last message
/// to be dealt with. Whoever watches is then still there.
pub(crate) fn played<A>(
    scene: &Scene,
    broker: Broker,
    comes: Comes,
    scenarios: &[&str],
    limit: Duration,
    watch: impl FnOnce() -> A,
) -> A {
    let watching = match comes {
        Comes::First => Ok(watch()),
        Comes::Last => Err(watch),
    };
    let worker = Worker::start(scene, "w1", &Options::default());
    let mut publisher = match comes {
        Comes::First => Publisher::start_watched(scene, "publisher"),
        Comes::Last => Publisher::start(scene, "publisher"),
    };
    if comes == Comes::Last {
        // Opens the connections of worker, pool children and publisher that the agent then has to find.
        for scenario in broker.possible(&["simple 6", "paced 2"]) {
            publisher.publish(scenario);
        }
        scene.settle(Duration::from_secs(20));
        scene.truth().forget_tasks();
    }
    let watching = watching.unwrap_or_else(|watch| watch());
    for scenario in broker.possible(scenarios) {
        publisher.publish(scenario);
    }
    scene.settle(limit);
    drop(worker);
    watching
}

/// Scenario: redis-py 8 (RESP3) or py-amqp over ::1; worker and publisher were at work before the agent came.
/// Guarantees: connections and pool pipes that were open already are found, and every later task is told in full.
fn agent_comes_last_over_ipv6(broker: Broker) {
    run_on(broker, "last-v6", "celery57", Family::V6, Comes::Last);
}
on_brokers!(agent_comes_last_over_ipv6: redis, rabbitmq, rabbitmq_rpc);

/// Scenario: hiredis: one send for each command whatever its size, reads after MSG_PEEK.
/// Guarantees: bytes that were peeked at are not counted twice; every task is told in full.
#[test]
fn hiredis() {
    run("hiredis", "hiredis", Family::V4, Comes::First);
}

/// Scenario: hiredis over ::1, and the agent comes last.
/// Guarantees: as above.
#[test]
fn hiredis_and_agent_comes_last_over_ipv6() {
    run("hiredis-last-v6", "hiredis", Family::V6, Comes::Last);
}

/// Scenario: redis-py 6.4, which speaks RESP2.
/// Guarantees: every task is told in full.
#[test]
fn resp2() {
    run("resp2", "redis64", Family::V4, Comes::First);
}

/// Scenario: redis-py 6.4, and the agent comes last.
/// Guarantees: the protocol version of a connection whose beginning was not seen is found out.
#[test]
fn resp2_and_agent_comes_last() {
    run("resp2-last", "redis64", Family::V4, Comes::Last);
}

/// Scenario: agents that watch another port, one from before a worker started and one that comes later.
/// Guarantees: neither makes a span of what goes over a broker that it was not told to watch, pool pipes included.
fn other_brokers_are_left_alone(broker: Broker) {
    let Some(scene) = Scene::set_on(broker, "other", "celery57") else {
        return;
    };
    let start_agent = |name| Agent::start(scene.folder(), name, &[free_port()], &["--stats"]);
    let early = start_agent("early");
    let worker = Worker::start(&scene, "w1", &Options::default());
    let mut publisher = Publisher::start(&scene, "publisher");
    publisher.publish("simple 3");
    scene.settle(Duration::from_secs(20));
    let late = start_agent("late");
    for scenario in ["simple 3", "chained", "retries"] {
        publisher.publish(scenario);
    }
    scene.settle(Duration::from_secs(20));
    drop(worker);
    for agent in [early, late] {
        let left = agent.stop();
        check::nothing_lost(&left);
        assert_eq!(left.spans, [], "{}", left.log);
    }
}
on_brokers!(other_brokers_are_left_alone: redis, rabbitmq);
