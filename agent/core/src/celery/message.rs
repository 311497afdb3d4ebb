//! A task message: what its sender said about it, in either protocol.

use std::sync::Arc;

use super::traceparent::TraceParent;

/// One task message, owned: it outlives the bytes it came in.
///
/// Protocol 2 (`celery/app/amqp.py: as_task_v2`) keeps everything in the headers; protocol 1 (`as_task_v1`) in the body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskMessage {
    /// `messaging.system` of the broker it went through; `None` where it is known only from a pool's frame.
    pub system: Option<&'static str>,
    /// Task id.
    pub id: Arc<str>,
    /// Task name.
    pub name: Arc<str>,
    /// Id of the workflow's first task; protocol 1 has none.
    pub root_id: Option<Arc<str>>,
    /// Id of the task that published this one.
    pub parent_id: Option<Arc<str>>,
    /// Group id.
    pub group: Option<Arc<str>>,
    /// 0 for a first attempt.
    pub retries: u32,
    /// How often `Task.replace` published this id before.
    pub replacements: u32,
    /// Priority, where it is not the default 0.
    pub priority: Option<i64>,
    /// `gen<pid>@<host>` of the first publisher.
    pub origin: Option<Arc<str>>,
    /// Queue for results.
    pub reply_to: Option<Arc<str>>,
    /// Correlation id.
    pub correlation_id: Option<Arc<str>>,
    /// No result is kept.
    pub ignore_result: bool,
    /// W3C context, where the sender was instrumented.
    pub traceparent: Option<TraceParent>,
    /// Exchange; empty for the default one.
    pub exchange: Arc<str>,
    /// Routing key.
    pub routing_key: Arc<str>,
    /// Name of this message in the unacked set.
    pub delivery_tag: Arc<str>,
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
    /// What few messages have.
    pub rare: Option<Box<Rare>>,
}

/// What few messages have: most tasks in flight need no room for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rare {
    /// Of a `celery.chord_unlock`: the group that is the chord's header.
    pub unlocks: Option<Arc<str>>,
    /// Not before this time (ISO 8601), as sent.
    pub eta: Option<Arc<str>>,
    /// Not after this time, as sent.
    pub expires: Option<Arc<str>>,
    /// W3C tracestate that goes with the traceparent.
    pub tracestate: Option<Arc<str>>,
    /// Stamps as the JSON object that was sent, where there are any.
    pub stamps: Option<Arc<str>>,
    /// `argsrepr` and `kwargsrepr`, kept only on request.
    pub reprs: Option<(String, String)>,
}

impl Rare {
    const NONE: Self = Self {
        unlocks: None,
        eta: None,
        expires: None,
        tracestate: None,
        stamps: None,
        reprs: None,
    };

    /// Itself, unless there is nothing in it.
    #[must_use]
    pub fn kept(self) -> Option<Box<Self>> {
        (self != Self::NONE).then(|| Box::new(self))
    }

    fn weight(&self) -> usize {
        let texts = [
            &self.unlocks,
            &self.eta,
            &self.expires,
            &self.tracestate,
            &self.stamps,
        ];
        let reprs = self
            .reprs
            .iter()
            .flat_map(|(args, kwargs)| [args.len(), kwargs.len()]);
        let texts = texts.into_iter().flatten().map(|text| text.len());
        texts
            .chain(reprs)
            .chain([size_of::<Self>()])
            .fold(0, usize::saturating_add)
    }
}

impl TaskMessage {
    /// What few messages have, or nothing of it.
    #[must_use]
    pub fn rare(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&Rare::NONE)
    }

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
            &self.origin,
            &self.reply_to,
            &self.correlation_id,
        ];
        let rare = self.rare.as_ref().map_or(0, |rare| rare.weight());
        let text = always
            .into_iter()
            .chain(optional.into_iter().flatten())
            .map(|text| text.len())
            .sum::<usize>();
        (size_of::<Self>().saturating_add(text).saturating_add(rare)) as u64
    }
}
