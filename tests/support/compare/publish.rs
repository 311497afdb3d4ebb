//! Publishes: times, who sent them, what they link to.

use std::collections::HashSet;

use celeryscope_core::{Link, Span, SpanId, Status};

use super::check::{Check, label, seconds};
use super::{Comparison, publish_id, run_key, trace_id};
use crate::support::truth::{Publish, Task};

impl Comparison<'_> {
    /// One that the truth tells, against its span.
    pub(super) fn publish(&mut self, span: &Span, task: &Task, publish: &Publish) {
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
}
