//! Which protocol a connection speaks, from the first bytes that were captured of it.
//!
//! Biased towards RESP: only what is provably AMQP is taken for it. On a connection seen from its start, bytes that are
//! neither are left to the RESP decoder, which counts them as errors. One that is older than the capture may be met inside
//! a message, which tells nothing: it is left alone until a transfer begins with what only one protocol has there.

use celeryscope_common::{Header, Kind, Record};

/// A broker's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Nothing that tells, nor will more of it.
    Unknown,
    /// Too few bytes.
    More,
    /// Redis.
    Resp,
    /// RabbitMQ.
    Amqp,
}

/// The records of a connection until its protocol is known.
#[derive(Debug, Default)]
pub struct Opening {
    held: Vec<Held>,
}

/// A record with its payload: kind, fixed part, bytes.
pub type Held = (Kind, Header, Vec<u8>);

impl Opening {
    /// The connection's protocol, as far as this record and those that are held tell. It is held, too, where more bytes are
    /// needed: so few that neither their number nor their length needs a limit.
    pub fn judge(&mut self, record: &Record<'_>, midstream: bool) -> Protocol {
        if record.payload.is_empty() {
            return Protocol::Unknown;
        }
        let mut first = Vec::with_capacity(2 * PROTOCOL_HEADER.len());
        for (_, _, bytes) in self.held.iter().filter(|(kind, ..)| *kind == record.kind) {
            first.extend_from_slice(bytes);
        }
        first.extend(record.payload.iter().take(PROTOCOL_HEADER.len()));
        let protocol = protocol(&first, midstream);
        if protocol == Protocol::More {
            self.held
                .push((record.kind, record.header, record.payload.to_vec()));
        }
        protocol
    }

    /// What was held, in order: the beginning of what the protocol's decoder must read.
    #[must_use]
    pub fn into_held(self) -> Vec<Held> {
        self.held
    }
}

/// AMQP 0-9-1 §4.2.2.
const PROTOCOL_HEADER: &[u8] = b"AMQP\0";

/// The protocol of a connection whose first captured transfer begins so, in whichever direction; `midstream` when the
/// connection is older than the capture.
fn protocol(first: &[u8], midstream: bool) -> Protocol {
    match first {
        [] => Protocol::Unknown,
        _ if first.starts_with(PROTOCOL_HEADER) => Protocol::Amqp,
        _ if PROTOCOL_HEADER.starts_with(first) => Protocol::More,
        [0] | [1 | 2 | 3 | 8] | [1 | 2 | 3 | 8, _] | [1 | 2 | 3 | 8, _, _] => Protocol::More,
        // §4.2.3: on an older connection, a frame.
        [1 | 2 | 3 | 8, _, _, 0, ..] => Protocol::Amqp,
        // py-amqp reads frames in three pieces; of a method or a header the second begins with its class.
        [0, 10 | 20 | 30 | 40 | 50 | 60 | 85 | 90, ..] => Protocol::Amqp,
        [b'*' | b'$' | b'+' | b'-' | b':' | b'_' | b'%' | b'>', ..] => Protocol::Resp,
        _ if midstream => Protocol::Unknown,
        _ => Protocol::Resp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: first bytes of both protocols, the three pieces in which a frame is read, and the middle of a message.
    /// Guarantees: each piece of a frame but its last octet is AMQP's; what may be either decides nothing on an older
    /// connection and is RESP's to judge on a new one.
    #[test]
    fn first_bytes() {
        for amqp in [
            &b"AMQP\0\0\x09\x01"[..],
            &[1, 0, 1, 0, 0, 0, 4],
            &[3, 0, 1, 0, 1, 0xff, 0xf8],
            &[0, 60, 0, 60, 5],
        ] {
            assert_eq!(protocol(amqp, false), Protocol::Amqp);
            assert_eq!(protocol(amqp, true), Protocol::Amqp);
        }
        for resp in [&b"*3\r\n"[..], b"$5\r\n", b":1\r\n", b"_\r\n"] {
            assert_eq!(protocol(resp, true), Protocol::Resp);
        }
        for either in [&[0xce][..], b"[[1], {}, {}]", b"PING\r\n"] {
            assert_eq!(protocol(either, true), Protocol::Unknown);
            assert_eq!(protocol(either, false), Protocol::Resp);
        }
        assert_eq!(protocol(b"", false), Protocol::Unknown);
        for short in [&b"A"[..], b"AMQP", &[0], &[1, 0, 1]] {
            assert_eq!(protocol(short, false), Protocol::More);
        }
        assert_eq!(protocol(b"AUTH", false), Protocol::Resp);
    }
}
