//! Which protocol a connection speaks, from the first bytes that were captured of it.
//!
//! Biased towards RESP: only what is provably AMQP is taken for it. Bytes that are neither are left to the RESP decoder,
//! which counts them as errors.

/// A broker's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// No bytes yet.
    Unknown,
    /// Redis.
    Resp,
    /// RabbitMQ.
    Amqp,
}

/// The protocol of a connection whose first captured bytes are these, in whichever direction.
pub(crate) fn protocol(first: &[u8]) -> Protocol {
    // AMQP 0-9-1 §4.2.2: the protocol header, or, on an older connection, a frame: type 1, 2, 3 or 8.
    match first {
        [] => Protocol::Unknown,
        [b'A', b'M', b'Q', b'P', 0, ..] => Protocol::Amqp,
        [1 | 2 | 3 | 8, _, _, 0, ..] => Protocol::Amqp,
        _ => Protocol::Resp,
    }
}
