//! Recorded runs of real workers, fed to the core, against what Celery itself said about them.
//!
//! Each test is one recording of tests/fixtures. It fails with a table of what is missing, extra or wrong.

#[path = "e2e/rig/report.rs"]
mod report;
mod support;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use celeryscope_core::common::{Kind, flags};
use celeryscope_core::{Span, SpanId, SpanKind, Status, TraceId, Value};
use support::compare::{self, Expect};
use support::fixture::Fixture;
use support::replay;

/// A traced process is slow: on these recordings the pool's word for a start comes up to 2.4 ms before `task_prerun`,
/// that for an end up to 1.5 ms after `task_postrun`.
const TRACED: Expect = Expect {
    publish_before: Duration::from_millis(1),
    publish_after: Duration::from_millis(5),
    start_p95: Duration::from_millis(3),
    end_p95: Duration::from_millis(3),
    timing: Some("pool"),
    events: true,
    clients_apart: false,
    acks_unread: false,
    broker_known: true,
};

fn check(name: &str) {
    let fixture = Fixture::load(name);
    let replay = replay(&fixture.records);
    let mut report = compare::compare(&replay.spans, &fixture.truth, &TRACED);
    let worker = fixture.truth.worker.as_ref().map(|worker| worker.pid);
    if replay.workers != worker.into_iter().collect() {
        let detail = format!("want {worker:?}, got {:?}", replay.workers);
        report.problem("wrong", "workers found", detail);
    }
    report.check();
}

