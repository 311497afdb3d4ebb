//! What only RabbitMQ has: frames, channels, confirms, quorum queues with native delayed delivery, heartbeats, and a broker that
//! comes back with what it held.

use std::time::Duration;

use celeryscope_core::SpanKind;

use crate::check;
use crate::rig::agent::Left;
use crate::rig::process::wait_for;
use crate::rig::worker::Options;
use crate::rig::{Agent, Broker, Publisher, Scene, Worker};
use crate::support::compare::{self, Expect, text};
use crate::variants::{Comes, told_in_full};

const SET: &[&str] = &[
    "simple 3",
    "chained",
    "chorded 3",
    "retries",
    "requeues",
    "large 1",
    "large 10",
    "channels 12",
    "paced 20",
];

/// Worker and publisher with these settings of the application, before which or after which the agent comes.
fn run(name: &str, settings: &str, comes: Comes) -> Option<Left> {
    let scene = Scene::set_on(Broker::RabbitMq, name, "celery57")?.with_settings(settings);
    let limit = Duration::from_secs(40);
    Some(told_in_full(&scene, Broker::RabbitMq, comes, SET, limit))
}

/// Scenario: frames of 4096 bytes at most, the least that AMQP allows: 10 MiB are more than 2,500 of them.
/// Guarantees: messages are put together from their frames; every task is told in full.
#[test]
fn small_frames() {
    run(
        "frames",
        r#"{"broker_transport_options": {"frame_max": 4096}}"#,
        Comes::First,
    );
}

/// Scenario: the same, and the agent comes after the connections were tuned.
/// Guarantees: as above, without having seen what frame size was agreed on.
#[test]
fn small_frames_and_agent_comes_last() {
    run(
        "frames-last",
        r#"{"broker_transport_options": {"frame_max": 4096}}"#,
        Comes::Last,
    );
}

/// How long publishes of small tasks took, in ms: the median.
fn publish_took(left: &Left) -> f64 {
    let publishes = left
        .spans
        .iter()
        .filter(|span| span.kind == SpanKind::Publish && text(span, "celery.task_name") == Some("app.add"));
    let took: Vec<_> = publishes
        .map(|span| Duration::from_nanos(span.end.0 - span.start.0))
        .collect();
    compare::quantile(&took, 50).as_secs_f64() * 1e3
}

/// Scenario: publishes without and with confirms by the broker.
/// Guarantees: a publish that is confirmed lasts until the broker's answer, which takes longer than the write that ends one
/// that is not; none is left unanswered.
#[test]
fn confirms() {
    let Some(without) = run("confirms-off", "{}", Comes::First) else {
        return;
    };
    let on = r#"{"broker_transport_options": {"confirm_publish": true}}"#;
    let Some(with) = run("confirms-on", on, Comes::First) else {
        return;
    };
    for left in [&without, &with] {
        assert_eq!(check::counters(&left.log)["publishes_unanswered"], 0);
    }
    let (written, answered) = (publish_took(&without), publish_took(&with));
    assert!(
        answered > 2.0 * written,
        "confirmed publishes take {answered:.3} ms, others {written:.3}"
    );
}

/// Scenario: the same, and the agent comes when confirms are on already and some publishes are confirmed.
/// Guarantees: no confirm is taken for another's: publishes end with their last byte.
#[test]
fn confirms_and_agent_comes_last() {
    run(
        "confirms-last",
        r#"{"broker_transport_options": {"confirm_publish": true}}"#,
        Comes::Last,
    );
}

/// Scenario: quorum queues, where a countdown is waited for in the broker (native delayed delivery).
/// Guarantees: every task is told in full; the wait in the broker is no time in the queue; the delay is not part of the
/// destination's name.
#[test]
fn quorum_queues_with_countdown() {
    let Some(scene) = Scene::set_on(Broker::RabbitMq, "quorum", "celery57") else {
        return;
    };
    let scene = scene.with_settings(
        r#"{"task_default_queue_type": "quorum", "task_default_exchange": "tasks", "task_default_exchange_type": "topic"}"#,
    );
    let agent = Agent::start(scene.folder(), "agent", &scene.ports(), &["--stats"]);
    let worker = Worker::start(&scene, "w1", &Options::default());
    let mut publisher = Publisher::start(&scene, "publisher");
    for scenario in ["simple 3", "countdown 3", "chained", "paced 10"] {
        publisher.publish(scenario);
    }
    scene.settle(Duration::from_secs(30));
    drop(worker);
    let left = agent.stop();
    check::all_is_told(&scene, &left, &check::few_runs());
    let to = |kind, destination| {
        let spans = left.spans.iter().filter(|span| span.kind == kind);
        spans
            .filter(|span| text(span, "messaging.destination.name") == Some(destination))
            .count()
    };
    assert_eq!(to(SpanKind::Publish, "celery_delayed_27:celery"), 3);
    assert_eq!(to(SpanKind::Run, "celery_delayed_delivery:celery"), 3);
}

