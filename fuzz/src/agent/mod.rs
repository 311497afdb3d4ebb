//! Targets of the agent: what it writes to disk, and what it reads that others have written.
//!
//! The modules under test are taken in by their paths: they are private to the agent, and the agent's other dependencies
//! are not needed here.
#![allow(
    dead_code,
    unused_imports,
    missing_docs,
    reason = "modules of another package"
)]

pub mod host;
pub mod recording_file;
pub mod redact;

#[path = "../../../agent/src/recording/mod.rs"]
mod recording;

pub use host::host;
pub use recording_file::recording;
pub use redact::redact;
