//! The AMQP decoder against real traffic, another implementation, and chance.

#[path = "../../../../fuzz/src/core/feed.rs"]
mod feed;
mod gaps;
mod generated;
mod oracle;
mod recorded;
#[path = "../../../../tests/support/mod.rs"]
mod support;
