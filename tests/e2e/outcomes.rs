//! How attempts end other than by returning: each end told as it was, whoever brought it about.

use std::time::Duration;

use celeryscope_core::{Span, SpanKind};

use crate::check;
use crate::on_brokers::on_brokers;
use crate::rig::process::wait_for;
use crate::rig::worker::Options;
use crate::rig::{Agent, Broker, Publisher, Scene, Worker};
use crate::support::compare::text;
use crate::support::truth::{Task, Truth};

fn options(arguments: &[&'static str]) -> Options {
    Options {
        include: vec!["lives"],
        arguments: arguments.to_vec(),
        ..Options::default()
    }
}

/// The states of a task's runs, sorted.
fn states<'a>(spans: &'a [Span], task: &str) -> Vec<&'a str> {
    let runs = spans.iter().filter(|span| span.kind == SpanKind::Run);
    let mut states: Vec<_> = runs
        .filter(|span| text(span, "celery.task_name") == Some(task))
        .map(|span| text(span, "celery.state").unwrap_or("-"))
        .collect();
    states.sort_unstable();
    states
}

/// Runs whose process was killed end when it was.
fn ends_at_the_kill(spans: &[Span], truth: &Truth) {
    for task in &truth.tasks {
        for kill in task.other.iter().filter(|other| other.ev == "killing") {
            let at = kill.t.expect("the time of a kill");
            let off = spans
                .iter()
                .filter(|span| span.kind == SpanKind::Run && text(span, "celery.task_id") == Some(&task.id))
                .map(|span| (span.end.0 as f64 / 1e9 - at).abs())
                .fold(f64::INFINITY, f64::min);
            assert!(
                off < 0.05,
                "{}: no run ends within 50 ms of the kill; the nearest is {off:.3} s away",
                task.id
            );
        }
    }
}

/// Scenario: messages revoked before they came, expired, of an unknown task; runs that are ignored, rejected with and
/// without requeue, over the soft and the hard limit, revoked with a signal while they run.
/// Guarantees: one run for each attempt with its state; messages that no pool got have one run of no length that says
/// REVOKED or FAILURE. Where there are no results it says nothing, and of a run that was stopped no reason.
fn disposed_limited_and_terminated(broker: Broker) {
    let Some(scene) = Scene::set_on(broker, "ends", "celery57") else {
        return;
    };
    let agent = Agent::start(scene.folder(), "agent", &scene.ports(), &["--stats"]);
    let worker = Worker::start(&scene, "w1", &options(&[]));
    let mut publisher = Publisher::start(&scene, "publisher");
    for scenario in ["disposed", "limits", "terminating 3"] {
        publisher.publish(scenario);
        scene.settle(Duration::from_secs(40));
    }
    drop(worker);
    let left = agent.stop();
    check::all_is_told(&scene, &left, &check::few_runs());
    let of = |task| states(&left.spans, task);
    let told = |state, else_seen| if broker.has_results() { state } else { else_seen };
    assert_eq!(
        of("app.add"),
        [told("REVOKED", "-"); 6],
        "revoked before the start, and expired"
    );
    assert_eq!(
        of("app.nowhere"),
        [told("FAILURE", "-"); 3],
        "unknown to the worker"
    );
    assert_eq!(of("app.ignored"), ["IGNORED"; 3]);
    assert_eq!(of("app.rejected"), ["REJECTED"; 3]);
    assert_eq!(
        of("app.requeued"),
        [
            "REJECTED", "REJECTED", "REJECTED", "SUCCESS", "SUCCESS", "SUCCESS"
        ]
    );
    assert_eq!(of("app.soft_limited"), ["FAILURE"; 3]);
    assert_eq!(of("app.hard_limited"), [told("FAILURE", "LOST"); 3]);
    assert_eq!(
        of("app.slow"),
        [told("REVOKED", "LOST"); 3],
        "terminated while they ran"
    );
    let error = |task, wanted: &str| {
        let runs = left.spans.iter().filter(|span| span.kind == SpanKind::Run);
        let runs: Vec<_> = runs
            .filter(|span| text(span, "celery.task_name") == Some(task))
            .collect();
        for span in runs {
            let error = text(span, "error.type").unwrap_or_default();
            assert!(
                error.ends_with(wanted),
                "error.type {error} of {task}: want {wanted}"
            );
        }
    };
    error("app.nowhere", told("NotRegistered", ""));
    error("app.soft_limited", "SoftTimeLimitExceeded");
    error("app.hard_limited", told("TimeLimitExceeded", "WorkerLostError"));
}
on_brokers!(disposed_limited_and_terminated: redis, rabbitmq, rabbitmq_rpc, rabbitmq_without_results);

