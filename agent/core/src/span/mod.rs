//! The span the core puts out, and how it is made.

mod model;

pub use model::{Event, Link, Process, Relation, Span, SpanId, SpanKind, SpanStyle, Status, TraceId, Value};
