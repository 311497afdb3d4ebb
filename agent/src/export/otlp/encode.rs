//! Spans as OTLP/protobuf (`opentelemetry/proto/collector/trace/v1/trace_service.proto`), straight from our own.
//!
//! The SDK's way copies every attribute twice before the first byte is written, which is most of what a span costs the agent. What
//! is written here is what that way writes, field for field; a test holds the two against each other.

use celeryscope_core::span::{Attributes, Value};
use celeryscope_core::{Event, Link, Span, SpanKind, Status};
use opentelemetry::trace::TraceState;
use opentelemetry_http::Bytes;
use opentelemetry_proto::tonic::trace::v1::SpanFlags;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind as Kind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::encoding::{WireType, encode_varint, encoded_len_varint};

use super::super::convert::{self, Group};

/// W3C trace flags: sampled.
const SAMPLED: u32 = 1;
const IS_REMOTE: u32 = SpanFlags::ContextHasIsRemoteMask as u32 | SpanFlags::ContextIsRemoteMask as u32;
/// About what a span takes.
const SPAN: usize = 1536;

/// An `ExportTraceServiceRequest` of one group.
pub(super) fn request(group: &Group<'_>) -> Bytes {
    let mut out = Vec::with_capacity(SPAN * group.len() + 1024);
    message::<3>(&mut out, 1, |out| {
        message::<2>(out, 1, |out| {
            for (name, value) in convert::resource_attributes(group.process) {
                attribute(out, 1, name, &value);
            }
        });
        message::<3>(out, 2, |out| {
            message::<1>(out, 1, |out| {
                text(out, 1, convert::SCOPE);
                text(out, 2, env!("CARGO_PKG_VERSION"));
            });
            for one in &group.spans {
                message::<2>(out, 2, |out| span(out, one));
            }
        });
    });
    out.into()
}

fn span(out: &mut Vec<u8>, span: &Span) {
    bytes(out, 1, &span.trace_id.0);
    bytes(out, 2, &span.span_id.0);
    if !span.trace_state.is_empty() {
        // One that is none is not worth a lost span.
        let state = span.trace_state.parse::<TraceState>().unwrap_or_default();
        text(out, 3, &state.header());
    }
    if let Some(parent) = &span.parent {
        bytes(out, 4, &parent.0);
    }
    text(out, 5, &span.name);
    let kind = match span.kind {
        SpanKind::Publish => Kind::Producer,
        SpanKind::Run => Kind::Consumer,
    };
    number(out, 6, kind as u64);
    fixed64(out, 7, span.start.0);
    fixed64(out, 8, span.end.0);
    attributes(out, 9, &span.attributes);
    for event in &span.events {
        message::<1>(out, 11, |out| self::event(out, event));
    }
    for link in &span.links {
        message::<1>(out, 13, |out| self::link(out, link));
    }
    let (code, description) = match &span.status {
        Status::Unset => (StatusCode::Unset, ""),
        Status::Ok => (StatusCode::Ok, ""),
        Status::Error(description) => (StatusCode::Error, description.as_str()),
    };
    message::<1>(out, 15, |out| {
        text(out, 2, description);
        number(out, 3, code as u64);
    });
    let remote = if convert::has_remote_parent(span) {
        IS_REMOTE
    } else {
        SpanFlags::ContextHasIsRemoteMask as u32
    };
    fixed32(out, 16, SAMPLED | remote);
}

fn event(out: &mut Vec<u8>, event: &Event) {
    fixed64(out, 1, event.at.0);
    text(out, 2, event.name);
    attributes(out, 3, &event.attributes);
}

fn link(out: &mut Vec<u8>, link: &Link) {
    bytes(out, 1, &link.trace_id.0);
    bytes(out, 2, &link.span_id.0);
    fixed32(out, 6, SAMPLED | IS_REMOTE);
}

fn attributes(out: &mut Vec<u8>, field: u32, pairs: &Attributes) {
    for (key, value) in pairs {
        attribute(out, field, key, value);
    }
}

/// A `KeyValue`. Of its value, an `AnyValue`, what is nothing is written too: it is one of several. Most of a span is these, so their
/// lengths are reckoned before anything is written, and there is room for all of it then.
fn attribute(out: &mut Vec<u8>, field: u32, key: &str, value: &Value) {
    let of_value = match value {
        Value::Str(value) => len_of_bytes(value.len()),
        Value::Bool(_) => 2,
        Value::Int(value) => 1 + encoded_len_varint(value.cast_unsigned()),
        Value::Float(_) => 9,
    };
    let of_key = if key.is_empty() {
        0
    } else {
        len_of_bytes(key.len())
    };
    let len = of_key + len_of_bytes(of_value);
    out.reserve(len_of_bytes(len));
    begin(out, field, len);
    text(out, 1, key);
    begin(out, 2, of_value);
    match value {
        Value::Str(value) => bytes(out, 1, value.as_bytes()),
        Value::Bool(value) => varint(out, 2, u64::from(*value)),
        Value::Int(value) => varint(out, 3, value.cast_unsigned()),
        Value::Float(value) => fixed64(out, 4, value.to_bits()),
    }
}

/// A message within a message: its length, which is known when it has been written, stands before it. `WIDTH` bytes are kept for
/// that, as many as it takes as a rule.
fn message<const WIDTH: usize>(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    key(out, field, WireType::LengthDelimited);
    let at = out.len();
    out.extend_from_slice(&[0; WIDTH]);
    write(out);
    let len = (out.len() - at - WIDTH) as u64;
    if encoded_len_varint(len) == WIDTH {
        encode_varint(len, &mut &mut out[at..at + WIDTH]);
    } else {
        let mut prefix = [0; 10];
        encode_varint(len, &mut &mut prefix[..]);
        let prefix = &prefix[..encoded_len_varint(len)];
        out.splice(at..at + WIDTH, prefix.iter().copied());
    }
}

