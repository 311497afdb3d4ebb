//! Recordings: what the kernel half saw, in a file.

mod format;
mod reader;
mod redact;
mod writer;

pub use reader::Reader;
pub use redact::Redactor;
pub use writer::Writer;
