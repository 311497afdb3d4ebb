//! From commands to what they mean for tasks: kombu's transports.
//!
//! Knows keys, commands and message shapes of kombu; knows nothing of task lifetimes.

pub mod event;
pub mod redis;

pub use event::BrokerEvent;
