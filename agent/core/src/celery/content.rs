//! What an envelope holds: a task message, a result, events, or nothing of ours.

use std::sync::Arc;

use super::body::{Body, count_arguments};
use super::document::Form;
use super::envelope::{Contiguous, Envelope, Properties, Text};
use super::event::{self, TaskEvent};
use super::headers::Headers;
use super::legacy;
use super::message::{Rare, TaskMessage};
use super::result::ResultMeta;
use crate::wire::amqp::ContentHeader;

/// Gives what many messages say alike (their task's name, their queue, their sender) as text that they share.
pub type Share<'a> = &'a dyn Fn(&str) -> Arc<str>;

/// Bytes of stamps that are kept.
const LONGEST_STAMPS: usize = 4096;

/// What an envelope turned out to hold.
#[derive(Debug)]
pub enum Content {
    /// A task message.
    Task(Box<TaskMessage>),
    /// A result sent as a message (`rpc://`).
    Reply {
        /// The task's id, from `correlation_id`.
        task_id: String,
        /// What it says.
        meta: Box<ResultMeta>,
    },
    /// Events of the worker (or client) with this name, maybe about tasks.
    Events {
        /// `w1@host`.
        hostname: String,
        /// Those about tasks.
        events: Vec<TaskEvent>,
    },
    /// Something else that is no task: control traffic, a message of another program.
    Other,
    /// Claims to be a task but isn't a readable one.
    Malformed,
}

/// Reads what an envelope of `envelope_size` bytes holds. Argument representations are kept only when `keep_args`.
#[must_use]
pub fn read(captured: &Contiguous<'_>, envelope_size: u64, keep_args: bool, share: Share<'_>) -> Content {
    let mut envelope = Envelope::default();
    if captured.read(&mut envelope).is_err() {
        return Content::Malformed;
    }
    let Some(headers) = &envelope.headers else {
        return Content::Other;
    };
    let properties = &envelope.properties;
    let base64 = properties.body_encoding.is_none_or(|e| e.get() == "base64");
    let text = envelope.body.get();
    let body = Body::new(&text, base64, captured.cut_body());
    let content_type = envelope.content_type.map(Text::get);
    let compression = headers.compression.map(Text::get);
    let form = Form {
        content_type: content_type.as_deref(),
        compression: compression.as_deref(),
    };
    let mut message = match (&headers.task, &headers.id) {
        (Some(_), Some(_)) => {
            let place = Place::of(properties, share);
            protocol_2(headers, body.arguments(form), keep_args, share, place)
        }
        (None, None) => {
            let decoded = body.decoded();
            let json = decoded.as_deref().and_then(|bytes| form.json(bytes));
            if let Some(name) = headers.hostname {
                return events(name, json.as_deref());
            }
            let correlation_id = properties.correlation_id.map(Text::get);
            match without_headers(json.as_deref(), correlation_id.as_deref(), share) {
                Ok(message) => Place::of(properties, share).given(message),
                Err(content) => return content,
            }
        }
        _ => return Content::Malformed,
    };
    message.system = Some("redis");
    message.envelope_size = envelope_size;
    message.body_size = Some(body.size());
    message.priority = properties.priority.filter(|p| *p != 0);
    message.reply_to = shared(properties.reply_to, share);
    message.correlation_id = owned_or(&message.id, properties.correlation_id);
    message.redelivered = properties.delivery_info.redelivered.unwrap_or(false);
    Content::Task(Box::new(message))
}

/// Reads an AMQP message: what its content header and, where it was kept whole, its body say. `size` is that of header
/// and body together.
#[must_use]
pub fn read_amqp(
    header: &ContentHeader<'_>,
    body: Option<&[u8]>,
    size: u64,
    keep_args: bool,
    share: Share<'_>,
) -> Content {
    let mut headers = Headers::default();
    if let Some(table) = header.headers
        && Headers::read_table(&table, &mut headers).is_err()
    {
        return Content::Malformed;
    }
    let compression = headers.compression.map(Text::get);
    let form = Form {
        content_type: header.content_type,
        compression: compression.as_deref(),
    };
    let json = body.and_then(|bytes| form.json(bytes));
    let mut message = match (&headers.task, &headers.id) {
        (Some(_), Some(_)) => {
            let counts = json.as_deref().and_then(count_arguments);
            protocol_2(&headers, counts, keep_args, share, Place::default())
        }
        (None, None) => {
            if let Some(name) = headers.hostname {
                return events(name, json.as_deref());
            }
            match without_headers(json.as_deref(), header.correlation_id, share) {
                Ok(message) => message,
                Err(content) => return content,
            }
        }
        _ => return Content::Malformed,
    };
    message.envelope_size = size;
    message.body_size = Some(header.body_size);
    message.priority = header.priority.map(i64::from).filter(|p| *p != 0);
    message.reply_to = header.reply_to.map(share);
    message.correlation_id = header.correlation_id.map(|id| shared_or(&message.id, id));
    Content::Task(Box::new(message))
}

