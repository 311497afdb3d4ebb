//! celeryscope's heart: records in, spans out.
//!
//! A pure state machine without clock, I/O or `unsafe`: time comes from records. See [`Pipeline`].
//!
//! ```text
//! Record → stream (order, gaps) → wire (RESP, pool frames) → broker (publish, deliver, ack, result)
//!        → celery (message, result) → task (life of an attempt) → span (ids, attributes) → Output
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod bounded;
pub mod broker;
pub mod celery;
mod connection;
pub mod detect;
mod held;
pub mod limits;
pub mod metric;
pub mod pipeline;
pub mod span;
pub mod stats;
pub mod stream;
mod task;
pub mod text;
pub mod time;
pub mod wire;

pub use broker::Verdict;
pub use celeryscope_common as common;
pub use held::Held;
pub use limits::Limits;
pub use metric::{Area, Metric, MetricKind};
pub use pipeline::{Config, Output, Pipeline};
pub use span::{Event, Link, Process, Relation, Span, SpanId, SpanKind, SpanStyle, Status, TraceId, Value};
pub use stats::Stats;
