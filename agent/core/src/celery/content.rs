//! What an envelope holds: a task message, a result, events, or nothing of ours.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::body::{Body, count_arguments};
use super::document::Form;
use super::envelope::{Contiguous, Envelope, Text};
use super::event::{self, TaskEvent};
use super::legacy;
use super::message::TaskMessage;
use super::result::ResultMeta;
use super::traceparent::TraceParent;
use crate::wire::amqp::{ContentHeader, Field, Table};

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

#[derive(Default, Deserialize)]
struct Headers<'a> {
    #[serde(borrow, default)]
    task: Option<Text<'a>>,
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    root_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    parent_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    group: Option<Text<'a>>,
    #[serde(default)]
    retries: Option<u32>,
    #[serde(borrow, default)]
    eta: Option<Text<'a>>,
    #[serde(borrow, default)]
    expires: Option<Text<'a>>,
    #[serde(borrow, default)]
    origin: Option<Text<'a>>,
    #[serde(default)]
    ignore_result: Option<bool>,
    #[serde(default)]
    replaced_task_nesting: Option<u32>,
    #[serde(borrow, default)]
    compression: Option<Text<'a>>,
    #[serde(borrow, default)]
    traceparent: Option<Text<'a>>,
    #[serde(borrow, default)]
    tracestate: Option<Text<'a>>,
    #[serde(borrow, default)]
    b3: Option<Text<'a>>,
    #[serde(borrow, default, rename = "x-b3-traceid", alias = "X-B3-TraceId")]
    b3_trace_id: Option<Text<'a>>,
    #[serde(borrow, default, rename = "x-b3-spanid", alias = "X-B3-SpanId")]
    b3_span_id: Option<Text<'a>>,
    #[serde(borrow, default, rename = "x-b3-sampled", alias = "X-B3-Sampled")]
    b3_sampled: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "raw_json")]
    stamps: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    hostname: Option<Text<'a>>,
    #[serde(borrow, default)]
    argsrepr: Option<Text<'a>>,
    #[serde(borrow, default)]
    kwargsrepr: Option<Text<'a>>,
}

fn raw_json<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'de, str>>, D::Error> {
    let raw: Option<&'de RawValue> = Deserialize::deserialize(deserializer)?;
    Ok(raw.map(|raw| Cow::Borrowed(raw.get())))
}

impl Headers<'_> {
    /// The sender's trace context: W3C's before B3's.
    fn context(&self) -> Option<TraceParent> {
        let w3c = || TraceParent::parse(self.traceparent.as_ref()?.as_str());
        let single = || TraceParent::parse_b3(self.b3.as_ref()?.as_str());
        let several = || {
            TraceParent::parse_b3_fields(
                self.b3_trace_id.as_ref()?.as_str(),
                self.b3_span_id.as_ref()?.as_str(),
                self.b3_sampled.as_ref().map(Text::as_str),
            )
        };
        w3c().or_else(single).or_else(several)
    }
}

/// Reads what an envelope of `envelope_size` bytes holds. Argument representations are kept only when `keep_args`.
#[must_use]
pub fn read(captured: &Contiguous<'_>, envelope_size: u64, keep_args: bool) -> Content {
    let Ok(envelope) = captured.envelope() else {
        return Content::Malformed;
    };
    let headers: Headers<'_> = match envelope.headers {
        Some(raw) => match serde_json::from_str(raw.get()) {
            Ok(headers) => headers,
            Err(_) => return Content::Malformed,
        },
        None => return Content::Other,
    };
    let base64 = envelope
        .properties
        .body_encoding
        .as_ref()
        .is_none_or(|e| e.as_str() == "base64");
    let form = Form {
        content_type: envelope.content_type.as_ref().map(Text::as_str),
        compression: headers.compression.as_ref().map(Text::as_str),
    };
    let body = Body::new(envelope.body.as_str(), base64, captured.cut_body());
    let decoded = body.decoded();
    let json = decoded.as_deref().and_then(|bytes| form.json(bytes));
    let mut message = match (&headers.task, &headers.id) {
        (Some(_), Some(_)) => {
            let counts = json.as_deref().and_then(count_arguments);
            protocol_2(&headers, counts, keep_args)
        }
        (None, None) => {
            if let Some(name) = &headers.hostname {
                let events = json.as_deref().map_or_else(Vec::new, event::parse);
                return Content::Events {
                    hostname: name.as_str().to_owned(),
                    events,
                };
            }
            let correlation_id = envelope.properties.correlation_id.as_ref().map(Text::as_str);
            match without_headers(json.as_deref(), correlation_id) {
                Ok(message) => message,
                Err(content) => return content,
            }
        }
        _ => return Content::Malformed,
    };
    message.system = Some("redis");
    message.envelope_size = envelope_size;
    message.body_size = Some(body.size());
    address(&mut message, &envelope);
    Content::Task(Box::new(message))
}

