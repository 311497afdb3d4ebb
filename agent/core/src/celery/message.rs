//! A task message: what its sender said about it, in either protocol.

use super::traceparent::TraceParent;

/// One task message, owned: it outlives the bytes it came in.
///
/// Protocol 2 (`celery/app/amqp.py: as_task_v2`) keeps everything in the headers; protocol 1 (`as_task_v1`) in the body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskMessage {
    /// `messaging.system` of the broker it went through; `None` where it is known only from a pool's frame.
    pub system: Option<&'static str>,
    /// Task id.
    pub id: String,
    /// Task name.
    pub name: String,
    /// Id of the workflow's first task; protocol 1 has none.
    pub root_id: Option<String>,
    /// Id of the task that published this one.
    pub parent_id: Option<String>,
    /// Group id.
    pub group: Option<String>,
    /// Of a `celery.chord_unlock`: the group that is the chord's header.
    pub unlocks: Option<String>,
    /// 0 for a first attempt.
    pub retries: u32,
    /// How often `Task.replace` published this id before.
    pub replacements: u32,
    /// Not before this time (ISO 8601), as sent.
    pub eta: Option<String>,
    /// Not after this time, as sent.
    pub expires: Option<String>,
    /// Priority, where it is not the default 0.
    pub priority: Option<i64>,
    /// `gen<pid>@<host>` of the first publisher.
    pub origin: Option<String>,
    /// Queue for results.
    pub reply_to: Option<String>,
    /// Correlation id.
    pub correlation_id: Option<String>,
    /// No result is kept.
    pub ignore_result: bool,
    /// W3C context, where the sender was instrumented.
    pub traceparent: Option<TraceParent>,
    /// W3C tracestate that goes with it.
    pub tracestate: Option<String>,
    /// Exchange; empty for the default one.
    pub exchange: String,
    /// Routing key.
    pub routing_key: String,
    /// Name of this message in the unacked set.
    pub delivery_tag: String,
    /// It was put back after an earlier delivery.
    pub redelivered: bool,
    /// Bytes of the whole envelope.
    pub envelope_size: u64,
    /// Bytes of the body, decoded from its transfer encoding.
    pub body_size: Option<u64>,
    /// Positional arguments, where they could be counted.
    pub args_count: Option<u64>,
    /// Keyword arguments, where they could be counted.
    pub kwargs_count: Option<u64>,
    /// Stamps as the JSON object that was sent, where there are any.
    pub stamps: Option<String>,
    /// `argsrepr` and `kwargsrepr`, kept only on request.
    pub reprs: Option<(String, String)>,
}

impl TaskMessage {
    /// Bytes of memory behind it, nearly.
    #[must_use]
    pub(crate) fn weight(&self) -> u64 {
        let always = [
            &self.id,
            &self.name,
            &self.exchange,
            &self.routing_key,
            &self.delivery_tag,
        ];
        let optional = [
            &self.root_id,
            &self.parent_id,
            &self.group,
            &self.unlocks,
            &self.eta,
            &self.expires,
            &self.origin,
            &self.reply_to,
            &self.correlation_id,
            &self.tracestate,
            &self.stamps,
        ];
        let reprs = self
            .reprs
            .as_ref()
            .map_or(0, |(args, kwargs)| args.len().saturating_add(kwargs.len()));
        let text = always
            .into_iter()
            .chain(optional.into_iter().flatten())
            .map(String::len)
            .sum::<usize>();
        (size_of::<Self>().saturating_add(text).saturating_add(reprs)) as u64
    }
}
