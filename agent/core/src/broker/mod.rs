//! From commands to what they mean for tasks: kombu's transports.
//!
//! Knows keys, commands and message shapes of kombu; knows nothing of task lifetimes.

pub mod event;
pub mod rabbitmq;
pub mod redis;
#[cfg(test)]
mod rig;

pub use event::BrokerEvent;

use std::sync::Arc;

use crate::celery::content::Share;
use crate::text::Text;

/// The broker's address, as text, and port; one for all of a connection's tasks.
pub(crate) type Server = Arc<(Text, u16)>;

/// What the connection needs to know of the rest.
pub struct Context<'a> {
    /// Keep argument representations.
    pub capture_args: bool,
    /// Whether the worker behind this connection holds a message with this delivery tag.
    pub knows_tag: &'a dyn Fn(&str) -> bool,
    /// Shares the texts that many messages have alike.
    pub share: Share<'a>,
}

/// What a connection proved to be. The capture side acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not known yet: keep capturing.
    Unknown,
    /// A Celery program's connection: keep capturing.
    Celery,
    /// Something else: stop copying its bytes.
    Ignore,
}
