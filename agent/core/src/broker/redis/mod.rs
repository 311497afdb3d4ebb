//! kombu's Redis transport (`kombu/transport/redis.py`) and Celery's Redis result backend, on one connection.
//!
//! | command | meaning |
//! |---|---|
//! | `LPUSH queue envelope` | publish (put back, when the envelope says redelivered) |
//! | `PUBLISH /db.exchange/key envelope` | publish to a fanout exchange |
//! | `BRPOP queue… timeout` and its reply | the process consumes; a delivery |
//! | `message` / `pmessage` | a delivery from a fanout exchange |
//! | `HSET unacked tag [envelope, exchange, key]` | copy of a delivery: no publish |
//! | `HDEL unacked tag` | ack, unless the same transaction puts the message back |
//! | `RPUSH queue envelope` | unacked message put back at shutdown |
//! | `SETEX celery-task-meta-<id> …` | result |
//!
//! Commands and replies pair up in order. When either direction lost bytes the pairing is given up: publishes that wait
//! are reported as unanswered, and pairing starts anew with the next command that begins a call, because a client reads
//! all replies before it sends again.

mod command;
mod connection;
mod keys;

pub use connection::RedisConnection;

/// Counters of one connection's meaning layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RedisStats {
    /// Commands decoded.
    pub commands: u64,
    /// Replies decoded.
    pub replies: u64,
    /// Replies that answer no command that was seen.
    pub replies_unpaired: u64,
    /// Commands whose reply will not be seen.
    pub commands_unpaired: u64,
    /// Messages that claim to be a task's but can't be read.
    pub messages_malformed: u64,
    /// Messages that are no task's: events, control, other programs'.
    pub messages_other: u64,
    /// Messages whose headers were not captured.
    pub messages_cut: u64,
    /// Copies of delivered messages in the unacked set.
    pub unacked_copies: u64,
    /// Results that can't be read.
    pub results_malformed: u64,
    /// Commands beyond the limit on those in flight.
    pub in_flight_dropped: u64,
    /// Events of a transaction beyond the limit.
    pub transaction_dropped: u64,
}
