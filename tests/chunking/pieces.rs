//! The same records in other pieces, and with others among them.

use std::collections::BTreeSet;

use celeryscope_core::common::{Endpoint, Header, Kind, flags};

use crate::support::fixture::Owned;

/// What the recorded programs speak to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Broker {
    Redis,
    RabbitMq,
}

impl Broker {
    /// Of the fixture of this name.
    pub(crate) fn of(fixture: &str) -> Self {
        if fixture.starts_with("rabbitmq-") {
            Self::RabbitMq
        } else {
            Self::Redis
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Redis => 6379,
            Self::RabbitMq => 5672,
        }
    }

    /// Beginnings of its protocol that lead nowhere.
    fn scraps(self) -> [&'static [u8]; 8] {
        match self {
            Self::Redis => [
                b"*3\r\n$5\r\nLPUSH\r\n$6\r\ncelery\r\n$940\r\n{\"body\": \"",
                b"*2\r\n$5\r\nBRPOP\r\n$4294967295\r\n",
                b"*1\r\n$4\r\nEXEC\r\n",
                b"*1\r\n$5\r\nMULTI\r\n",
                b"*99999999999\r\n",
                b"$-5\r\n",
                b"+OK\r\n:1\r\n",
                b">4\r\n$8\r\npmessage\r\n",
            ],
            Self::RabbitMq => [
                b"AMQP\0\0\x09\x01",
                b"\x01\0\x01\0\0\0\x0f\0\x3c\0\x28\0\0\0\x06celery\0\xce",
                b"\x02\0\x01\0\0\0\x0e\0\x3c\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0\xce",
                b"\x03\0\x01\x3f\xff\xff\xff[[], {}, {}]",
                b"\x01\0\x01\0\0\0\x0d\0\x3c\0\x50\0\0\0\0\0\0\0\0\x01\xce",
                b"\x01\0\x01\0\0\0\x05\0\x55\0\x0a\0\xce",
                b"\x08\0\0\0\0\0\0\xce",
                b"\x01\0\0\0\0\0\x0c\0\x0a\0\x1f\0\x01\0\0\0\x01\0\0\xce",
            ],
        }
    }
}

/// Sends and receives with their places.
pub(crate) fn transfers(records: &[Owned]) -> impl Iterator<Item = (usize, &Owned)> {
    records
        .iter()
        .enumerate()
        .filter(|(_, record)| matches!(record.kind, Kind::Send | Kind::Recv))
}

/// Each send and receive as several records of the same transfer, cut where `cuts(record, length)` says.
pub(crate) fn split(records: &[Owned], mut cuts: impl FnMut(&Owned, usize) -> Vec<usize>) -> Vec<Owned> {
    let mut out = Vec::new();
    for record in records {
        if !matches!(record.kind, Kind::Send | Kind::Recv) {
            out.push(record.clone());
            continue;
        }
        let len = record.payload.len();
        let mut edges: BTreeSet<usize> = cuts(record, len)
            .into_iter()
            .filter(|at| (1..len).contains(at))
            .collect();
        edges.insert(len);
        let mut from = 0;
        for to in edges {
            let last = if to == len {
                record.header.flags & flags::LAST
            } else {
                0
            };
            out.push(Owned {
                kind: record.kind,
                header: Header {
                    at: record.header.at + from as u32,
                    flags: record.header.flags & !flags::LAST | last,
                    ..record.header
                },
                payload: record.payload[from..to].to_vec(),
            });
            from = to;
        }
    }
    out
}

/// The records with two foreign connections among them.
pub(crate) fn noisy(records: &[Owned], broker: Broker, random: &mut Random) -> Vec<Owned> {
    let first = records
        .iter()
        .filter(|record| record.kind == Kind::Open)
        .map(|record| record.header.conn)
        .max();
    let ids = [first.unwrap_or(0) + 1000, first.unwrap_or(0) + 1001];
    let mut offsets = [[0; 2]; 2];
    let mut out = Vec::new();
    for record in records {
        out.push(record.clone());
        let near = stranger(&record.header);
        if record.kind == Kind::Clock {
            for conn in ids {
                out.push(Owned {
                    kind: Kind::Open,
                    header: Header { conn, ..near },
                    payload: Endpoint {
                        port: broker.port(),
                        ..Endpoint::default()
                    }
                    .to_bytes()
                    .to_vec(),
                });
            }
        } else if random.below(2) == 0 {
            let (which, direction) = (random.below(2), random.below(2));
            let payload = if random.below(3) == 0 {
                let len = random.below(200) + 1;
                random.bytes(len)
            } else {
                broker.scraps()[random.below(broker.scraps().len())].to_vec()
            };
            out.push(Owned {
                kind: [Kind::Send, Kind::Recv][direction],
                header: Header {
                    flags: flags::LAST,
                    conn: ids[which],
                    start: offsets[which][direction],
                    total: payload.len() as u32,
                    ..near
                },
                payload: payload.clone(),
            });
            // Now and then some bytes go missing here, too.
            offsets[which][direction] += payload.len() as u64 + random.below(2) as u64 * 17;
        }
    }
    out
}

/// A header of the same time from a process that is not in the recording.
pub(crate) fn stranger(header: &Header) -> Header {
    Header {
        enter: header.exit,
        exit: header.exit,
        pid: 4_000_000,
        tid: 4_000_000,
        ..Header::default()
    }
}

/// A small generator (SplitMix64), so that a failing round is the same everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `n`; 0 when `n` is.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub(crate) fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}
