//! What must hold of the pipeline's counters, of what it keeps and of each span, at any moment and whatever it was fed.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each user takes its part of this module"
)]

use celeryscope_core::{Held, Output, Pipeline, Span, SpanId, SpanKind, Stats, TraceId};

/// Spans that were put out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// Of publishes.
    pub publishes: u64,
    /// Of runs.
    pub runs: u64,
}

impl Put {
    /// Counts one.
    pub fn count(&mut self, span: &Span) {
        match span.kind {
            SpanKind::Publish => self.publishes += 1,
            SpanKind::Run => self.runs += 1,
        }
    }

    /// Takes all that there is to say, and checks each span.
    pub fn drain(&mut self, pipeline: &mut Pipeline) -> Vec<Output> {
        let said: Vec<Output> = std::iter::from_fn(|| pipeline.poll()).collect();
        for output in &said {
            if let Output::Span(span) = output {
                sound(span);
                self.count(span);
            }
        }
        said
    }
}

/// A span that can be exported: named, no id is zero, it does not end before it starts, its events are in order.
pub fn sound(span: &Span) {
    let no_trace = TraceId([0; 16]);
    let no_span = SpanId([0; 8]);
    assert!(span.end >= span.start, "it ends before it starts: {span:#?}");
    assert!(span.trace_id != no_trace && span.span_id != no_span, "{span:#?}");
    assert!(span.parent != Some(no_span), "{span:#?}");
    let linked = |link: &celeryscope_core::Link| link.trace_id != no_trace && link.span_id != no_span;
    assert!(span.links.iter().all(linked), "{span:#?}");
    assert!(span.events.is_sorted_by_key(|event| event.at), "{span:#?}");
    assert!(!span.name.is_empty(), "{span:#?}");
}

/// Every sum that stats.rs claims, and every cap.
pub fn holds(stats: &Stats, held: &Held, put: Put, when: &str) {
    sums(stats, held, put, when);
    for (what, held, limit) in [
        ("connections", held.connections_held, held.connections_limit),
        ("attempts", held.attempts_held, held.attempts_limit),
        ("runs", held.runs_held, held.runs_limit),
        ("publishes", held.publishes_held, held.publishes_limit),
        ("tasks", held.tasks_held, held.tasks_limit),
        ("groups", held.groups_held, held.groups_limit),
        ("processes", held.processes_held, held.processes_limit),
        ("forks", held.forks_held, held.processes_limit),
        (
            "bytes of streams",
            held.stream_bytes_held,
            held.stream_bytes_limit,
        ),
        // One each, and never one of what is gone.
        (
            "timers",
            held.timers_held,
            held.attempts_held + held.runs_held + held.publishes_held,
        ),
    ] {
        assert!(held <= limit, "{what}: {held} of {limit}, {when}");
    }
    // The youngest of each stays, however much it weighs.
    let youngest = held.attempts_held <= 1 && held.publishes_held <= 1;
    let (weight, limit) = (held.message_bytes_held, held.message_bytes_limit);
    assert!(
        weight <= limit || youngest,
        "bytes of messages: {weight} of {limit}, {when}"
    );
}

fn sums(stats: &Stats, held: &Held, put: Put, when: &str) {
    let sum = |what: &str, left: u64, right: u64| {
        assert_eq!(left, right, "{what}, {when}: {stats:#?} {held:#?}");
    };
    let kinds = [
        stats.records_transfer,
        stats.records_pipe,
        stats.records_process,
        stats.records_control,
        stats.records_idle,
        stats.records_rejected,
    ];
    sum("records", stats.records, kinds.iter().sum());
    let gone = stats.connections_closed + stats.connections_evicted;
    sum("connections", stats.connections, gone + held.connections_held);
    sum(
        "RESP",
        stats.resp_bytes.saturating_add(stats.resp_gap_bytes),
        stats
            .resp_item_bytes
            .saturating_add(stats.resp_skipped_bytes)
            .saturating_add(stats.resp_unfinished_bytes)
            .saturating_add(held.resp_pending_bytes),
    );
    sum(
        "AMQP",
        stats.amqp_bytes.saturating_add(stats.amqp_gap_bytes),
        stats
            .amqp_frame_bytes
            .saturating_add(stats.amqp_skipped_bytes)
            .saturating_add(stats.amqp_unfinished_bytes)
            .saturating_add(held.amqp_pending_bytes),
    );
    sum("bytes", stats.stream_bytes, stats.resp_bytes + stats.amqp_bytes);
    let gaps = stats.resp_gap_bytes.saturating_add(stats.amqp_gap_bytes);
    sum("bytes in gaps", stats.stream_gap_bytes, gaps);
    let over = stats.runs + stats.attempts_unstarted;
    sum(
        "attempts",
        stats.attempts,
        over + held.attempts_held + held.runs_held,
    );
    let publishes = stats.publishes - held.publishes_held;
    sum("publishes", publishes, put.publishes);
    sum("runs", stats.runs, put.runs);
    sum("spans", stats.spans, publishes + stats.runs);
}

/// The same after the input has ended: all is put out, all is given back.
pub fn over(stats: &Stats, held: &Held, put: Put) {
    holds(stats, held, put, "at the end");
    let left = [
        held.connections_held,
        held.attempts_held,
        held.runs_held,
        held.publishes_held,
        held.message_bytes_held,
        held.stream_bytes_held,
        held.timers_held,
    ];
    assert_eq!(left, [0; 7], "something is left: {held:#?}");
}
