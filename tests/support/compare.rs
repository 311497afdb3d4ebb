//! Spans against the truth: what is missing, what is too much, what is wrong.
//!
//! Ids and parents are worked out here from the rules alone (a hash of what the message says), not with the core's
//! code. Nothing is passed over in silence: a span that no publish and no run explains is a problem.

mod check;
mod ids;
mod report;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use celeryscope_core::{Link, Span, SpanId, SpanKind, Status, Value};

use super::truth::{Publish, Run, Task, Truth};
use check::{Check, label, off, outcome, rfc3339, seconds, shown, states};
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

    fn publish(&mut self, span: &Span, task: &Task, publish: &Publish) {
        let mut check = Check::new(&label("publish", &task.id, publish.retries, &publish.name), span);
        self.message(&mut check, task, publish, "publish", "send");
        check.attribute("process.pid", i64::from(publish.pid));
        check.attribute("thread.id", i64::from(publish.tid));
        check.same("span id", span.span_id, publish_id(task, publish));
        check.same("status", &span.status, &Status::Unset);
        check.same("process", span.process.pid, self.truth.leader(publish.pid));
        let (start, end) = (seconds(span.start.0), seconds(span.end.0));
        check.that(
            start >= publish.before - self.expect.publish_before.as_secs_f64() && end >= start,
            || format!("starts {:.3} ms before the truth", (publish.before - start) * 1e3),
        );
        check.that(
            end <= publish.after + self.expect.publish_after.as_secs_f64(),
            || format!("ends {:.3} ms after the truth", (end - publish.after) * 1e3),
        );
        self.publish_parent(&mut check, task, publish);
        if publish.retries == 0 {
            self.chord(&mut check, task);
        }
        if publish.retries > 0
            && let Some(first) = task.publishes.iter().find(|first| first.retries == 0)
        {
            let link = Link {
                trace_id: trace_id(first),
                span_id: publish_id(task, first),
            };
            check.that(span.links.contains(&link), || {
                format!("no link to the first publish {}", link.span_id)
            });
        }
        self.report.problems.append(&mut check.problems);
    }

    /// A chord's callback links to the publishes of all that it waited for.
    fn chord(&self, check: &mut Check<'_>, task: &Task) {
        let header: HashSet<&String> = task.other.iter().flat_map(|other| &other.header).collect();
        for (part, publish) in self.truth.publishes() {
            if publish.retries == 0 && header.contains(&part.id) {
                let link = Link {
                    trace_id: trace_id(publish),
                    span_id: publish_id(part, publish),
                };
                check.that(check.span.links.contains(&link), || {
                    format!(
                        "no link to {} of the chord",
                        label("publish", &part.id, 0, &publish.name)
                    )
                });
            }
        }
    }

    /// The run that sent it, unless the message's trace context says who did. A context that an earlier message of the
    /// same task had already is only carried along.
    fn publish_parent(&mut self, check: &mut Check<'_>, task: &Task, publish: &Publish) {
        let sender = self.truth.runs().find(|(sender, run)| {
            run.pid == publish.pid
                && run.tid == publish.tid
                && run.start <= publish.before
                && run.end.is_none_or(|end| publish.after <= end)
                && (publish.parent_id.as_ref() == Some(&sender.id)
                    || sender.id == task.id
                    || publish.protocol == Some(1))
        });
        let carried = task
            .publishes
            .iter()
            .any(|earlier| earlier.before < publish.before && earlier.traceparent == publish.traceparent);
        let context = publish.traceparent.filter(|_| !(carried && sender.is_some()));
        if let Some(context) = context {
            check.same("parent", check.span.parent, Some(SpanId(context.span)));
            return;
        }
        let Some((sender, run)) = sender else {
            check.same("parent", check.span.parent, None);
            return;
        };
        // When its span is missing, that is told already.
        let Some(run) = self.runs.get(&run_key(sender, run)) else {
            return;
        };
        if run.trace_id == trace_id(publish) {
            check.same("parent", check.span.parent, Some(run.span_id));
        } else {
            check.same("parent", check.span.parent, None);
            let link = Link {
                trace_id: run.trace_id,
                span_id: run.span_id,
            };
            check.that(check.span.links.contains(&link), || {
                format!(
                    "no link to the run {} that sent it, which is in another trace",
                    run.span_id
                )
            });
        }
    }

    fn run(&mut self, span: &Span, task: &Task, run: &Run) {
        let mut check = Check::new(&label("run", &task.id, run.retries, &run.name), span);
        let publish = sent(task, run);
        if let Some(publish) = publish {
            self.message(&mut check, task, publish, "run", "process");
            check.same("parent", span.parent, Some(publish_id(task, publish)));
            self.queue_time(&mut check, publish, run);
        }
        check.attribute("process.pid", i64::from(run.pid));
        // Which of a pool's threads ran it is told by its result or by what it sends.
        let told = self.truth.has_results() || self.expect.timing.is_some();
        if told || span.attribute("thread.id").is_some() {
            check.attribute("thread.id", i64::from(run.tid));
        }
        check.same("process", span.process.pid, self.truth.leader(run.pid));
        if let Some(timing) = self.expect.timing {
            check.attribute("celery.timing", timing);
        }
        if let Some(redelivered) = run.redelivered {
            check.attribute("celery.redelivered", redelivered);
        }
        check.that(text(span, "celery.hostname").is_some(), || {
            "no celery.hostname".to_owned()
        });
        let results = self.truth.has_results();
        let states = states(task, run, results);
        let state = text(span, "celery.state").unwrap_or("-");
        check.that(states.contains(&state), || {
            format!("celery.state: want {states:?}, got {state}")
        });
        outcome(&mut check, state, task, run, results);
        if self.expect.events {
            self.events(&mut check, publish, task, run);
        }
        check.that(span.start <= span.end, || "ends before it starts".to_owned());
        self.report.starts.push(off(span.start.0, run.start));
        if let Some(end) = run.end {
            self.report.ends.push(off(span.end.0, end));
        }
        self.report.problems.append(&mut check.problems);
    }

    /// From the end of the publish, or the ETA where that is later, to the start.
    fn queue_time(&self, check: &mut Check<'_>, publish: &Publish, run: &Run) {
        let slack = self.expect.start_p95.as_secs_f64() + self.expect.publish_after.as_secs_f64();
        let eta = publish.eta.as_deref().and_then(rfc3339);
        let by_client = !self.truth.runs().any(|(_, run)| run.pid == publish.pid);
        if self.expect.clients_apart && by_client && eta.is_none() {
            let got = check.span.attribute("celery.queue_time");
            return check.that(got.is_none(), || {
                format!(
                    "celery.queue_time of a message whose publish nobody saw: got {}",
                    shown(got)
                )
            });
        }
        let due = |published: f64| eta.map_or(published, |eta| eta.max(published));
        let from = (due(publish.before), due(publish.after));
        let bounds = ((run.start - from.1 - slack).max(0.0), run.start - from.0 + slack);
        match check.span.attribute("celery.queue_time") {
            Some(Value::Float(time)) => check.that(*time >= bounds.0 && *time <= bounds.1, || {
                format!(
                    "celery.queue_time: want {:.3} to {:.3}, got {time:.3}",
                    bounds.0, bounds.1
                )
            }),
            other => check.that(false, || {
                format!("celery.queue_time: want seconds, got {}", shown(other))
            }),
        }
    }

    fn events(&self, check: &mut Check<'_>, publish: Option<&Publish>, task: &Task, run: &Run) {
        let after = publish.map_or(0.0, |publish| publish.before) - self.expect.publish_before.as_secs_f64();
        let before = run.start + self.expect.start_p95.as_secs_f64();
        // A message that is put back is not acked, and what RabbitMQ has an ack of it does not deliver again. Redis does where the
        // ack came after the visibility timeout; of a run that ended it may also be that its worker was killed before it could ack.
        let put_back = |retval: &String| retval.starts_with("reject requeue=True");
        let again = |other: &Run| other.retries == run.retries && other.start > run.start;
        let made_again = task
            .runs
            .iter()
            .any(|other| again(other) && other.redelivered == Some(true));
        let acks = if run.retval.as_ref().is_some_and(put_back) {
            0..=0
        } else if made_again && run.state.is_some() && self.truth.broker == "redis" {
            0..=1
        } else {
            let acks = usize::from(!made_again);
            acks..=acks
        };
        for (name, count, latest) in [("delivered", 1..=1, before), ("acked", acks, f64::INFINITY)] {
            let at: Vec<f64> = check
                .span
                .events
                .iter()
                .filter(|event| event.name == name)
                .map(|event| seconds(event.at.0))
                .collect();
            let in_time = at.iter().all(|at| (after..=latest).contains(at));
            check.that(count.contains(&at.len()) && in_time, || {
                format!("event {name}: want {count:?} between {after:.6} and {latest:.6}, got {at:?}")
            });
        }
    }

    /// What publish and run have in common: the message.
    fn message(&self, check: &mut Check<'_>, task: &Task, publish: &Publish, operation: &str, kind: &str) {
        let span = check.span;
        check.same(
            "name",
            &*span.name,
            format!("{operation} {}", publish.name).as_str(),
        );
        check.same("trace id", span.trace_id, trace_id(publish));
        check.same(
            "sampled",
            span.sampled,
            publish.traceparent.map(|context| context.sampled),
        );
        let system = if self.truth.broker == "amqp" {
            "rabbitmq"
        } else {
            self.truth.broker.as_str()
        };
        check.attribute("messaging.system", system.to_owned());
        check.attribute("messaging.operation.name", operation.to_owned());
        check.attribute("messaging.operation.type", kind.to_owned());
        check.attribute("messaging.message.conversation_id", task.id.clone());
        check.attribute("celery.task_id", task.id.clone());
        let names_root = publish.protocol != Some(1);
        check.optional(
            "celery.root_id",
            Some(publish.root_id.as_str()).filter(|_| names_root),
        );
        check.optional("celery.parent_id", publish.parent_id.as_deref());
        check.optional("celery.group_id", task.group.as_deref());
        check.optional("celery.eta", publish.eta.as_deref());
        check.optional("celery.expires", publish.expires.as_deref());
        check.optional("celery.origin", publish.origin.as_deref());
        let stamps =
            text(span, "celery.stamps").map(|json| serde_json::from_str::<serde_json::Value>(json).ok());
        check.that(publish.stamps == stamps.clone().flatten(), || {
            format!("celery.stamps: want {:?}, got {stamps:?}", publish.stamps)
        });
        match publish.priority {
            // Celery sends 0 when nothing was asked for.
            None | Some(0) => {
                let got = span.attribute("celery.priority");
                check.that(matches!(got, None | Some(Value::Int(0))), || {
                    format!("celery.priority: want none or 0, got {}", shown(got))
                });
            }
            Some(priority) => check.attribute("celery.priority", priority),
        }
        if let ("", Some(routing_key)) = (publish.exchange.as_str(), &publish.routing_key) {
            check.attribute("messaging.destination.name", routing_key.clone());
        } else {
            let got = text(span, "messaging.destination.name");
            check.that(got.is_some_and(|name| !name.is_empty()), || {
                format!("messaging.destination.name: want a name, got {got:?}")
            });
        }
        let size = int(span, "messaging.message.envelope.size");
        check.that(size > Some(0), || {
            format!("messaging.message.envelope.size: want bytes, got {size:?}")
        });
        let named = self.expect.broker_known || span.attribute("server.port").is_some();
        if let Some(port) = self.truth.broker_port.filter(|_| named) {
            check.attribute("server.port", i64::from(port));
        }
    }

    /// A message that was taken but never started may show as one run with the outcome that the truth tells.
    fn unstarted(&mut self, task: &Task, publish: &Publish) {
        if task
            .runs
            .iter()
            .any(|run| run.retries == publish.retries && run.name == publish.name)
        {
            return;
        }
        let states: &[&str] = if !self.truth.has_results() {
            // Acked, and that is all there is to see.
            &["-"]
        } else if task.other.iter().any(|other| other.ev == "revoked") {
            &["REVOKED"]
        } else if task.received.is_empty() {
            // The worker knows no such task: no signal says so.
            &["FAILURE", "REJECTED"]
        } else {
            return;
        };
        let taken = self.take(
            SpanKind::Run,
            &task.id,
            publish.retries,
            &publish.name,
            None,
            publish.after,
        );
        let Some(span) = taken else { return };
        let mut check = Check::new(&label("run", &task.id, publish.retries, &publish.name), span);
        self.message(&mut check, task, publish, "run", "process");
        check.same("parent", span.parent, Some(publish_id(task, publish)));
        let state = text(span, "celery.state").unwrap_or("-");
        check.that(states.contains(&state), || {
            format!("celery.state of a run that never started: want {states:?}, got {state}")
        });
        check.that(span.start <= span.end, || "ends before it starts".to_owned());
        self.report.problems.append(&mut check.problems);
    }
}

/// The publish that a run came from.
fn sent<'a>(task: &'a Task, run: &Run) -> Option<&'a Publish> {
    task.publishes.iter().find(|publish| {
        publish.retries == run.retries && publish.name == run.name && publish.replacements == run.replacements
    })
}
