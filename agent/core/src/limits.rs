//! Every cap of the core in one place.

use std::time::Duration;

/// Caps on memory and on waiting. Each table evicts its oldest entry at its cap and counts it; of connections the oldest that
/// has not proved to be Celery's, while there is one.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections followed at once.
    pub connections: usize,
    /// Bytes that the decoders of all connections hold of what is not complete; beyond it those that hold most drop theirs.
    pub stream_bytes: u64,
    /// Tasks known at once.
    pub tasks: usize,
    /// Bytes of the messages of all attempts and publishes under way.
    pub message_bytes: u64,
    /// Groups known at once.
    pub groups: usize,
    /// Processes known at once.
    pub processes: usize,
    /// Bytes of one bulk string kept whole; beyond it head and tail are kept.
    pub bulk: usize,
    /// Bytes kept of each end of a longer bulk string.
    pub bulk_edge: usize,
    /// Bulk strings kept of one command or reply.
    pub elements: usize,
    /// Nesting of aggregates followed.
    pub depth: usize,
    /// Commands in flight on one connection (pipelining).
    pub in_flight: usize,
    /// How long a publish waits for the broker's answer.
    pub publish_wait: Duration,
    /// How long an ended run waits for its ack and its result.
    pub run_wait: Duration,
    /// How long an attempt that shows no further sign is kept.
    pub attempt_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            stream_bytes: 64 << 20,
            tasks: 100_000,
            message_bytes: 256 << 20,
            groups: 4096,
            processes: 16_384,
            bulk: 64 * 1024,
            bulk_edge: 16 * 1024,
            elements: 1024,
            depth: 16,
            in_flight: 1024,
            publish_wait: Duration::from_secs(2),
            run_wait: Duration::from_secs(3),
            attempt_age: Duration::from_secs(24 * 3600),
        }
    }
}
