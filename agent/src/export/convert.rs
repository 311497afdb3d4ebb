//! Our span as the SDK's: the one place where the two meet. OTLP and OTLP/JSON both start here.

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
    pub(super) resource: Resource,
    spans: Vec<&'a Span>,
}

impl Group<'_> {
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
    let mut groups: Vec<(&Arc<Process>, Group<'_>)> = Vec::new();
    for span in batch {
        // A host has a handful of services; the last one is the likeliest.
        let known = groups
            .iter_mut()
            .rev()
            .find(|(process, _)| Arc::ptr_eq(process, &span.process) || **process == span.process);
        match known {
            Some((_, group)) => group.spans.push(span),
            None => groups.push((
                &span.process,
                Group {
                    resource: resource(&span.process),
                    spans: vec![span],
                },
            )),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("celeryscope")
        .with_version(env!("CARGO_PKG_VERSION"))
        .build()
}

fn resource(process: &Process) -> Resource {
    let pairs = process.resource.iter().map(|(key, value)| {
        // The conventions type these as integers; /proc gives everything as text.
        match key.as_str() {
            "process.pid" | "process.parent_pid" => match value.parse::<i64>() {
                Ok(number) => KeyValue::new(key.clone(), number),
                Err(_) => KeyValue::new(key.clone(), value.clone()),
            },
            _ => KeyValue::new(key.clone(), value.clone()),
        }
    });
    Resource::builder_empty().with_attributes(pairs).build()
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
        // A run's parent is a publish, elsewhere as a rule; a publish's is a span of the same process.
        parent_span_is_remote: span.kind == SpanKind::Run && span.parent.is_some(),
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
    let convert = |(key, value): &(&'static str, Value)| match value {
        Value::Str(Text::Static(word)) => KeyValue::new(*key, *word),
        Value::Str(Text::Shared(text)) => KeyValue::new(*key, Arc::clone(text)),
        Value::Int(number) => KeyValue::new(*key, *number),
        Value::Float(number) => KeyValue::new(*key, *number),
        Value::Bool(yes) => KeyValue::new(*key, *yes),
    };
    pairs.iter().map(convert).collect()
}