fn events(hostname: Text<'_>, json: Option<&[u8]>) -> Content {
    Content::Events {
        hostname: hostname.get().into_owned(),
        events: json.map_or_else(Vec::new, event::parse),
    }
}

#[inline]
fn owned(text: Option<Text<'_>>) -> Option<Arc<str>> {
    text.map(|text| Arc::from(text.get()))
}

fn shared(text: Option<Text<'_>>, share: Share<'_>) -> Option<Arc<str>> {
    text.map(|text| share(&text.get()))
}

/// The same, shared with the task's id where it is that: a first task is its own root and, nearly always, its own conversation.
fn owned_or(id: &Arc<str>, text: Option<Text<'_>>) -> Option<Arc<str>> {
    text.map(|text| shared_or(id, &text.get()))
}

fn shared_or(id: &Arc<str>, text: &str) -> Arc<str> {
    if **id == *text {
        Arc::clone(id)
    } else {
        Arc::from(text)
    }
}

/// Where an envelope goes.
#[derive(Default)]
struct Place {
    exchange: Arc<str>,
    routing_key: Arc<str>,
    delivery_tag: Arc<str>,
}

impl Place {
    fn of(properties: &Properties<'_>, share: Share<'_>) -> Self {
        let info = &properties.delivery_info;
        Self {
            exchange: shared(info.exchange, share).unwrap_or_default(),
            routing_key: shared(info.routing_key, share).unwrap_or_default(),
            delivery_tag: owned(properties.delivery_tag).unwrap_or_default(),
        }
    }

    fn given(self, message: TaskMessage) -> TaskMessage {
        TaskMessage {
            exchange: self.exchange,
            routing_key: self.routing_key,
            delivery_tag: self.delivery_tag,
            ..message
        }
    }
}

fn protocol_2(
    headers: &Headers<'_>,
    counts: Option<(u64, u64)>,
    keep_args: bool,
    share: Share<'_>,
    place: Place,
) -> TaskMessage {
    let name = shared(headers.task, share).unwrap_or_default();
    let id = owned(headers.id).unwrap_or_default();
    TaskMessage {
        system: None,
        root_id: owned_or(&id, headers.root_id),
        rare: rare(headers, &name, keep_args),
        id,
        name,
        parent_id: owned(headers.parent_id),
        group: owned(headers.group),
        retries: headers.retries.unwrap_or(0),
        replacements: headers.replaced_task_nesting.unwrap_or(0),
        priority: None,
        origin: shared(headers.origin, share),
        reply_to: None,
        correlation_id: None,
        ignore_result: headers.ignore_result.unwrap_or(false),
        traceparent: headers.context(),
        exchange: place.exchange,
        routing_key: place.routing_key,
        delivery_tag: place.delivery_tag,
        redelivered: false,
        envelope_size: 0,
        body_size: None,
        args_count: counts.map(|c| c.0),
        kwargs_count: counts.map(|c| c.1),
    }
}

fn rare(headers: &Headers<'_>, name: &str, keep_args: bool) -> Option<Box<Rare>> {
    let stamps = (headers.stamps.as_deref()).filter(|json| json.len() > 2 && json.len() <= LONGEST_STAMPS);
    let unlocks = name == "celery.chord_unlock";
    let texts = [headers.eta, headers.expires, headers.tracestate];
    if !keep_args && !unlocks && stamps.is_none() && texts.iter().all(Option::is_none) {
        return None;
    }
    let repr = |text: Option<Text<'_>>| text.map_or_else(String::new, |text| text.get().into_owned());
    let reprs = keep_args.then(|| (repr(headers.argsrepr), repr(headers.kwargsrepr)));
    let unlocks = (headers.argsrepr)
        .filter(|_| unlocks)
        .and_then(|repr| first_text(&repr.get()));
    let rare = Rare {
        unlocks,
        eta: owned(headers.eta),
        expires: owned(headers.expires),
        tracestate: owned(headers.tracestate),
        stamps: stamps.map(Arc::from),
        reprs,
    };
    rare.kept()
}

/// The first of some arguments, where it is a string, from their `repr`: `('…', …)`, in a list when it is a retry's.
fn first_text(repr: &str) -> Option<Arc<str>> {
    let (text, _) = repr
        .strip_prefix(['(', '['])?
        .strip_prefix('\'')?
        .split_once('\'')?;
    Some(Arc::from(text))
}

/// Headers without a task: a protocol 1 message or a result, told apart by the body.
fn without_headers(
    json: Option<&[u8]>,
    correlation_id: Option<&str>,
    share: Share<'_>,
) -> Result<TaskMessage, Content> {
    let Some(json) = json else {
        return Err(Content::Other);
    };
    let (meta, names_a_task) = ResultMeta::or_task(json);
    if let Some(mut legacy) = names_a_task.then(|| legacy::read(json)).flatten() {
        legacy.name = share(&legacy.name);
        return Ok(legacy);
    }
    let reply = |(id, meta): (&str, ResultMeta)| Content::Reply {
        task_id: id.to_owned(),
        meta: Box::new(meta),
    };
    Err(correlation_id.zip(meta).map_or(Content::Other, reply))
}

#[cfg(test)]
mod tests;