/// What a field of so many bytes takes whose number is less than 16.
#[inline]
fn len_of_bytes(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

/// A field of so many bytes, which follow.
#[inline]
fn begin(out: &mut Vec<u8>, field: u32, len: usize) {
    key(out, field, WireType::LengthDelimited);
    short_varint(out, len as u64);
}

#[inline]
fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    begin(out, field, value.len());
    out.extend_from_slice(value);
}

/// Left out where it is empty, as are numbers that are 0: that is what a field that is not there means.
#[inline]
fn text(out: &mut Vec<u8>, field: u32, value: &str) {
    if !value.is_empty() {
        bytes(out, field, value.as_bytes());
    }
}

fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        varint(out, field, value);
    }
}

#[inline]
fn varint(out: &mut Vec<u8>, field: u32, value: u64) {
    key(out, field, WireType::Varint);
    short_varint(out, value);
}

#[inline]
fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    key(out, field, WireType::SixtyFourBit);
    out.extend_from_slice(&value.to_le_bytes());
}

fn fixed32(out: &mut Vec<u8>, field: u32, value: u32) {
    key(out, field, WireType::ThirtyTwoBit);
    out.extend_from_slice(&value.to_le_bytes());
}

#[inline]
fn key(out: &mut Vec<u8>, field: u32, wire_type: WireType) {
    short_varint(out, u64::from(field << 3 | wire_type as u32));
}

/// Any number; most are of one byte.
#[inline]
fn short_varint(out: &mut Vec<u8>, value: u64) {
    if value < 0x80 {
        out.push(value as u8);
    } else {
        encode_varint(value, out);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use celeryscope_core::time::Wall;
    use celeryscope_core::{Process, SpanId, TraceId};
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
    use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::super::super::convert::group;
    use super::*;

    fn values() -> impl Strategy<Value = Value> {
        prop_oneof![
            // Lengths at which the lengths before them grow.
            (0..300_usize).prop_map(|len| Value::from("x".repeat(len))),
            ".*".prop_map(Value::from),
            Just(Value::from("fixed".repeat(4000))),
            any::<i64>().prop_map(Value::Int),
            any::<bool>().prop_map(Value::Bool),
            (-1e9..1e9).prop_map(Value::Float),
        ]
    }

    fn pairs() -> impl Strategy<Value = Attributes> {
        let keys = prop::sample::select(vec!["messaging.system", "celery.retries", "", "k"]);
        prop::collection::vec((keys, values()), 0..30)
    }

    fn spans() -> impl Strategy<Value = Span> {
        let events = prop::collection::vec((any::<u64>(), pairs()), 0..3);
        let links = prop::collection::vec((any::<[u8; 16]>(), any::<[u8; 8]>()), 0..3);
        let status = prop_oneof![
            Just(Status::Unset),
            Just(Status::Ok),
            ".{0,200}".prop_map(Status::Error)
        ];
        let states = prop::sample::select(vec!["", "a=1,b=2", "none at all", "k@v=x"]);
        let times = (any::<u64>(), any::<u64>());
        let parent = prop::option::of(1..=u64::MAX);
        let rest = (pairs(), events, links, status, states, times, ".{0,200}");
        (any::<bool>(), any::<[u8; 16]>(), parent, rest).prop_map(|(run, trace, parent, rest)| {
            let (attributes, events, links, status, state, (start, end), name) = rest;
            let kind = if run { SpanKind::Run } else { SpanKind::Publish };
            let event = |(at, attributes)| Event {
                name: "exception",
                at: Wall(at),
                attributes,
            };
            let link = |(trace, span)| Link {
                trace_id: TraceId(trace),
                span_id: SpanId(span),
            };
            Span {
                parent: parent.map(|id| SpanId(id.to_be_bytes())),
                trace_state: state.into(),
                start: Wall(start),
                end: Wall(end),
                status,
                attributes,
                events: events.into_iter().map(event).collect(),
                links: links.into_iter().map(link).collect(),
                ..Span::new(kind, TraceId(trace), SpanId([7; 8]), name)
            }
        })
    }

    proptest! {
        /// Scenario: any spans of one process: attributes of every type and length, events, links, states, no names.
        /// Guarantees: the request says what the SDK's exporter would have said.
        #[test]
        fn as_the_sdk_does(spans in prop::collection::vec(spans(), 1..5), number in "[0-9]{0,12}") {
            let process = Arc::new(Process {
                pid: 1,
                resource: vec![
                    ("service.name".to_owned(), "shop".to_owned()),
                    ("process.pid".to_owned(), number),
                ],
            });
            let own = |span| Arc::new(Span { process: Arc::clone(&process), ..span });
            let batch: Vec<Arc<Span>> = spans.into_iter().map(own).collect();
            let groups = group(&batch);
            prop_assert_eq!(groups.len(), 1);
            let sdk = group_spans_by_resource_and_scope(
                groups[0].data(),
                &ResourceAttributesWithSchema::from(&groups[0].resource()),
            );
            let mut sdk = ExportTraceServiceRequest { resource_spans: sdk };
            let mut ours = ExportTraceServiceRequest::decode(request(&groups[0])).unwrap();
            for one in [&mut sdk, &mut ours] {
                let resource = one.resource_spans[0].resource.as_mut().unwrap();
                resource.attributes.sort_by(|one, other| one.key.cmp(&other.key));
            }
            prop_assert_eq!(sdk, ours);
        }
    }
}