macro_rules! captures {
    ($($(#[doc = $doc:literal])+ $test:ident = $name:literal;)+) => {
        $($(#[doc = $doc])+ #[test] fn $test() { check($name); })+
    };
}

captures! {
    /// Scenario: five plain tasks on a pool of two.
    /// Guarantees: one publish and one run each, in the child that ran it, with its times and its outcome.
    redis_simple = "redis-simple";
    /// Scenario: acknowledged after the run, one of them failing.
    /// Guarantees: the late ack neither moves nor splits the run.
    redis_acks_late = "redis-acks-late";
    /// Scenario: arguments of 20 kB to 1 MB: three sends for a message, many reads, head and tail of the longest.
    /// Guarantees: the headers behind the body are found, whatever its size.
    redis_bigbody = "redis-bigbody";
    /// Scenario: a fan-out exchange over PUBLISH and a pattern subscription.
    /// Guarantees: the message is a publish, its delivery a run; the copy in `unacked` is neither.
    redis_broadcast = "redis-broadcast";
    /// Scenario: starmap and chunks.
    /// Guarantees: their built-in tasks are tasks like others, with the group's id.
    redis_canvas_misc = "redis-canvas-misc";
    /// Scenario: a chain of three.
    /// Guarantees: each link is published by the run of the one before; all are one trace.
    redis_chain = "redis-chain";
    /// Scenario: two chords, one of them followed by a group.
    /// Guarantees: the callback's parent is the run that sent it.
    redis_chord = "redis-chord";
    /// Scenario: countdowns, an expiry far away and one that passes while the worker holds the task.
    /// Guarantees: a held task starts when it starts; an expired one is no run, or one that was revoked.
    redis_eta = "redis-eta";
    /// Scenario: all of Celery's own events are on.
    /// Guarantees: they make no spans of their own; pipes are still the better evidence.
    redis_events = "redis-events";
    /// Scenario: failures, an errback, an ignored task and one that the worker does not know.
    /// Guarantees: state, status and exception of each; the callback of a success hangs on its run.
    redis_failure = "redis-failure";
    /// Scenario: a group of four from a client.
    /// Guarantees: four traces, one group id.
    redis_group = "redis-group";
    /// Scenario: a traceparent from the publisher, a worker without a tracer.
    /// Guarantees: the trace is the publisher's; a context that a retry only carries along does not outrank the run.
    redis_headers = "redis-headers";
    /// Scenario: no results are stored.
    /// Guarantees: pipes alone give times and outcome.
    redis_ignore_result = "redis-ignore-result";
    /// Scenario: a soft and a hard time limit; the second kills the child.
    /// Guarantees: both are failures with their exception; the killed one ends when the child says goodbye.
    redis_limits = "redis-limits";
    /// Scenario: a tree of 13 tasks that publish from within.
    /// Guarantees: every publish hangs on the run that sent it, though two children interleave.
    redis_nested = "redis-nested";
    /// Scenario: publisher and worker both trace with OpenTelemetry.
    /// Guarantees: the context in the message is the parent, retries included.
    redis_otel = "redis-otel";
    /// Scenario: priorities from 0 to 9 over four lists.
    /// Guarantees: the queue is one, the exact priority is kept.
    redis_priorities = "redis-priorities";
    /// Scenario: two tasks a second.
    /// Guarantees: what the worker holds back has not started.
    redis_rate_limit = "redis-rate-limit";
    /// Scenario: a chain over RESP2.
    /// Guarantees: the same as over RESP3.
    redis_resp2_chain = "redis-resp2-chain";
    /// Scenario: automatic and manual retries, one running out of them.
    /// Guarantees: a publish and a run for each attempt, each publish under the run that asked for it.
    redis_retry = "redis-retry";
    /// Scenario: one task terminated in mid-run, one revoked before it was even taken.
    /// Guarantees: the first is one revoked run that ends with its child; the second is at most one.
    redis_revoke = "redis-revoke";
    /// Scenario: SIGTERM with two tasks running and four held.
    /// Guarantees: the two end well; what goes back to the queue is neither publish nor run.
    redis_warm_shutdown = "redis-warm-shutdown";
}

/// Scenario: every recording, from the moment on at which the worker said that it was ready: its processes run and its
/// connections are open, in the middle of their streams.
/// Guarantees: nothing is missing that came after.
#[test]
fn an_agent_that_comes_late_sees_what_comes_later() {
    for name in support::fixture::names("redis") {
        let fixture = Fixture::load(&name);
        let ready = fixture.truth.worker.as_ref().map_or(0.0, |worker| worker.ready);
        let ready = ((ready - fixture.truth.clock_shift()) * 1e9) as u64;
        let from = fixture
            .records
            .partition_point(|record| record.header.exit < ready);
        let replay = replay(&support::fixture::late(&fixture.records, from));
        compare::compare(&replay.spans, &fixture.truth, &TRACED).check();
    }
}

/// Scenario: every recording.
/// Guarantees: none is without runs; a table tells how far starts and ends are from Celery's signals, for each broker and
/// pool.
#[test]
fn times_for_each_pool() {
    let mut errors = BTreeMap::<_, Vec<Duration>>::new();
    for broker in ["redis", "rabbitmq"] {
        for name in support::fixture::names(broker) {
            let fixture = Fixture::load(&name);
            let spans = replay(&fixture.records).spans;
            let run = spans.iter().find(|span| span.kind == SpanKind::Run);
            let pool = run.and_then(|run| compare::text(run, "celery.pool"));
            let pool = pool.unwrap_or_else(|| panic!("{name}: no run names its pool"));
            let report = compare::compare(&spans, &fixture.truth, &TRACED);
            for (what, off) in [("start", report.starts()), ("end", report.ends())] {
                let about = [broker, pool, what].map(str::to_owned);
                errors.entry(about).or_default().extend(off);
            }
        }
    }
    let row = |(about, off): (&[String; 3], &Vec<Duration>)| {
        let spread = report::Spread::of(off.iter().map(|off| off.as_secs_f64() * 1e3).collect());
        let figures = [spread.min, spread.median, spread.p95, spread.max].map(|ms| format!("{ms:.3}"));
        [about.as_slice(), &[spread.count.to_string()], &figures].concat()
    };
    report::table(
        "How far recorded runs (of traced, slower programs) are from Celery's signals, in ms",
        &["broker", "pool", "", "runs", "min", "median", "p95", "max"],
        &errors.iter().map(row).collect::<Vec<_>>(),
    );
}

/// Scenario: every recording, made into records.
/// Guarantees: they are what the kernel half makes: in order, each process introduced first, offsets without holes, no
/// more than the capture limit.
#[test]
fn records_are_those_of_the_kernel_half() {
    let names = support::fixture::names("redis");
    assert_eq!(names.len(), 22);
    for name in names {
        let records = Fixture::load(&name).records;
        assert_eq!(records[0].kind, Kind::Clock, "{name}");
        let (mut last, mut known, mut next) = (0, HashSet::new(), HashMap::new());
        for record in &records[1..] {
            let header = record.header;
            assert!(
                header.exit >= last && header.enter <= header.exit,
                "{name}: {record:?}"
            );
            last = header.exit;
            match record.kind {
                Kind::Process => _ = known.insert(header.pid),
                Kind::Exec => _ = known.remove(&header.pid),
                Kind::Send | Kind::Recv => {
                    assert!(known.contains(&header.pid), "{name}: {header:?}");
                    assert!(record.payload.len() <= 64 * 1024, "{name}: {header:?}");
                    let next = next.entry((header.conn, record.kind == Kind::Send)).or_insert(0);
                    assert_eq!(header.start, *next, "{name}: {header:?}");
                    if header.flags & flags::LAST != 0 {
                        assert_eq!(
                            u64::from(header.at) + record.payload.len() as u64,
                            u64::from(header.total)
                        );
                        *next += u64::from(header.total);
                    }
                }
                Kind::PipeRead => assert!(
                    record.payload.len() <= 512 && known.contains(&header.pid),
                    "{name}"
                ),
                Kind::PipeWrite => assert!(
                    record.payload.len() <= 128 && known.contains(&header.pid),
                    "{name}"
                ),
                _ => {}
            }
        }
    }
}

/// Scenario: right spans, then one thing in them made wrong.
/// Guarantees: the comparison that all other tests stand on sees each of these changes.
#[test]
fn the_comparison_sees_what_is_wrong() {
    let fixture = Fixture::load("redis-headers");
    let right = replay(&fixture.records).spans;
    let clean = |spans: &[Span]| compare::compare(spans, &fixture.truth, &TRACED).is_clean();
    assert!(clean(&right), "redis_headers must pass first");
    type Change = fn(&mut Span);
    let changes: [(&str, SpanKind, Change); 13] = [
        ("trace", SpanKind::Publish, |span| {
            span.trace_id = TraceId([7; 16])
        }),
        ("publish id", SpanKind::Publish, |span| {
            span.span_id = SpanId([7; 8])
        }),
        ("publish parent", SpanKind::Publish, |span| {
            span.parent = Some(SpanId([7; 8]))
        }),
        ("run parent", SpanKind::Run, |span| span.parent = None),
        ("state", SpanKind::Run, |span| set(span, "celery.state", "LOST")),
        ("status", SpanKind::Run, |span| {
            span.status = Status::Error(String::new())
        }),
        ("process", SpanKind::Run, |span| set(span, "process.pid", 1)),
        ("start", SpanKind::Run, |span| span.start.0 -= 40_000_000),
        ("end", SpanKind::Run, |span| span.end.0 += 40_000_000),
        ("publish start", SpanKind::Publish, |span| {
            span.start.0 -= 1_000_000_000
        }),
        ("publish end", SpanKind::Publish, |span| {
            span.end.0 += 1_000_000_000
        }),
        ("retries", SpanKind::Run, |span| {
            set(span, "celery.retry_count", 5)
        }),
        ("group", SpanKind::Publish, |span| {
            span.attributes.push(("celery.group_id", "g".into()))
        }),
    ];
    for (what, kind, change) in changes {
        for at in (0..right.len()).filter(|at| right[*at].kind == kind) {
            let mut wrong = right.clone();
            change(&mut wrong[at]);
            assert!(!clean(&wrong), "{what} of span {at} was made wrong unseen");
        }
    }
    for at in 0..right.len() {
        let mut fewer = right.clone();
        let taken = fewer.remove(at);
        assert!(!clean(&fewer), "span {at} was taken away unseen");
        let mut more = right.clone();
        more.push(taken);
        assert!(!clean(&more), "span {at} was doubled unseen");
    }
}

fn set(span: &mut Span, key: &str, value: impl Into<Value>) {
    let (_, slot) = span
        .attributes
        .iter_mut()
        .find(|(name, _)| *name == key)
        .expect("the attribute is there");
    *slot = value.into();
}

captures! {
    /// Scenario: as its namesake on Redis, over AMQP 0-9-1.
    /// Guarantees: the same: one publish each, one run for each attempt, its parent, times and outcome.
    rabbitmq_acks_late = "rabbitmq-acks-late";
    /// Scenario: as its namesake on Redis, over AMQP 0-9-1.
    /// Guarantees: the same: one publish each, one run for each attempt, its parent, times and outcome.
    rabbitmq_bigbody = "rabbitmq-bigbody";
    /// Scenario: as its namesake on Redis, over AMQP 0-9-1.
    /// Guarantees: the same: one publish each, one run for each attempt, its parent, times and outcome.
    rabbitmq_broadcast = "rabbitmq-broadcast";
    /// Scenario: as its namesake on Redis, over AMQP 0-9-1.
    /// Guarantees: the same: one publish each, one run for each attempt, its parent, times and outcome.
    rabbitmq_chain = "rabbitmq-chain";
    /// Scenario: as its namesake on Redis, over AMQP 0-9-1.
    /// Guarantees: the same: one publish each, one run for each attempt, its parent, times and outcome.
    rabbitmq_chord = "rabbitmq-chord";
    /// Scenario: as its namesake on Redis, over AMQP 0-9-1.
    /// Guarantees: the same: one publish each, one run for each attempt, its parent, times and outcome.
    rabbitmq_eta = "rabbitmq-eta";
    /// Scenario: as its namesake on Redis, over AMQP 0-9-1.
    /// Guarantees: the same: one publish each, one run for each attempt, its parent, times and outcome.
    rabbitmq_failure = "rabbitmq-failure";
    /// Scenario: as its namesake on Redis, over AMQP 0-9-1.
    /// Guarantees: the same: one publish each, one run for each attempt, its parent, times and outcome.
    rabbitmq_group = "rabbitmq-group";
    /// Scenario: as its namesake on Redis, over AMQP 0-9-1.
    /// Guarantees: the same: one publish each, one run for each attempt, its parent, times and outcome.
    rabbitmq_headers = "rabbitmq-headers";
    /// Scenario: as its namesake on Redis, over AMQP 0-9-1.
    /// Guarantees: the same: one publish each, one run for each attempt, its parent, times and outcome.
    rabbitmq_ignore_result = "rabbitmq-ignore-result";
    /// Scenario: as its namesake on Redis, over AMQP 0-9-1.
    /// Guarantees: the same: one publish each, one run for each attempt, its parent, times and outcome.
    rabbitmq_nested = "rabbitmq-nested";
    /// Scenario: as its namesake on Redis, over AMQP 0-9-1.
    /// Guarantees: the same: one publish each, one run for each attempt, its parent, times and outcome.
    rabbitmq_otel = "rabbitmq-otel";
    /// Scenario: as its namesake on Redis, over AMQP 0-9-1.
    /// Guarantees: the same: one publish each, one run for each attempt, its parent, times and outcome.
    rabbitmq_priorities = "rabbitmq-priorities";
    /// Scenario: as its namesake on Redis, over AMQP 0-9-1.
    /// Guarantees: the same: one publish each, one run for each attempt, its parent, times and outcome.
    rabbitmq_retry = "rabbitmq-retry";
    /// Scenario: as its namesake on Redis, over AMQP 0-9-1.
    /// Guarantees: the same: one publish each, one run for each attempt, its parent, times and outcome.
    rabbitmq_revoke = "rabbitmq-revoke";
    /// Scenario: as its namesake on Redis, over AMQP 0-9-1.
    /// Guarantees: the same: one publish each, one run for each attempt, its parent, times and outcome.
    rabbitmq_simple = "rabbitmq-simple";
    /// Scenario: as its namesake on Redis, over AMQP 0-9-1.
    /// Guarantees: the same: one publish each, one run for each attempt, its parent, times and outcome.
    rabbitmq_warm_shutdown = "rabbitmq-warm-shutdown";
}

/// Scenario: two chords; each callback is sent by whichever header task ended last.
/// Guarantees: the callback's publish links to the publishes of all header tasks, and nothing else links.
#[test]
fn a_chords_callback_links_to_its_header() {
    let spans = replay(&Fixture::load("redis-chord").records).spans;
    let task = |span: &Span| match span.attribute("celery.task_id") {
        Some(Value::Str(id)) => id[..8].to_owned(),
        _ => String::new(),
    };
    let name_of = |id: SpanId| spans.iter().find(|span| span.span_id == id).map(&task);
    let mut linked: Vec<(String, Vec<String>)> = spans
        .iter()
        .filter(|span| !span.links.is_empty())
        .map(|span| {
            (
                task(span),
                span.links
                    .iter()
                    .filter_map(|link| name_of(link.span_id))
                    .collect(),
            )
        })
        .collect();
    linked.sort();
    let header = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
    assert_eq!(
        linked,
        [
            (
                "13e85799".to_owned(),
                header(&["98303b44", "6b13bdfd", "a0f73a82"])
            ),
            ("2938da54".to_owned(), header(&["0c69194f", "343ecb3e"])),
        ]
    );
}
