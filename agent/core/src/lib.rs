//! celeryscope's heart: records in, spans out.
//!
//! A pure state machine without clock, I/O or `unsafe`: time comes from records. See [`Pipeline`].
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod limits;
pub mod pipeline;
pub mod span;
pub mod stats;
pub mod stream;
pub mod time;
pub mod wire;

pub use celeryscope_common as common;
pub use limits::Limits;
pub use pipeline::{Config, Output, Pipeline, Verdict};
pub use span::{Event, Link, Process, Relation, Span, SpanId, SpanKind, SpanStyle, Status, TraceId, Value};
pub use stats::Stats;
