//! Pools without pipes: what runs when is told by broker and results, by events, or by STARTED results.

use std::collections::BTreeMap;
use std::time::Duration;

use celeryscope_core::{Span, SpanKind};

use crate::check;
use crate::on_brokers::on_brokers;
use crate::rig::loopback::Family;
use crate::rig::report::{Spread, table};
use crate::rig::worker::Options;
use crate::rig::{Agent, Broker, Publisher, Scene, Way, Worker};
use crate::support::compare::{Expect, int, text};
use crate::support::truth::Truth;

const SET: &[&str] = &[
    "simple 4",
    "nesting 2",
    "retries",
    "failures 2",
    "eta",
    "paced 100",
];

/// How near times by evidence must be for 95 of 100 paced runs, in ms.
const NEAR: f64 = 5.0;

/// The same of STARTED results of greenlets. Each greenlet makes a result backend of its own before it says that the task began:
/// some ms of Python that end in the opening of a connection, the first that can be seen of it.
const NEAR_WITH_OWN_BACKEND: f64 = 15.0;

fn near(pool: &str, what: &str, evidence: &str) -> f64 {
    match (pool, what, evidence) {
        ("gevent" | "eventlet", "start", "result") => NEAR_WITH_OWN_BACKEND,
        _ => NEAR,
    }
}

/// Runs one after the other at the end of [`SET`], on a worker that is idle but for them. Before them greenlets share one
/// thread, and what one of them does last tells when the processor was free, not when it began.
const PACED: usize = 100;

/// How far starts and ends of the paced runs are from the truth, in ms, by the evidence that `celery.timing` names.
fn errors_by_evidence(spans: &[Span], truth: &Truth) -> BTreeMap<(&'static str, String), Vec<f64>> {
    let mut errors = BTreeMap::<_, Vec<f64>>::new();
    let mut runs: Vec<_> = truth.runs().collect();
    runs.sort_by(|(_, a), (_, b)| b.start.total_cmp(&a.start));
    for (task, run) in runs.into_iter().take(PACED) {
        let same = |span: &&Span| {
            span.kind == SpanKind::Run
                && text(span, "celery.task_id") == Some(&task.id)
                && int(span, "celery.retry_count") == Some(run.retries)
        };
        let span = spans.iter().find(same).expect("the comparison has found it");
        let timing = text(span, "celery.timing").unwrap_or_default();
        let (start, end) = timing.split_once(',').unwrap_or((timing, timing));
        let off = |at: u64, truth: f64| (at as f64 / 1e9 - truth).abs() * 1e3;
        errors
            .entry(("start", start.to_owned()))
            .or_default()
            .push(off(span.start.0, run.start));
        if let Some(truth) = run.end {
            errors
                .entry(("end", end.to_owned()))
                .or_default()
                .push(off(span.end.0, truth));
        }
    }
    errors
}

/// Settings of a worker, and the evidence of starts that there must be with them.
pub(crate) struct Case {
    settings: &'static str,
    events: bool,
    start: Option<&'static str>,
}

pub(crate) const PLAIN: &str = "{}";
pub(crate) const LATE: &str = r#"{"task_acks_late": true}"#;
pub(crate) const STARTED: &str = r#"{"task_track_started": true, "task_acks_late": true}"#;

pub(crate) fn case(settings: &'static str, events: bool, start: Option<&'static str>) -> Case {
    Case {
        settings,
        events,
        start,
    }
}

/// Times are those of a machine that does other work, too: a case whose times are too far off is played again, all of it.
const TRIES: usize = 3;

/// Plays each case, one after the other.
pub(crate) fn run(way: impl Into<Way>, broker: Broker, pool: &'static str, cases: &[Case]) {
    let Some(mut scene) = Scene::set_over(way, broker, pool, "pools") else {
        return;
    };
    let mut rows = Vec::new();
    // Without results only events tell how a run ends that no pipe shows.
    let cases = cases.iter().filter(|case| broker.has_results() || case.events);
    for (number, case) in cases.enumerate() {
        let mut late = Vec::new();
        for again in 0..TRIES {
            scene.clear(case.settings);
            let (played, off) = play(&scene, &format!("agent-{number}-{again}"), pool, case);
            rows.extend(played);
            late = off;
            if late.is_empty() {
                break;
            }
        }
        assert!(late.is_empty(), "{pool}, {TRIES} times: {late:?}");
    }
    table(
        &format!("How far runs on {pool} are from Celery's signals, in ms"),
        &["settings", "", "celery.timing", "runs", "median", "p95", "max"],
        &rows,
    );
}

