//! Our own span: what the exporters translate, with no SDK behind it.

use std::fmt;
use std::sync::Arc;

use crate::text::Text;
use crate::time::Wall;

/// 16 bytes, never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId(pub [u8; 16]);

/// 8 bytes, never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(pub [u8; 8]);

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Lower-case hex, as in a traceparent.
impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

/// Lower-case hex, as in a traceparent.
impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

/// Which of the two kinds of span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpanKind {
    /// A message was sent: OpenTelemetry PRODUCER.
    Publish,
    /// An attempt ran: OpenTelemetry CONSUMER.
    Run,
}

/// OpenTelemetry's span status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing is known.
    Unset,
    /// It succeeded.
    Ok,
    /// It failed, with a description.
    Error(String),
}

/// An attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Str(Text),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Yes or no.
    Bool(bool),
}

impl<T: Into<Text>> From<T> for Value {
    fn from(v: T) -> Self {
        Self::Str(v.into())
    }
}

impl From<i64> for Value {
    fn from(v: i64) -> Self {
        Self::Int(v)
    }
}

impl From<f64> for Value {
    fn from(v: f64) -> Self {
        Self::Float(v)
    }
}

impl From<bool> for Value {
    fn from(v: bool) -> Self {
        Self::Bool(v)
    }
}

/// Attributes in the order they are shown.
pub type Attributes = Vec<(&'static str, Value)>;

/// Something that happened during a span.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// `delivered`, `acked`, `exception`.
    pub name: &'static str,
    /// When.
    pub at: Wall,
    /// What more is known.
    pub attributes: Attributes,
}

/// Another span this one is related to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The other span's trace.
    pub trace_id: TraceId,
    /// The other span.
    pub span_id: SpanId,
}

/// The observed process a span belongs to: what becomes the OpenTelemetry Resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id of the one that leads its service (a pool's main process).
    pub pid: u32,
    /// Resource attributes (`service.name`, `process.command`, …), as user space read them from /proc.
    pub resource: Vec<(String, String)>,
}

impl Process {
    /// `service.name`, or an empty string.
    #[must_use]
    pub fn service(&self) -> &str {
        self.resource
            .iter()
            .find(|(key, _)| key == "service.name")
            .map_or("", |(_, value)| value)
    }
}

/// A finished span.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Publish or run.
    pub kind: SpanKind,
    /// Its trace.
    pub trace_id: TraceId,
    /// Itself.
    pub span_id: SpanId,
    /// The span that caused it.
    pub parent: Option<SpanId>,
    /// W3C tracestate of the message, to be passed on; empty where there is none.
    pub trace_state: Text,
    /// The sampled flag of the message's traceparent, where it has one.
    pub sampled: Option<bool>,
    /// `publish {task}`, `run {task}`.
    pub name: Text,
    /// When it began.
    pub start: Wall,
    /// When it ended, never before `start`.
    pub end: Wall,
    /// How it ended.
    pub status: Status,
    /// Attributes of design §7.
    pub attributes: Attributes,
    /// `delivered`, `acked`, `exception`, in order of time.
    pub events: Vec<Event>,
    /// Related spans.
    pub links: Vec<Link>,
    /// Whose span it is.
    pub process: Arc<Process>,
}

impl Span {
    /// A span of which only kind, identity and name are given; everything else is empty or zero.
    #[must_use]
    pub fn new(kind: SpanKind, trace_id: TraceId, span_id: SpanId, name: impl Into<Text>) -> Self {
        Self {
            kind,
            trace_id,
            span_id,
            parent: None,
            trace_state: Text::Static(""),
            sampled: None,
            name: name.into(),
            start: Wall(0),
            end: Wall(0),
            status: Status::Unset,
            attributes: Vec::new(),
            events: Vec::new(),
            links: Vec::new(),
            process: Arc::default(),
        }
    }

    /// The value of an attribute.
    #[must_use]
    pub fn attribute(&self, key: &str) -> Option<&Value> {
        self.attributes
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value)
    }
}

/// How a run refers to its publish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Relation {
    /// The publish is the run's parent.
    #[default]
    Parent,
    /// The run starts its own trace and links to the publish (OpenTelemetry's messaging conventions).
    Link,
}

/// Which names spans and attributes bear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpanStyle {
    /// celeryscope's own, after the messaging semantic conventions.
    #[default]
    Semconv,
    /// Those of opentelemetry-instrumentation-celery.
    Contrib,
}
