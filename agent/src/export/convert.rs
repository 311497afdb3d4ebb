//! Our span as the SDK's, for OTLP/gRPC and OTLP/JSON. (For OTLP/HTTP it is encoded without: `otlp/encode.rs`.)

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use celeryscope_core::span::Value;
use celeryscope_core::text::Text;
use celeryscope_core::time::Wall;
use celeryscope_core::{Event, Link, Process, Span, SpanKind, Status};
use opentelemetry::trace::{self, SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

/// The spans of one observed process: one OpenTelemetry Resource.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) process: &'a Process,
    pub(super) spans: Vec<&'a Span>,
}

impl Group<'_> {
    pub(super) fn resource(&self) -> Resource {
        let pairs = resource_attributes(self.process);
        Resource::builder_empty()
            .with_attributes(pairs.map(|(key, value)| KeyValue::new(key.to_owned(), sdk_value(&value))))
            .build()
    }

    /// The spans, for one try at telling them: exporters keep what they are given.
    pub(super) fn data(&self) -> Vec<SpanData> {
        let scope = scope();
        self.spans.iter().map(|span| span_data(span, &scope)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }
}

/// Sorts a batch by process; order within a process stays.
pub(super) fn group(batch: &[Arc<Span>]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for span in batch {
        // A host has a handful of services; the last one is the likeliest.
        let known = groups
            .iter_mut()
            .rev()
            .find(|group| std::ptr::eq(group.process, &*span.process) || *group.process == *span.process);
        match known {
            Some(group) => group.spans.push(span),
            None => groups.push(Group {
                process: &span.process,
                spans: vec![span],
            }),
        }
    }
    groups
}

/// Name of the instrumentation scope.
pub(super) const SCOPE: &str = "celeryscope";

fn scope() -> InstrumentationScope {
    InstrumentationScope::builder(SCOPE)
        .with_version(env!("CARGO_PKG_VERSION"))
        .build()
}

/// What the process is known by, a Resource's attributes.
pub(super) fn resource_attributes(process: &Process) -> impl Iterator<Item = (&str, Value)> {
    process.resource.iter().map(|(key, value)| {
        // The conventions type these as integers; /proc gives everything as text.
        let number = match key.as_str() {
            "process.pid" | "process.parent_pid" => value.parse::<i64>().ok(),
            _ => None,
        };
        (
            key.as_str(),
            number.map_or_else(|| value.clone().into(), Value::Int),
        )
    })
}

/// A run's parent is a publish, elsewhere as a rule; a publish's is a span of the same process.
pub(super) fn has_remote_parent(span: &Span) -> bool {
    span.kind == SpanKind::Run && span.parent.is_some()
}

fn span_data(span: &Span, scope: &InstrumentationScope) -> SpanData {
    let mut events = SpanEvents::default();
    events.events = span.events.iter().map(event).collect();
    let mut links = SpanLinks::default();
    links.links = span.links.iter().map(link).collect();
    SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(span.trace_id.0),
            SpanId::from_bytes(span.span_id.0),
            TraceFlags::SAMPLED,
            false,
            // A tracestate that is none is not worth a lost span.
            span.trace_state.parse::<TraceState>().unwrap_or_default(),
        ),
        parent_span_id: span.parent.map_or(SpanId::INVALID, |id| SpanId::from_bytes(id.0)),
        parent_span_is_remote: has_remote_parent(span),
        span_kind: match span.kind {
            SpanKind::Publish => trace::SpanKind::Producer,
            SpanKind::Run => trace::SpanKind::Consumer,
        },
        name: match &span.name {
            Text::Static(name) => Cow::Borrowed(name),
            Text::Shared(name) => Cow::Owned(name.to_string()),
        },
        start_time: time(span.start),
        end_time: time(span.end),
        attributes: attributes(&span.attributes),
        dropped_attributes_count: 0,
        events,
        links,
        status: match &span.status {
            Status::Unset => trace::Status::Unset,
            Status::Ok => trace::Status::Ok,
            Status::Error(description) => trace::Status::error(description.clone()),
        },
        instrumentation_scope: scope.clone(),
    }
}

fn time(at: Wall) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(at.0)
}

fn event(event: &Event) -> trace::Event {
    trace::Event::new(event.name, time(event.at), attributes(&event.attributes), 0)
}

fn link(link: &Link) -> trace::Link {
    let context = SpanContext::new(
        TraceId::from_bytes(link.trace_id.0),
        SpanId::from_bytes(link.span_id.0),
        TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    );
    trace::Link::new(context, Vec::new(), 0)
}

fn attributes(pairs: &[(&'static str, Value)]) -> Vec<KeyValue> {
    let convert = |(key, value): &(&'static str, Value)| KeyValue::new(*key, sdk_value(value));
    pairs.iter().map(convert).collect()
}

fn sdk_value(value: &Value) -> opentelemetry::Value {
    match value {
        Value::Str(Text::Static(word)) => (*word).into(),
        Value::Str(Text::Shared(text)) => Arc::clone(text).into(),
        Value::Int(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Bool(yes) => (*yes).into(),
    }
}
