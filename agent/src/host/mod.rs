//! What the host knows about a process: read from /proc, given to the core as records.

pub mod resource;