/// Scenario: `kill -9` of pool children in mid-task; half of the tasks are acked late and rejected on loss.
/// Guarantees: each run ends at the kill as LOST; those whose message went back run again, marked as redelivered, in the
/// same trace.
fn killed_children(broker: Broker) {
    let Some(scene) = Scene::set_on(broker, "killed", "celery57") else {
        return;
    };
    let agent = Agent::start(scene.folder(), "agent", &scene.ports(), &["--stats"]);
    let worker = Worker::start(&scene, "w1", &options(&["-c", "3"]));
    let mut publisher = Publisher::start(&scene, "publisher");
    publisher.publish("killing 4");
    scene.settle(Duration::from_secs(60));
    drop(worker);
    let left = agent.stop();
    check::all_is_told(&scene, &left, &check::few_runs());
    // More than four where a child died before the pool knew that it had the job: the next child gets it as well.
    let truth = scene.whole_truth();
    let kills = |name: &str| {
        let called = |task: &&Task| task.publishes.iter().any(|publish| publish.name == name);
        let happenings = truth.tasks.iter().filter(called).flat_map(|task| &task.other);
        happenings.filter(|other| other.ev == "killing").count()
    };
    let [early, once] = ["lives.killed_early", "lives.killed_once"].map(kills);
    assert!(early >= 4 && once >= 4, "{early} and {once} kills");
    assert_eq!(states(&left.spans, "lives.killed_early"), vec!["LOST"; early]);
    let wanted = [vec!["LOST"; once], vec!["SUCCESS"; 4]].concat();
    assert_eq!(states(&left.spans, "lives.killed_once"), wanted);
    ends_at_the_kill(&left.spans, &truth);
}
on_brokers!(killed_children: redis, rabbitmq, rabbitmq_rpc, rabbitmq_without_results);

/// Scenario: four workers one after the other, each with tasks running and tasks prefetched, all acked late: the first is told
/// SIGTERM (warm shutdown), the second SIGQUIT (cold shutdown), the main process of the third is killed, the fourth does
/// what is left. The visibility timeout is short.
/// Guarantees: one publish each, one run for each attempt; an attempt that had to be made again follows in the same
/// trace, marked as redelivered.
fn workers_that_go(broker: Broker) {
    let Some(scene) = Scene::set_on(broker, "going", "celery57") else {
        return;
    };
    // RabbitMQ itself sees that a worker is gone.
    let scene = if broker == Broker::Redis {
        scene.with_settings(r#"{"broker_transport_options": {"visibility_timeout": 2}}"#)
    } else {
        scene
    };
    let agent = Agent::start(scene.folder(), "agent", &scene.ports(), &["--stats"]);
    let mut publisher = Publisher::start(&scene, "publisher");
    let busy = |name: &str, publisher: &mut Publisher, scenario: &str, taken: usize| {
        let before = scene.truth().received();
        let worker = Worker::start(&scene, name, &options(&[]));
        publisher.publish(scenario);
        wait_for("messages taken by the worker", Duration::from_secs(15), || {
            (scene.truth().received() >= before + taken).then_some(())
        });
        std::thread::sleep(Duration::from_millis(200));
        worker
    };
    busy("w1", &mut publisher, "lasting 6 0.8", 6).shut_down();
    busy("w2", &mut publisher, "lasting 2 0.8", 4).end("QUIT");
    let third = busy("w3", &mut publisher, "lasting 2 0.8", 4);
    third.signal("KILL");
    std::thread::sleep(Duration::from_millis(2200));
    let fourth = Worker::start(&scene, "w4", &options(&[]));
    scene.settle(Duration::from_secs(40));
    drop((third, fourth));
    let left = agent.stop();
    check::all_is_told(&scene, &left, &check::few_runs());
}
on_brokers!(workers_that_go: redis, rabbitmq, rabbitmq_rpc);

/// Scenario: 120 tasks on children that are replaced after each task.
/// Guarantees: nothing is lost or told twice; each run has its own child.
fn recycled_children(broker: Broker) {
    let Some(scene) = Scene::set_on(broker, "recycled", "celery57") else {
        return;
    };
    let agent = Agent::start(scene.folder(), "agent", &scene.ports(), &["--stats"]);
    let worker = Worker::start(&scene, "w1", &options(&["--max-tasks-per-child", "1"]));
    let mut publisher = Publisher::start(&scene, "publisher");
    publisher.publish("recycling 120");
    scene.settle(Duration::from_secs(60));
    drop(worker);
    let left = agent.stop();
    check::all_is_told(&scene, &left, &check::few_runs());
    assert_eq!(states(&left.spans, "app.add"), ["SUCCESS"; 120]);
}
on_brokers!(recycled_children: redis, rabbitmq);