/// One case: rows of the table, and which times are not near.
fn play(scene: &Scene, agent: &str, pool: &'static str, case: &Case) -> (Vec<Vec<String>>, Vec<String>) {
    let agent = Agent::watch(scene, agent);
    let options = Options {
        events: case.events,
        arguments: vec!["--pool", pool],
        ..Options::default()
    };
    let worker = Worker::start(scene, "w1", &options);
    let mut publisher = Publisher::start_watched(scene, "publisher");
    for scenario in scene.broker().possible(SET) {
        publisher.publish(scenario);
    }
    scene.settle(Duration::from_secs(30));
    drop(worker);
    let left = agent.stop();
    check::nothing_lost(&left);
    let expect = Expect {
        timing: None,
        ..check::few_runs()
    };
    check::spans_equal(scene, &left, &expect);
    for span in left.spans.iter().filter(|span| span.kind == SpanKind::Run) {
        assert_eq!(text(span, "celery.pool"), Some(pool), "{span:?}");
    }
    let settings = format!("{}{}", case.settings, if case.events { " -E" } else { "" });
    let (mut rows, mut late, mut seen) = (Vec::new(), Vec::new(), false);
    for ((what, evidence), errors) in errors_by_evidence(&left.spans, &scene.whole_truth()) {
        let spread = Spread::of(errors);
        let figures = [spread.median, spread.p95, spread.max].map(|ms| format!("{ms:.3}"));
        let count = spread.count.to_string();
        let about = vec![settings.clone(), what.to_owned(), evidence.clone(), count];
        rows.push([about, figures.to_vec()].concat());
        if evidence == "estimate" {
            continue;
        }
        seen |= what == "start" && Some(evidence.as_str()) == case.start;
        // Few runs of one kind are no percentile.
        if spread.count >= 20 && spread.p95 >= near(pool, what, &evidence) {
            late.push(format!("{settings}: {what} by {evidence}: {spread:?} in ms"));
        }
    }
    assert!(
        seen || case.start.is_none(),
        "{pool} {settings}: no start by {:?}",
        case.start
    );
    (rows, late)
}

/// Scenario: a thread pool: plain, with late acks and events, with late acks and STARTED results.
/// Guarantees: every task is told in full; starts and ends of paced runs within 5 ms for 95 of 100, by the evidence named.
fn threads(broker: Broker) {
    // A result to the client is often sent before the main thread's ack.
    let early_ack = (broker != Broker::RabbitMqRpc).then_some("ack");
    run(
        Family::V4,
        broker,
        "threads",
        &[
            case(PLAIN, false, early_ack),
            case(LATE, true, Some("event")),
            case(STARTED, false, Some("result")),
        ],
    );
}
on_brokers!(threads: redis, rabbitmq, rabbitmq_rpc, rabbitmq_without_results);

/// Scenario: gevent, as above, and late acks with nothing that tells a start.
/// Guarantees: as above; where nothing tells the start, `celery.timing` does not pretend.
fn gevent(broker: Broker) {
    run(
        Family::V4,
        broker,
        "gevent",
        &[
            case(PLAIN, false, Some("ack")),
            case(LATE, true, Some("event")),
            case(STARTED, false, Some("result")),
            case(LATE, false, None),
        ],
    );
}
on_brokers!(gevent: redis, rabbitmq);

/// Scenario: eventlet, as with threads.
/// Guarantees: as with threads.
fn eventlet(broker: Broker) {
    run(
        Family::V4,
        broker,
        "eventlet",
        &[
            case(PLAIN, false, Some("ack")),
            case(LATE, true, Some("event")),
            case(STARTED, false, Some("result")),
        ],
    );
}
on_brokers!(eventlet: redis, rabbitmq);

/// Scenario: the solo pool, as with threads. Its early ack comes after the end, so the plain case has only estimates.
/// Guarantees: as with threads.
fn solo(broker: Broker) {
    run(
        Family::V4,
        broker,
        "solo",
        &[
            case(PLAIN, false, None),
            case(LATE, true, Some("event")),
            case(STARTED, false, Some("result")),
        ],
    );
}
on_brokers!(solo: redis, rabbitmq);