/// Reads an AMQP message: what its content header and, where it was kept whole, its body say. `size` is that of header
/// and body together.
#[must_use]
pub fn read_amqp(header: &ContentHeader<'_>, body: Option<&[u8]>, size: u64, keep_args: bool) -> Content {
    let headers = match header.headers.map(|table| from_table(&table)) {
        Some(Ok(headers)) => headers,
        Some(Err(Malformed)) => return Content::Malformed,
        None => Headers::default(),
    };
    let form = Form {
        content_type: header.content_type,
        compression: headers.compression.as_ref().map(Text::as_str),
    };
    let json = body.and_then(|bytes| form.json(bytes));
    let mut message = match (&headers.task, &headers.id) {
        (Some(_), Some(_)) => protocol_2(&headers, json.as_deref().and_then(count_arguments), keep_args),
        (None, None) => {
            if let Some(name) = &headers.hostname {
                let events = json.as_deref().map_or_else(Vec::new, event::parse);
                return Content::Events {
                    hostname: name.as_str().to_owned(),
                    events,
                };
            }
            match without_headers(json.as_deref(), header.correlation_id) {
                Ok(message) => message,
                Err(content) => return content,
            }
        }
        _ => return Content::Malformed,
    };
    message.envelope_size = size;
    message.body_size = Some(header.body_size);
    message.priority = header.priority.map(i64::from).filter(|p| *p != 0);
    message.reply_to = header.reply_to.map(str::to_owned);
    message.correlation_id = header.correlation_id.map(str::to_owned);
    Content::Task(Box::new(message))
}

/// A header that Celery writes has another type than Celery gives it.
struct Malformed;

/// The same headers from an AMQP table, in whatever order: a broker that dead-letters a message sorts them.
fn from_table<'a>(table: &Table<'a>) -> Result<Headers<'a>, Malformed> {
    let mut headers = Headers::default();
    for (name, field) in table.fields() {
        let slot = match name {
            "task" => &mut headers.task,
            "id" => &mut headers.id,
            "root_id" => &mut headers.root_id,
            "parent_id" => &mut headers.parent_id,
            "group" => &mut headers.group,
            "eta" => &mut headers.eta,
            "expires" => &mut headers.expires,
            "origin" => &mut headers.origin,
            "compression" => &mut headers.compression,
            "traceparent" => &mut headers.traceparent,
            "tracestate" => &mut headers.tracestate,
            "b3" => &mut headers.b3,
            "x-b3-traceid" | "X-B3-TraceId" => &mut headers.b3_trace_id,
            "x-b3-spanid" | "X-B3-SpanId" => &mut headers.b3_span_id,
            "x-b3-sampled" | "X-B3-Sampled" => &mut headers.b3_sampled,
            "hostname" => &mut headers.hostname,
            "argsrepr" => &mut headers.argsrepr,
            "kwargsrepr" => &mut headers.kwargsrepr,
            "retries" => {
                headers.retries = number(field)?;
                continue;
            }
            "replaced_task_nesting" => {
                headers.replaced_task_nesting = number(field)?;
                continue;
            }
            "ignore_result" => {
                headers.ignore_result = match field {
                    Field::Bool(ignore) => Some(ignore),
                    Field::Void => None,
                    _ => return Err(Malformed),
                };
                continue;
            }
            "stamps" => {
                if let Field::Table(stamps) = field {
                    headers.stamps = Some(Cow::Owned(stamps_json(&stamps)));
                }
                continue;
            }
            _ => continue,
        };
        *slot = match field {
            Field::Void => None,
            field => Some(Text(Cow::Borrowed(field.text().ok_or(Malformed)?))),
        };
    }
    Ok(headers)
}

fn number(field: Field<'_>) -> Result<Option<u32>, Malformed> {
    match field {
        Field::Int(n) => u32::try_from(n).map(Some).map_err(|_| Malformed),
        Field::Void => Ok(None),
        _ => Err(Malformed),
    }
}

/// Stamps as they would stand in JSON: texts, numbers and lists of them; others are left out.
fn stamps_json(table: &Table<'_>) -> String {
    let scalar = |field: &Field<'_>| match field {
        Field::Int(n) => Some((*n).into()),
        Field::Bool(b) => Some((*b).into()),
        field => field.text().map(serde_json::Value::from),
    };
    let value = |field: Field<'_>| match field {
        Field::Array(array) => Some(array.values().filter_map(|field| scalar(&field)).collect()),
        field => scalar(&field),
    };
    let stamps: serde_json::Map<_, _> = table
        .fields()
        .filter_map(|(name, field)| Some((name.to_owned(), value(field)?)))
        .collect();
    serde_json::Value::Object(stamps).to_string()
}

fn owned(text: &Option<Text<'_>>) -> Option<String> {
    text.as_ref().map(|t| t.as_str().to_owned())
}

