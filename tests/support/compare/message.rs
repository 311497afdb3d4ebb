//! What publish and run have in common: the message.

use celeryscope_core::Value;

use super::check::{Check, int, shown, text};
use super::{Comparison, trace_id};
use crate::support::truth::{Publish, Task};

impl Comparison<'_> {
    /// What the span says of it.
    pub(super) fn message(
        &self,
        check: &mut Check<'_>,
        task: &Task,
        publish: &Publish,
        operation: &str,
        kind: &str,
    ) {
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
}
