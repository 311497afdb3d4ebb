//! What Celery and kombu write into messages: the envelope, the task's headers, protocol 1 bodies, results.
//!
//! Borrows from the captured bytes; owns only what outlives them. Arguments are counted, never decoded.

pub mod body;
pub mod content;
pub mod datetime;
pub mod document;
pub mod envelope;
pub mod event;
mod headers;
mod json;
pub mod legacy;
pub mod message;
pub mod pidbox;
pub mod result;
pub mod traceparent;

pub use content::Content;
pub use envelope::{Envelope, EnvelopeError};
pub use event::{EventKind, TaskEvent};
pub use message::{Rare, TaskMessage};
pub use result::{ResultMeta, ResultState};
pub use traceparent::TraceParent;
