//! kombu's AMQP transport (`kombu/transport/pyamqp.py`) on one connection.
//!
//! | method | meaning |
//! |---|---|
//! | `basic.publish` + content | publish; a result where it answers a task (`rpc://`); an event |
//! | `basic.ack` from the broker | the publish it confirms is answered; without confirms its last byte ends it |
//! | `basic.deliver`, `basic.get-ok` + content | a delivery |
//! | `basic.ack` | ack |
//! | `basic.reject`, `basic.nack` | requeue, or ack where the message is not put back |
//! | `basic.recover` | requeue of all that is unacked on its channel |
//! | `basic.return` + content | counted: an unroutable message was published all the same, and is confirmed |
//!
//! Delivery tags count per channel: together with connection and channel they name a message for the worker. What is
//! unacknowledged when a channel closes goes back to its queue unseen.

mod channel;
mod connection;
mod content;
mod delay;
#[cfg(test)]
mod tests;

pub use connection::RabbitConnection;

/// Counters of one connection's meaning layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RabbitStats {
    /// Methods decoded.
    pub methods: u64,
    /// Messages that claim to be a task's but can't be read.
    pub messages_malformed: u64,
    /// Messages that are no task's: events, control, other programs'.
    pub messages_other: u64,
    /// Messages whose header was not captured, or that were cut off by another.
    pub messages_cut: u64,
    /// Messages that the broker sent back because they could not be routed.
    pub messages_returned: u64,
    /// Channels forgotten to make room.
    pub channels_evicted: u64,
    /// Consumers forgotten to make room.
    pub consumers_evicted: u64,
    /// Deliveries that wait for their ack, forgotten to make room.
    pub unacked_evicted: u64,
}
