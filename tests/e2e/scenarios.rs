//! Everything Celery does, once, through one worker and one agent that was there before both.

use std::time::Duration;

use celeryscope_core::{Span, SpanKind};

use crate::check;
use crate::on_brokers::on_brokers;
use crate::rig::process::wait_for;
use crate::rig::report::{Spread, table};
use crate::rig::worker::Options;
use crate::rig::{Agent, Broker, Publisher, Scene, Worker};
use crate::support::compare::{Expect, text};

const ALL: &[&str] = &[
    "simple 5",
    "chained",
    "grouped 5",
    "chorded 4",
    "group_then_task",
    "nesting 3",
    "retries",
    "failures 2",
    "priorities",
    "ignoring",
    "callbacks",
    "replaces",
    "requeues",
    "traced",
    "control",
    "expiry",
    "eta",
    "losses",
    "revokes",
    "large 1",
    "large 10",
];

/// Scenario: plain calls, chain, group, chord, nested calls, retries, failures, ETA and expiry, priorities, ignored
/// results, callbacks, replace, Reject with and without requeue, time limits, a killed pool child, revoke before and
/// during a run, a traced client, remote control, 1 and 10 MiB of arguments; then a warm shutdown with prefetched
/// messages that a second worker takes over. Events are on.
/// Guarantees: one publish span for each publish and one run span for each attempt, with the right trace, parent,
/// name, state and attributes, and no span for polls, events, remote control, gossip, the unacked copy or a requeue.
fn every_kind_of_task(broker: Broker) {
    let Some(scene) = Scene::set_on(broker, "scenarios", "celery57") else {
        return;
    };
    let agent = Agent::start(scene.folder(), "agent", &scene.ports(), &["--stats"]);
    let options = Options {
        events: true,
        ..Options::default()
    };
    let first = Worker::start(&scene, "w1", &options);
    let mut publisher = Publisher::start(&scene, "publisher");
    for scenario in broker.possible(ALL) {
        publisher.publish(scenario);
    }
    scene.settle(Duration::from_secs(30));

    let before = scene.truth().received();
    publisher.publish("sleeping 6 1");
    wait_for(
        "six messages taken by the worker",
        Duration::from_secs(10),
        || (scene.truth().received() >= before + 6).then_some(()),
    );
    first.shut_down();
    let second = Worker::start(&scene, "w2", &options);
    scene.settle(Duration::from_secs(30));
    second.shut_down();

    let left = agent.stop();
    check::all_is_told(&scene, &left, &check::few_runs());
    resources_are_the_programs(&left.spans);
}
on_brokers!(every_kind_of_task: redis, rabbitmq, rabbitmq_rpc);

/// Spans belong to the programs that were watched, told apart by what /proc says of them.
fn resources_are_the_programs(spans: &[Span]) {
    for span in spans {
        let resource = |key: &str| {
            let found = span.process.resource.iter().find(|(name, _)| name == key);
            found.map(|(_, value)| value.as_str()).unwrap_or_default()
        };
        assert!(!resource("service.name").is_empty(), "no service.name: {span:?}");
        if span.kind == SpanKind::Run {
            // `celery -A app worker`
            assert_eq!(resource("service.name"), "app", "{span:?}");
            assert!(
                text(span, "celery.hostname").is_some_and(|name| name.starts_with('w')),
                "{span:?}"
            );
        }
    }
}

/// Scenario: 150 calls, each waited for before the next, on an otherwise idle worker.
/// Guarantees: 95 of 100 runs start within 2 ms of `task_prerun` and end within 2 ms of `task_postrun`; the table shows
/// how near.
fn runs_start_and_end_when_they_do(broker: Broker) {
    let Some(scene) = Scene::set_on(broker, "times", "celery57") else {
        return;
    };
    let agent = Agent::start(scene.folder(), "agent", &scene.ports(), &[]);
    let worker = Worker::start(&scene, "w1", &Options::default());
    let mut publisher = Publisher::start(&scene, "publisher");
    publisher.publish("paced 150");
    scene.settle(Duration::from_secs(10));
    drop(worker);
    let left = agent.stop();
    let report = check::all_is_told(&scene, &left, &Expect::default());
    let row = |what: &str, errors: &[Duration]| {
        let spread = Spread::of(errors.iter().map(|error| error.as_secs_f64() * 1e3).collect());
        let figures = [spread.min, spread.median, spread.p95, spread.max].map(|ms| format!("{ms:.3}"));
        [vec![what.to_owned(), spread.count.to_string()], figures.to_vec()].concat()
    };
    let rows = [
        row("start to task_prerun", report.starts()),
        row("end to task_postrun", report.ends()),
    ];
    table(
        "How far runs are from Celery's signals, in ms",
        &["", "runs", "min", "median", "p95", "max"],
        &rows,
    );
    assert!(
        report.starts().len() >= 100 && report.ends().len() >= 100,
        "too few runs for a percentile"
    );
}
on_brokers!(runs_start_and_end_when_they_do: redis, rabbitmq, rabbitmq_rpc);
