//! What tasks make of each other: canvases, retries, schedules, many workers, and thousands of tasks at once.

use std::time::Duration;

use celeryscope_core::SpanKind;

use crate::check;
use crate::on_brokers::on_brokers;
use crate::rig::process::{Process, wait_for};
use crate::rig::worker::Options;
use crate::rig::{Agent, Broker, Publisher, Scene, Worker};
use crate::support::compare::{self, Expect, text};

fn options() -> Options {
    Options {
        include: vec!["lives"],
        ..Options::default()
    }
}

/// Scenario: retries in three attempts, chain and broken chain, group, chords of every form, map, starmap, chunks, link and
/// link_error, replace by a chain and by a chord, stamps, nested calls and canvases, send_task by name, ETA, rate limit.
/// Guarantees: each publish has the run that sent it as its parent, a retry links to the first publish, a chord's callback to
/// all that it waited for; stamps are told; time in the queue counts from the ETA.
fn every_canvas(broker: Broker) {
    let Some(scene) = Scene::set_on(broker, "canvas", "celery57") else {
        return;
    };
    let agent = Agent::start(scene.folder(), "agent", &scene.ports(), &["--stats"]);
    let worker = Worker::start(&scene, "w1", &options());
    let mut publisher = Publisher::start(&scene, "publisher");
    for scenario in broker.possible(&[
        "flaking 3",
        "chained",
        "broken_chain",
        "grouped 6",
        "chords 3",
        "maps",
        "linked",
        "replaces",
        "replacing",
        "stamped",
        "nesting 3",
        "deepening 4",
        "by_name",
        "eta",
        "rated 6",
    ]) {
        publisher.publish(scenario);
    }
    scene.settle(Duration::from_secs(40));
    drop(worker);
    check::all_is_told(&scene, &agent.stop(), &check::few_runs());
    let chords = scene.whole_truth().tasks;
    let waited: usize = chords
        .iter()
        .flat_map(|task| &task.other)
        .map(|other| other.header.len())
        .sum();
    assert!(
        waited > 15 || !broker.joins(),
        "the truth knows {waited} parts of chords: the test tests no links"
    );
}
on_brokers!(every_canvas: redis, rabbitmq, rabbitmq_rpc, rabbitmq_without_results);

/// Scenario: two workers that both take a broadcast queue.
/// Guarantees: one publish and a run in each worker for each broadcast.
fn broadcast(broker: Broker) {
    let Some(scene) = Scene::set_on(broker, "broadcast", "celery57") else {
        return;
    };
    let agent = Agent::start(scene.folder(), "agent", &scene.ports(), &["--stats"]);
    let with_news = Options {
        app: Some("news"),
        ..Options::default()
    };
    let workers = ["w1", "w2"].map(|name| Worker::start(&scene, name, &with_news));
    let mut publisher = Publisher::start(&scene, "publisher");
    publisher.publish("announcing 5");
    wait_for("each broadcast in both workers", Duration::from_secs(10), || {
        (scene.truth().received() >= 10).then_some(())
    });
    scene.settle(Duration::from_secs(10));
    drop(workers);
    let left = agent.stop();
    check::all_is_told(&scene, &left, &check::few_runs());
    let of = |kind| {
        let spans = left.spans.iter().filter(move |span| span.kind == kind);
        spans
            .filter(|span| text(span, "celery.task_name") == Some("news.announced"))
            .count()
    };
    assert_eq!((of(SpanKind::Publish), of(SpanKind::Run)), (5, 10));
}
on_brokers!(broadcast: redis, rabbitmq);

/// Scenario: a beat process with a schedule of one second.
/// Guarantees: what beat sends is told as any client's.
fn beat(broker: Broker) {
    let Some(scene) = Scene::set_on(broker, "beat", "celery57") else {
        return;
    };
    let agent = Agent::start(scene.folder(), "agent", &scene.ports(), &["--stats"]);
    let worker = Worker::start(&scene, "w1", &options());
    let mut command = scene.python();
    command.args([
        "-m", "celery", "-A", "ticking", "beat", "-l", "WARNING", "-s", "schedule",
    ]);
    let beat = Process::spawn("beat", &command, scene.folder(), None);
    wait_for("three ticks", Duration::from_secs(20), || {
        (scene.truth().published_ids().len() >= 3).then_some(())
    });
    beat.terminate();
    drop(beat);
    scene.settle(Duration::from_secs(20));
    drop(worker);
    check::all_is_told(&scene, &agent.stop(), &check::few_runs());
}
on_brokers!(beat: redis, rabbitmq);

/// Scenario: 3,000 tasks in chords of 50, groups of 100, chains of 5 and nested calls, as fast as one client can send them.
/// Guarantees: none missing, none twice, none under the wrong parent.
fn thousands_of_tasks(broker: Broker) {
    let Some(scene) = Scene::set_on(broker, "thousands", "celery57") else {
        return;
    };
    let agent = Agent::start(scene.folder(), "agent", &scene.ports(), &["--stats"]);
    let worker = Worker::start(&scene, "w1", &options());
    let mut publisher = Publisher::start(&scene, "publisher");
    publisher.publish("mixed 3300");
    scene.settle(Duration::from_secs(120));
    drop(worker);
    let left = agent.stop();
    // Two processors for all: who is late here is not told apart from who is slow.
    let expect = Expect {
        publish_before: Duration::from_millis(20),
        publish_after: Duration::from_millis(200),
        ..check::few_runs()
    };
    let report = check::all_is_told(&scene, &left, &expect);
    assert!(report.starts().len() >= 2900, "{} runs", report.starts().len());
    let near = compare::quantile(report.starts(), 50);
    assert!(
        near < Duration::from_millis(2),
        "the median start is {near:?} off"
    );
}
on_brokers!(thousands_of_tasks: redis, rabbitmq);
