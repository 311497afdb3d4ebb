//! The user half of celeryscope: capture, command line, export. What turns bytes into spans is `celeryscope_core`.
//!
//! A library only so that integration tests can drive the exporters; the binary is the interface.

pub mod capture;
pub mod cli;
pub mod config;
pub mod export;
mod host;
#[cfg(test)]
#[path = "../../fuzz/src/kept.rs"]
mod kept;
mod lock_down;
pub mod metrics;
pub mod recording;
pub mod runtime;
