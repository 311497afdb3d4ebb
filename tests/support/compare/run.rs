//! Runs: times, outcome, how long the message waited; and messages that were taken and never started.

use celeryscope_core::{Span, SpanKind, Value};

use super::check::{Check, label, off, outcome, rfc3339, seconds, shown, states, text};
use super::{Comparison, publish_id};
use crate::support::truth::{Publish, Run, Task};

impl Comparison<'_> {
    /// One that the truth tells, against its span.
    pub(super) fn run(&mut self, span: &Span, task: &Task, run: &Run) {
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
        // A message that is put back is not acked, and what RabbitMQ has read an ack of it does not deliver again. Redis does where the
        // ack came after the visibility timeout; of a run that ended it may also be that its worker was killed before it could ack.
        let put_back = |retval: &String| retval.starts_with("reject requeue=True");
        let again = |other: &Run| other.retries == run.retries && other.start > run.start;
        let made_again = task
            .runs
            .iter()
            .any(|other| again(other) && other.redelivered == Some(true));
        let acks = if run.retval.as_ref().is_some_and(put_back) {
            0..=0
        } else if made_again
            && run.state.is_some()
            && (self.truth.broker == "redis" || self.expect.acks_unread)
        {
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

    /// A message that was taken but never started may show as one run with the outcome that the truth tells.
    pub(super) fn unstarted(&mut self, task: &Task, publish: &Publish) {
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
