//! Recorded runs of real workers, fed to the core, against what Celery itself said about them.
//!
//! Each test is one recording of tests/fixtures. It fails with a table of what is missing, extra or wrong.

mod support;

use std::time::Duration;

use support::compare::{Expect, compare};
use support::{Fixture, replay};

/// A traced process is slow: on these recordings the pool's first sign of an end comes up to 24 ms after
/// `task_postrun`, that of a start up to 4 ms before `task_prerun`.
const TRACED: Expect = Expect {
    publish_before: Duration::from_millis(1),
    publish_after: Duration::from_millis(5),
    start_p95: Duration::from_millis(5),
    end_p95: Duration::from_millis(30),
    timing: Some("pool"),
    events: true,
};

fn check(name: &str) {
    let fixture = Fixture::load(name);
    let replay = replay(&fixture.records);
    let mut report = compare(&replay.spans, &fixture.truth, &TRACED);
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
