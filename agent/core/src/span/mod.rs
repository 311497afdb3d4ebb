//! The span the core puts out, its ids, and how it is made.

pub(crate) mod build;
pub(crate) mod ids;
mod model;
mod semconv;

pub use ids::trace_id_of_root;
pub use model::{
    Attributes, Event, Link, Process, Relation, Span, SpanId, SpanKind, SpanStyle, Status, TraceId, Value,
};

/// `host.name` of an observed process; empty where it was not told.
pub(crate) fn host_of(process: &Process) -> &str {
    process
        .resource
        .iter()
        .find(|(key, _)| key == "host.name")
        .map_or("", |(_, value)| value)
}