fn protocol_2(headers: &Headers<'_>, counts: Option<(u64, u64)>, keep_args: bool) -> TaskMessage {
    let reprs = keep_args.then(|| {
        (
            owned(&headers.argsrepr).unwrap_or_default(),
            owned(&headers.kwargsrepr).unwrap_or_default(),
        )
    });
    let name = owned(&headers.task).unwrap_or_default();
    let unlocks = (headers.argsrepr.as_ref())
        .filter(|_| name == "celery.chord_unlock")
        .and_then(|repr| first_text(repr.as_str()));
    TaskMessage {
        id: owned(&headers.id).unwrap_or_default(),
        name,
        unlocks,
        root_id: owned(&headers.root_id),
        parent_id: owned(&headers.parent_id),
        group: owned(&headers.group),
        retries: headers.retries.unwrap_or(0),
        replacements: headers.replaced_task_nesting.unwrap_or(0),
        eta: owned(&headers.eta),
        expires: owned(&headers.expires),
        origin: owned(&headers.origin),
        ignore_result: headers.ignore_result.unwrap_or(false),
        traceparent: headers.context(),
        tracestate: owned(&headers.tracestate),
        args_count: counts.map(|c| c.0),
        kwargs_count: counts.map(|c| c.1),
        stamps: headers
            .stamps
            .as_ref()
            .map(|json| json.as_ref())
            .filter(|json| json.len() > 2 && json.len() <= LONGEST_STAMPS)
            .map(str::to_owned),
        reprs,
        ..TaskMessage::default()
    }
}

/// The first of some arguments, where it is a string, from their `repr`: `('…', …)`, in a list when it is a retry's.
fn first_text(repr: &str) -> Option<String> {
    let (text, _) = repr
        .strip_prefix(['(', '['])?
        .strip_prefix('\'')?
        .split_once('\'')?;
    Some(text.to_owned())
}

/// Headers without a task: a protocol 1 message or a result, told apart by the body.
fn without_headers(json: Option<&[u8]>, correlation_id: Option<&str>) -> Result<TaskMessage, Content> {
    let Some(json) = json else {
        return Err(Content::Other);
    };
    if let Some(legacy) = legacy::read(json) {
        return Ok(legacy);
    }
    let reply = |id: &str| {
        Some(Content::Reply {
            task_id: id.to_owned(),
            meta: Box::new(ResultMeta::whole(json)?),
        })
    };
    Err(correlation_id.and_then(reply).unwrap_or(Content::Other))
}

fn address(message: &mut TaskMessage, envelope: &Envelope<'_>) {
    let properties = &envelope.properties;
    message.priority = properties.priority.filter(|p| *p != 0);
    message.reply_to = owned(&properties.reply_to);
    message.correlation_id = owned(&properties.correlation_id);
    message.delivery_tag = owned(&properties.delivery_tag).unwrap_or_default();
    if let Some(info) = &properties.delivery_info {
        message.exchange = owned(&info.exchange).unwrap_or_default();
        message.routing_key = owned(&info.routing_key).unwrap_or_default();
        message.redelivered = info.redelivered.unwrap_or(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(headers: &str) -> TaskMessage {
        let json = format!(r#"{{"headers": {{"task": "t", "id": "1", {headers}}}}}"#);
        match read(&Contiguous::whole(json.as_bytes()), 0, false) {
            Content::Task(message) => *message,
            other => panic!("{other:?}"),
        }
    }

    /// Scenario: each carrier of trace context, and two at once.
    /// Guarantees: the context is found; W3C's comes before B3's.
    #[test]
    fn carriers_of_context() {
        const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";
        let w3c = format!(r#""traceparent": "00-{TRACE}-e457b5a2e4d86bd1-01""#);
        let single = format!(r#""b3": "{TRACE}-e457b5a2e4d86bd1-1""#);
        let several =
            format!(r#""x-b3-traceid": "{TRACE}", "x-b3-spanid": "e457b5a2e4d86bd1", "x-b3-sampled": "1""#);
        for headers in [&w3c, &single, &several] {
            let context = task(headers).traceparent.expect("a context");
            assert_eq!(
                (context.trace_id.to_string().as_str(), context.sampled),
                (TRACE, true)
            );
        }
        let both = task(&format!(
            r#"{w3c}, "b3": "00000000000000000000000000000001-0000000000000001-0""#
        ));
        assert_eq!(both.traceparent, task(&w3c).traceparent);
        assert_eq!(task(r#""traceparent": "00-0-0-0""#).traceparent, None);
    }

    /// Scenario: stamps, none, and an empty object as Celery sends it by default.
    /// Guarantees: kept as sent where there are any.
    #[test]
    fn stamps() {
        let stamped = task(r#""stamped_headers": ["tenant"], "stamps": {"tenant": "acme"}"#);
        assert_eq!(stamped.stamps.as_deref(), Some(r#"{"tenant": "acme"}"#));
        assert_eq!(task(r#""stamps": {}"#).stamps, None);
    }
}
