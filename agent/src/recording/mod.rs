//! Recordings: what the kernel half saw, in files.
//!
//! docs/recordings.md tells the format and what is masked.

mod format;
mod header;
mod parts;
mod place;
mod reader;
mod recorder;
mod redact;
mod state;
mod writer;

#[cfg(test)]
mod documented;

pub use header::{Meta, ReadError};
pub use parts::{Parts, PartsError};
pub use place::PlaceError;
pub use reader::{Reader, Report};
pub use recorder::{Recorder, RecordingError, Rotation, Size};
pub use redact::Redactor;
pub use writer::Writer;
