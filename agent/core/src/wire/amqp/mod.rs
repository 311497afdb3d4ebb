//! AMQP 0-9-1 as seen by a bystander: frames, the few methods that concern messages, content headers.
//!
//! [`FrameDecoder`] reads one direction of a connection and gives frames; [`Method`] and [`ContentHeader`] read what is
//! in them. Methods that are not listed are passed over by their length.
//!
//! A gap inside a frame's payload is stepped over exactly, and the frame says that it is not whole; any other gap loses
//! sync. It is found again at the first byte of a transfer that begins a method, a content header or a heartbeat whose
//! channel, length and class can be, and counts only once the frame-end octet stands where the frame's length says.
//!
//! The protocol: <https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf>.

mod content;
mod frame;
mod header;
mod method;
mod reader;
mod table;
mod tuning;

pub use frame::{Frame, FrameDecoder, FrameKind, FrameStats};
pub use header::ContentHeader;
pub use method::Method;
pub(crate) use table::Texts;
pub use table::{Array, Field, Table};
pub use tuning::Tuning;
