//! Pools without pipes: what runs when is told by broker and results, by events, or by STARTED results.

use std::collections::BTreeMap;
use std::time::Duration;

use celeryscope_core::SpanKind;

use crate::check;
use crate::rig::report::{Spread, table};
use crate::rig::worker::Options;
use crate::rig::{Agent, Publisher, Scene, Worker};
use crate::support::compare::{Expect, text};

const SET: &[&str] = &[
    "simple 4",
    "nesting 2",
    "retries",
    "failures 2",
    "eta",
    "paced 60",
];

/// What may tell a start: the pool's name, the settings, and what `celery.timing` must say of the start.
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
        // Without evidence a start is an estimate that nobody vouches for.
        let start_p95 = Duration::from_millis(if case.start.is_some() { 5 } else { 2000 });
        let expect = Expect {
            start_p95,
            end_p95: Duration::from_millis(5),
            publish_after: Duration::from_millis(50),
            timing: None,
            ..Expect::default()
        };
        let report = check::spans_equal(&scene, &left, &expect);
        let mut timings = BTreeMap::<String, usize>::new();
        for span in left.spans.iter().filter(|span| span.kind == SpanKind::Run) {
            assert_eq!(text(span, "celery.pool"), Some(pool), "{span:?}");
            let timing = text(span, "celery.timing").unwrap_or_default();
            *timings.entry(timing.to_owned()).or_default() += 1;
            let start = timing.split(',').next();
            assert!(
                case.start.is_none() || start == case.start,
                "celery.timing {timing}: want start by {:?}",
                case.start
            );
        }
        for (what, errors) in [("start", report.starts()), ("end", report.ends())] {
            let spread = Spread::of(errors.iter().map(|error| error.as_secs_f64() * 1e3).collect());
            rows.push(vec![
                format!("{}{}", case.settings, if case.events { " -E" } else { "" }),
                what.to_owned(),
                spread.count.to_string(),
                format!("{:.3}", spread.median),
                format!("{:.3}", spread.p95),
                format!("{:.3}", spread.max),
                format!("{timings:?}"),
            ]);
        }
    }
    table(
        &format!("How far runs on {pool} are from Celery's signals, in ms"),
        &["settings", "", "runs", "median", "p95", "max", "celery.timing"],
        &rows,
    );
}

/// Scenario: a thread pool: plain, with late acks and events, with late acks and STARTED results.
/// Guarantees: every task is told in full; starts and ends within 5 ms for 95 of 100 runs, by the evidence named.
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
