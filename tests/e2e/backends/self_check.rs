//! The comparison of agents against itself: does it see what it is there to see?

use std::sync::Arc;

use celeryscope_core::span::{Event, Link, Process};
use celeryscope_core::time::Wall;
use celeryscope_core::{Span, SpanId, SpanKind, Status, TraceId};

use super::agree::{Says, differences};
use crate::check::few_runs;

const SECOND: u64 = 1_000_000_000;
const QUEUE_TIME: &str = "celery.queue_time";
const TRACE: TraceId = TraceId([7; 16]);

/// A publish, its run, a second publish from that run, and that one's run; `agent` is in the ids of the runs.
fn spans(agent: u8) -> Vec<Span> {
    let span = |kind, id: u8, name: &'static str, task: &'static str, parent: Option<u8>| Span {
        parent: parent.map(|parent| SpanId([parent; 8])),
        start: Wall(u64::from(id & 0x0f) * SECOND + u64::from(agent)),
        end: Wall(u64::from(id & 0x0f) * SECOND + SECOND / 2),
        attributes: vec![
            ("celery.task_id", task.into()),
            ("celery.retry_count", 0.into()),
            ("celery.state", "SUCCESS".into()),
            ("celery.timing", "pool".into()),
            (QUEUE_TIME, 0.25.into()),
        ],
        process: Arc::new(Process {
            pid: 1,
            resource: vec![("service.name".to_owned(), "app".to_owned())],
        }),
        ..Span::new(kind, TRACE, SpanId([id; 8]), name)
    };
    let (first, second) = (0x02 | agent << 4, 0x04 | agent << 4);
    let mut spans = vec![
        span(SpanKind::Publish, 1, "publish add", "a", None),
        span(SpanKind::Run, first, "run add", "a", Some(1)),
        span(SpanKind::Publish, 3, "publish mul", "b", Some(first)),
        span(SpanKind::Run, second, "run mul", "b", Some(3)),
    ];
    spans[2].links.push(Link {
        trace_id: TRACE,
        span_id: SpanId([first; 8]),
    });
    spans[3].status = Status::Ok;
    spans[3].events.push(Event {
        name: "acked",
        at: Wall(4 * SECOND),
        attributes: vec![("celery.state", "SUCCESS".into())],
    });
    spans
}

fn after(change: impl FnOnce(&mut Vec<Span>)) -> Vec<String> {
    let mut changed = spans(2);
    change(&mut changed);
    differences(&spans(1), &changed, Says::TheSame, &few_runs())
}

/// Asserts that there is one difference, which is told in these words.
#[track_caller]
fn one(found: &[String], words: &[&str]) {
    assert_eq!(found.len(), 1, "{found:#?}");
    for word in words {
        assert!(found[0].contains(word), "no {word:?} in {found:#?}");
    }
}

/// Scenario: the same spans from two agents: in another order, runs with ids and nanoseconds of each agent's own.
/// Guarantees: they agree.
#[test]
fn what_is_the_same() {
    assert_eq!(after(|_| {}), [""; 0]);
    assert_eq!(after(|spans| spans.reverse()), [""; 0]);
}

/// Scenario: one thing changed: a parent, another trace, a span too few or too many, an attribute changed, added or gone,
/// a status, a link, an event, the service, a start, an end, an event or a queue time off by a second.
/// Guarantees: each is one difference, told by the names of span and thing.
#[test]
fn what_is_not() {
    one(
        &after(|spans| spans[2].parent = Some(SpanId([1; 8]))),
        &["publish mul b", "parent: 0101010101010101 instead of run add a"],
    );
    one(
        &after(|spans| spans[3].parent = None),
        &["run mul b", "parent: nothing"],
    );
    one(&after(|spans| _ = spans.pop()), &["run mul b", "missing"]);
    let twice = |spans: &mut Vec<Span>| {
        let span_id = SpanId([9; 8]);
        spans.push(Span {
            span_id,
            ..spans[3].clone()
        });
    };
    one(&after(twice), &["run mul b", "(2): there is none"]);
    let other_trace = after(|spans| spans[3].trace_id = TraceId([8; 16]));
    assert_eq!(other_trace.len(), 2, "{other_trace:#?}");
    one(
        &after(|spans| spans[1].attributes[2].1 = "FAILURE".into()),
        &["run add a", "celery.state", "FAILURE", "SUCCESS"],
    );
    one(
        &after(|spans| spans[1].attributes[3].1 = "ack".into()),
        &["celery.timing"],
    );
    one(
        &after(|spans| spans[1].attributes.push(("celery.end", "unknown".into()))),
        &["celery.end", "unknown", "instead of nothing"],
    );
    one(
        &after(|spans| _ = spans[1].attributes.pop()),
        &[QUEUE_TIME, "nothing"],
    );
    one(
        &after(|spans| spans[3].status = Status::Unset),
        &["run mul b", "status"],
    );
    one(&after(|spans| spans[2].links.clear()), &["link to run add a"]);
    assert_eq!(
        after(|spans| spans[3].events.clear()).len(),
        2,
        "event and its time"
    );
    one(
        &after(|spans| spans[3].events[0].attributes.clear()),
        &["event acked 1"],
    );
    one(
        &after(|spans| spans[0].process = Arc::default()),
        &["publish add a", "resource service.name"],
    );
    one(
        &after(|spans| spans[1].start.0 -= SECOND),
        &["run add a", "start: 1.000000002 s"],
    );
    one(
        &after(|spans| spans[0].end.0 += SECOND),
        &["publish add a", "end"],
    );
    one(
        &after(|spans| spans[3].events[0].at.0 += SECOND),
        &["event acked 1 at"],
    );
    one(
        &after(|spans| spans[1].attributes[4].1 = 1.25.into()),
        &[QUEUE_TIME, "1.25"],
    );
}

/// Scenario: an agent that did not watch all the time: a span less, an attribute less, a run whose end it did not see; then an
/// attribute that is wrong, and a run off by a second that claims to be seen as well as the other.
/// Guarantees: what it left out, or says it did not see, is no difference; what is wrong is one.
#[test]
fn less_is_not_else() {
    let mut got = spans(2);
    got.remove(0);
    got[0].attributes.pop();
    got[2].status = Status::Unset;
    got[2].end.0 += SECOND;
    got[2].attributes[3].1 = "pool,ack".into();
    got[2].attributes.push(("celery.end", "unknown".into()));
    let else_said = |got: &[Span]| differences(&spans(1), got, Says::NothingElse, &few_runs());
    assert_eq!(else_said(&got), [""; 0]);
    got[0].attributes[2].1 = "FAILURE".into();
    one(&else_said(&got), &["run add a", "celery.state", "FAILURE"]);
    got[0] = spans(2).remove(1);
    got[0].start.0 -= SECOND;
    one(&else_said(&got), &["run add a", "start"]);
}
