//! Puts back the bytes that the kernel half left out of a record because they are known ([`flags::IMPLIED`]): nobody behind the
//! capture need know that it does so.

use std::collections::HashMap;

use celeryscope_common::{Header, Kind, Record, flags};

/// Connections whose last poll is remembered; as many as the kernel half follows. Beyond, all are forgotten.
const LIMIT: usize = 16_384;
/// A heartbeat's type, channel and length (AMQP 0-9-1 §4.2.3).
const HEARTBEAT_HEAD: &[u8] = &[8, 0, 0, 0, 0, 0, 0];

/// The last poll of each connection, unless it has been repeated.
#[derive(Debug, Default)]
pub(super) struct Implied {
    polls: HashMap<u64, Box<[u8]>>,
    /// The one that is repeated now.
    poll: Box<[u8]>,
    /// Records whose bytes turned out not to be known: gaps.
    pub(super) unknown: u64,
}

impl Implied {
    /// The record as if it had been told in full. Where what it repeats is not known it stays without payload, which is a gap.
    pub(super) fn complete<'a>(&'a mut self, record: Record<'a>) -> Record<'a> {
        let Header { conn, total, .. } = record.header;
        if matches!(record.kind, Kind::Open | Kind::Close | Kind::Tls) {
            self.polls.remove(&conn);
        }
        if !matches!(record.kind, Kind::Send | Kind::Recv) || record.header.flags & flags::IMPLIED == 0 {
            return record;
        }
        let header = Header {
            flags: record.header.flags & !flags::IMPLIED,
            ..record.header
        };
        if !record.payload.is_empty() {
            if self.polls.len() >= LIMIT && !self.polls.contains_key(&conn) {
                self.polls.clear();
            }
            self.polls.insert(conn, record.payload.into());
            return Record { header, ..record };
        }
        self.poll = if record.kind == Kind::Send {
            self.polls.remove(&conn).unwrap_or_default()
        } else {
            HEARTBEAT_HEAD.into()
        };
        if self.poll.len() != total as usize {
            self.unknown += 1;
            self.poll = Box::default();
        }
        Record::new(record.kind, header, &self.poll)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: &[u8] = b"*3\r\n$5\r\nBRPOP\r\n$6\r\ncelery\r\n$1\r\n1\r\n";

    fn complete(
        implied: &mut Implied,
        kind: Kind,
        conn: u64,
        total: usize,
        payload: &[u8],
    ) -> (u16, Vec<u8>) {
        let header = Header {
            flags: flags::LAST | flags::IMPLIED,
            conn,
            total: total as u32,
            ..Header::default()
        };
        let record = implied.complete(Record::new(kind, header, payload));
        assert_eq!(record.header.len as usize, record.payload.len());
        assert_eq!(record.header.total as usize, total);
        (record.header.flags, record.payload.to_vec())
    }

    /// Scenario: a poll is told and repeated; heads of heartbeats; two connections.
    /// Guarantees: each has its bytes, and the flag is gone.
    #[test]
    fn known_bytes_are_put_back() {
        let mut implied = Implied::default();
        let whole = |bytes: &[u8]| (flags::LAST, bytes.to_vec());
        let other = [POLL, POLL].concat();
        assert_eq!(
            complete(&mut implied, Kind::Send, 1, POLL.len(), POLL),
            whole(POLL)
        );
        assert_eq!(
            complete(&mut implied, Kind::Send, 2, other.len(), &other),
            whole(&other)
        );
        assert_eq!(
            complete(&mut implied, Kind::Send, 1, POLL.len(), b""),
            whole(POLL)
        );
        assert_eq!(
            complete(&mut implied, Kind::Send, 2, other.len(), b""),
            whole(&other)
        );
        assert_eq!(
            complete(&mut implied, Kind::Recv, 3, 7, b""),
            whole(HEARTBEAT_HEAD)
        );
        assert_eq!(implied.unknown, 0);
    }

    /// Scenario: a poll is repeated that was never told, was told on a connection of before, has another length, or was repeated
    /// already; what should be the head of a heartbeat is longer.
    /// Guarantees: nothing is made up, and each is counted.
    #[test]
    fn what_is_not_known_stays_away() {
        let mut implied = Implied::default();
        let nothing = (flags::LAST, Vec::new());
        assert_eq!(complete(&mut implied, Kind::Send, 1, POLL.len(), b""), nothing);
        complete(&mut implied, Kind::Send, 1, POLL.len(), POLL);
        assert_eq!(
            complete(&mut implied, Kind::Send, 1, POLL.len() + 1, b""),
            nothing
        );
        complete(&mut implied, Kind::Send, 1, POLL.len(), POLL);
        complete(&mut implied, Kind::Send, 1, POLL.len(), b"");
        assert_eq!(complete(&mut implied, Kind::Send, 1, POLL.len(), b""), nothing);
        for again in [Kind::Open, Kind::Close, Kind::Tls] {
            complete(&mut implied, Kind::Send, 1, POLL.len(), POLL);
            complete(&mut implied, again, 1, 0, b"");
            assert_eq!(complete(&mut implied, Kind::Send, 1, POLL.len(), b""), nothing);
        }
        assert_eq!(complete(&mut implied, Kind::Recv, 1, 8, b""), nothing);
        assert_eq!(implied.unknown, 7);
    }

    /// Scenario: more connections poll than the kernel half would follow.
    /// Guarantees: no more are remembered.
    #[test]
    fn no_more_than_there_can_be() {
        let mut implied = Implied::default();
        for conn in 0..=LIMIT as u64 {
            complete(&mut implied, Kind::Send, conn, POLL.len(), POLL);
        }
        assert_eq!(implied.polls.len(), 1);
    }
}
