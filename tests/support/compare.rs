//! Spans against the truth: what is missing, what is too much, what is wrong.
//!
//! Ids and parents are worked out here from the rules alone (a hash of what the message says), not with the core's
//! code. Nothing is passed over in silence: a span that no publish and no run explains is a problem.

mod check;
mod ids;
mod message;
mod publish;
mod report;
mod run;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use celeryscope_core::{Span, SpanKind};

use super::truth::{Run, Task, Truth};
use check::{label, off, seconds};
use report::ms;

pub use check::{int, span_label, text};
pub use ids::{publish_id, trace_id};
pub use report::{Report, quantile};

/// How near the spans must be to the truth, and what of it the set-up can show.
#[derive(Clone, Copy, Debug)]
pub struct Expect {
    /// A publish starts no earlier than this before `before_task_publish`.
    pub publish_before: Duration,
    /// A publish ends no later than this after `after_task_publish`.
    pub publish_after: Duration,
    /// 95 of 100 runs start this near to `task_prerun`.
    pub start_p95: Duration,
    /// 95 of 100 runs end this near to `task_postrun`.
    pub end_p95: Duration,
    /// `celery.timing` of every run that started; none: not looked at.
    pub timing: Option<&'static str>,
    /// Whether each run must show its `delivered` and `acked` events.
    pub events: bool,
    /// Whether clients are on another host than workers: no agent sees for how long a client's message waited.
    pub clients_apart: bool,
    /// Whether the broker went away, and may not have read an ack that a worker sent.
    pub acks_unread: bool,
    /// Whether it is known of each connection which broker it leads to. Where it is not, a span may leave that out.
    pub broker_known: bool,
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            publish_before: Duration::from_millis(1),
            publish_after: Duration::from_millis(5),
            start_p95: Duration::from_millis(2),
            end_p95: Duration::from_millis(2),
            timing: Some("pool"),
            events: true,
            clients_apart: false,
            acks_unread: false,
            broker_known: true,
        }
    }
}

/// Compares everything. The order of `spans` is of no importance.
pub fn compare(spans: &[Span], truth: &Truth, expect: &Expect) -> Report {
    let mut comparison = Comparison {
        truth,
        expect,
        spans,
        used: vec![false; spans.len()],
        runs: HashMap::new(),
        report: Report {
            scenario: truth.scenario.clone(),
            ..Report::default()
        },
    };
    comparison.all();
    comparison.report
}

/// What tells a run in the truth from all others.
type RunKey<'a> = (&'a str, i64, u32, u64);

fn run_key<'a>(task: &'a Task, run: &Run) -> RunKey<'a> {
    (&task.id, run.retries, run.pid, run.start.to_bits())
}

struct Comparison<'a> {
    truth: &'a Truth,
    expect: &'a Expect,
    spans: &'a [Span],
    used: Vec<bool>,
    runs: HashMap<RunKey<'a>, &'a Span>,
    report: Report,
}

impl<'a> Comparison<'a> {
    fn all(&mut self) {
        let truth = self.truth;
        let publishes = self
            .spans
            .iter()
            .filter(|span| span.kind == SpanKind::Publish)
            .count();
        self.report.counts = format!(
            "publishes {publishes} of {}, runs {} of {}",
            truth.publishes().count(),
            self.spans.len() - publishes,
            truth.runs().count()
        );
        for (task, run) in truth.runs() {
            match self.take(
                SpanKind::Run,
                &task.id,
                run.retries,
                &run.name,
                Some(run.pid),
                run.start,
            ) {
                Some(span) => _ = self.runs.insert(run_key(task, run), span),
                None => self.wrong("missing", &label("run", &task.id, run.retries, &run.name), ""),
            }
        }
        for (task, run) in truth.runs() {
            if let Some(span) = self.runs.get(&run_key(task, run)) {
                self.run(span, task, run);
            }
        }
        for (task, publish) in truth.publishes() {
            match self.take(
                SpanKind::Publish,
                &task.id,
                publish.retries,
                &publish.name,
                None,
                publish.before,
            ) {
                Some(span) => self.publish(span, task, publish),
                None => {
                    self.wrong(
                        "missing",
                        &label("publish", &task.id, publish.retries, &publish.name),
                        "",
                    );
                }
            }
        }
        for (task, publish) in truth.publishes() {
            self.unstarted(task, publish);
        }
        for (span, _) in self.spans.iter().zip(&self.used).filter(|(_, used)| !**used) {
            let state = text(span, "celery.state").unwrap_or("-");
            let detail = format!(
                "state {state} start {:.6} end {:.6}",
                seconds(span.start.0),
                seconds(span.end.0)
            );
            self.report.problem("extra", span_label(span), detail);
        }
        let mut ids = HashSet::new();
        for span in self.spans {
            if span.span_id.0 == [0; 8] || span.trace_id.0 == [0; 16] || !ids.insert(span.span_id) {
                self.report
                    .problem("wrong", span_label(span), "id is zero or used twice");
            }
        }
        let (starts, ends) = (quantile(&self.report.starts, 95), quantile(&self.report.ends, 95));
        for (what, error, cap) in [
            ("start", starts, self.expect.start_p95),
            ("end", ends, self.expect.end_p95),
        ] {
            if error > cap {
                let detail = format!(
                    "p95 of {what} is off by {:.3} ms, allowed are {:.3}",
                    ms(error),
                    ms(cap)
                );
                self.report.problem("late", "runs", detail);
            }
        }
    }

    fn wrong(&mut self, what: &str, whose: &str, detail: &str) {
        self.report.problem(what, whose, detail);
    }

    /// The span that best fits, taken out of the set.
    fn take(
        &mut self,
        kind: SpanKind,
        id: &str,
        retries: i64,
        name: &str,
        pid: Option<u32>,
        start: f64,
    ) -> Option<&'a Span> {
        let spans = self.spans;
        let best = spans
            .iter()
            .enumerate()
            .filter(|(i, span)| {
                !self.used[*i]
                    && span.kind == kind
                    && text(span, "messaging.message.id") == Some(id)
                    && text(span, "celery.task_name") == Some(name)
                    && int(span, "celery.retry_count") == Some(retries)
            })
            .min_by_key(|(_, span)| {
                let other_process = pid.is_some_and(|pid| int(span, "process.pid") != Some(i64::from(pid)));
                (other_process, off(span.start.0, start))
            })?;
        self.used[best.0] = true;
        Some(best.1)
    }
}
