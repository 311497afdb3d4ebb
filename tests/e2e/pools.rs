//! Pools without pipes: what runs when is told by broker and results, by events, or by STARTED results.

use std::collections::BTreeMap;
use std::time::Duration;

use celeryscope_core::{Span, SpanKind};

use crate::check;
use crate::rig::report::{Spread, table};
use crate::rig::worker::Options;
use crate::rig::{Agent, Publisher, Scene, Worker};
use crate::support::compare::{Expect, int, text};
use crate::support::truth::Truth;

const SET: &[&str] = &[
    "simple 4",
    "nesting 2",
    "retries",
    "failures 2",
    "eta",
    "paced 60",
];

/// How near times by evidence must be, in ms: half of them, and 95 of 100. What is between a task's start and the write
/// that tells of it is the worker's own work (a STARTED result in a greenlet opens a connection first), which takes longer on a
/// machine that the tests share.
const NEAR: (f64, f64) = (5.0, 25.0);

/// How far starts and ends are from the truth, in ms, by the evidence that `celery.timing` names.
fn errors_by_evidence(spans: &[Span], truth: &Truth) -> BTreeMap<(&'static str, String), Vec<f64>> {
    let mut errors = BTreeMap::<_, Vec<f64>>::new();
    for (task, run) in truth.runs() {
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
struct Case {
    settings: &'static str,
    events: bool,
    start: Option<&'static str>,
}

const PLAIN: &str = "{}";
const LATE: &str = r#"{"task_acks_late": true}"#;
const STARTED: &str = r#"{"task_track_started": true, "task_acks_late": true}"#;

fn case(settings: &'static str, events: bool, start: Option<&'static str>) -> Case {
    Case {
        settings,
        events,
        start,
    }
}

fn run(pool: &'static str, cases: &[Case]) {
    let mut rows = Vec::new();
    for case in cases {
        let Some(scene) = Scene::set(pool, "pools") else {
            return;
        };
        let scene = scene.with_settings(case.settings);
        let agent = Agent::start(scene.folder(), "agent", &[scene.port()], &["--stats"]);
        let options = Options {
            events: case.events,
            arguments: vec!["--pool", pool],
            ..Options::default()
        };
        let worker = Worker::start(&scene, "w1", &options);
        let mut publisher = Publisher::start(&scene, "publisher");
        for scenario in SET {
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
        check::spans_equal(&scene, &left, &expect);
        for span in left.spans.iter().filter(|span| span.kind == SpanKind::Run) {
            assert_eq!(text(span, "celery.pool"), Some(pool), "{span:?}");
        }
        let settings = format!("{}{}", case.settings, if case.events { " -E" } else { "" });
        let mut seen = false;
        for ((what, evidence), errors) in errors_by_evidence(&left.spans, &scene.whole_truth()) {
            let spread = Spread::of(errors);
            let figures = [spread.median, spread.p95, spread.max].map(|ms| format!("{ms:.3}"));
            let count = spread.count.to_string();
            rows.push(
                [
                    vec![settings.clone(), what.to_owned(), evidence.clone(), count],
                    figures.to_vec(),
                ]
                .concat(),
            );
            if evidence == "estimate" {
                continue;
            }
            seen |= what == "start" && Some(evidence.as_str()) == case.start;
            // Few runs of one kind are no percentile.
            if spread.count >= 20 {
                assert!(
                    spread.median < NEAR.0 && spread.p95 < NEAR.1,
                    "{pool} {settings}: {what} by {evidence}: {spread:?} in ms"
                );
            }
        }
        assert!(
            seen || case.start.is_none(),
            "{pool} {settings}: no start by {:?}",
            case.start
        );
    }
    table(
        &format!("How far runs on {pool} are from Celery's signals, in ms"),
        &["settings", "", "celery.timing", "runs", "median", "p95", "max"],
        &rows,
    );
}

/// Scenario: a thread pool: plain, with late acks and events, with late acks and STARTED results.
/// Guarantees: every task is told in full; starts and ends by the evidence named, half of them within 5 ms.
#[test]
fn threads() {
    run(
        "threads",
        &[
            case(PLAIN, false, Some("ack")),
            case(LATE, true, Some("event")),
            case(STARTED, false, Some("result")),
        ],
    );
}

/// Scenario: gevent, as above, and late acks with nothing that tells a start.
/// Guarantees: as above; where nothing tells the start, `celery.timing` does not pretend.
#[test]
fn gevent() {
    run(
        "gevent",
        &[
            case(PLAIN, false, Some("ack")),
            case(LATE, true, Some("event")),
            case(STARTED, false, Some("result")),
            case(LATE, false, None),
        ],
    );
}

/// Scenario: eventlet, as with threads.
/// Guarantees: as with threads.
#[test]
fn eventlet() {
    run(
        "eventlet",
        &[
            case(PLAIN, false, Some("ack")),
            case(LATE, true, Some("event")),
            case(STARTED, false, Some("result")),
        ],
    );
}

/// Scenario: the solo pool, as with threads. Its early ack comes after the end, so the plain case has only estimates.
/// Guarantees: as with threads.
#[test]
fn solo() {
    run(
        "solo",
        &[
            case(PLAIN, false, None),
            case(LATE, true, Some("event")),
            case(STARTED, false, Some("result")),
        ],
    );
}