/// Scenario: a heartbeat each second on the connections of a worker that idles for some seconds.
/// Guarantees: heartbeats are neither lost sync nor messages; what comes after them is told in full.
#[test]
fn heartbeats() {
    let Some(scene) = Scene::set_on(Broker::RabbitMq, "heartbeats", "celery57") else {
        return;
    };
    let scene = scene.with_settings(r#"{"broker_heartbeat": 2}"#);
    let agent = Agent::start(scene.folder(), "agent", &scene.ports(), &["--stats"]);
    let worker = Worker::start(&scene, "w1", &Options::default());
    std::thread::sleep(Duration::from_secs(6));
    // A client that sends no heartbeats would be cut off meanwhile.
    let mut publisher = Publisher::start(&scene, "publisher");
    for scenario in ["simple 3", "sleeping 2 3", "chained"] {
        publisher.publish(scenario);
    }
    scene.settle(Duration::from_secs(20));
    drop(worker);
    check::all_is_told(&scene, &agent.stop(), &check::few_runs());
}

/// Scenario: the broker is stopped while tasks run and others wait for a free child, all acked late, and started again with
/// its data; the worker connects again by itself, a new client sends more.
/// Guarantees: one publish each, one run for each attempt; those whose ack came too late are made again in the same trace,
/// marked as redelivered.
#[test]
fn broker_goes_and_comes_back() {
    let Some(mut scene) = Scene::set_on(Broker::RabbitMq, "restart", "celery57") else {
        return;
    };
    let agent = Agent::start(scene.folder(), "agent", &scene.ports(), &["--stats"]);
    let options = Options {
        include: vec!["lives"],
        ..Options::default()
    };
    let worker = Worker::start(&scene, "w1", &options);
    let mut first = Publisher::start(&scene, "first");
    first.publish("simple 3");
    first.publish("lasting 6 1.5");
    wait_for("messages taken by the worker", Duration::from_secs(10), || {
        (scene.truth().received() >= 9).then_some(())
    });
    scene.rabbitmq().stop();
    scene.rabbitmq().start_again();
    first.publish("simple 2");
    let mut second = Publisher::start(&scene, "second");
    for scenario in ["simple 3", "chained", "retries"] {
        second.publish(scenario);
    }
    scene.settle(Duration::from_secs(60));
    drop(worker);
    let expect = Expect {
        acks_unread: true,
        ..check::few_runs()
    };
    check::all_is_told(&scene, &agent.stop(), &expect);
    let truth = scene.whole_truth();
    let again = truth.runs().filter(|(_, run)| run.redelivered == Some(true));
    assert!(again.count() > 0, "no run was made again: the test tests nothing");
}

/// Scenario: tasks sent to a queue that nobody consumes from, which lets them expire into the worker's queue by a dead-letter
/// exchange.
/// Guarantees: one publish and one run each, in one trace; the publish names the first queue, the run the way it came.
#[test]
fn dead_letters() {
    let Some(scene) = Scene::set_on(Broker::RabbitMq, "dead-letters", "celery57") else {
        return;
    };
    let agent = Agent::start(scene.folder(), "agent", &scene.ports(), &["--stats"]);
    let worker = Worker::start(&scene, "w1", &Options::default());
    let mut publisher = Publisher::start(&scene, "publisher");
    publisher.publish("parked 3");
    scene.settle(Duration::from_secs(20));
    drop(worker);
    let left = agent.stop();
    check::nothing_lost(&left);
    let of = |kind| left.spans.iter().filter(move |span| span.kind == kind);
    let truth = scene.whole_truth();
    assert_eq!((truth.publishes().count(), truth.runs().count()), (3, 3));
    assert_eq!((of(SpanKind::Publish).count(), of(SpanKind::Run).count()), (3, 3));
    let destination = |span| text(span, "messaging.destination.name");
    for run in of(SpanKind::Run) {
        let publish = of(SpanKind::Publish).find(|publish| Some(publish.span_id) == run.parent);
        let publish = publish.unwrap_or_else(|| panic!("no publish is the parent of {run:?}"));
        assert_eq!(publish.trace_id, run.trace_id);
        assert_eq!(destination(publish), Some("parked"));
        assert_eq!(destination(run), Some("passed:celery"));
        let tag = compare::int(run, "messaging.rabbitmq.message.delivery_tag");
        assert!(tag.is_some_and(|tag| tag > 0), "{run:?}");
    }
}
