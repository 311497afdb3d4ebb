//! From records, as the kernel half cuts them, through half-connections to items.

use celeryscope_core::Limits;
use celeryscope_core::common::{Header, Kind, Record, flags};
use celeryscope_core::stream::{Chunk, Half};
use celeryscope_core::wire::resp::{Item, ReplyDecoder, RequestDecoder};

use crate::support::{Connection, Decoder, connections, decode};

/// A transfer of more than this is captured by its edges only.
const WHOLE: usize = 2000;
/// Bytes of each edge.
const EDGE: usize = 500;

/// Head and tail of each transfer of one direction, as records; offsets count from `base`.
fn records(connection: &Connection, sent: bool, base: u64) -> Vec<(Header, &[u8])> {
    let mut start = base;
    let mut records = Vec::new();
    for t in connection.transfers(sent) {
        let total = t.data.len();
        let header = Header {
            start,
            total: total as u32,
            ..Header::default()
        };
        let last = Header {
            flags: flags::LAST,
            ..header
        };
        if total <= WHOLE {
            records.push((last, &t.data[..]));
        } else {
            let at = (total - EDGE) as u32;
            records.push((header, &t.data[..EDGE]));
            records.push((Header { at, ..last }, &t.data[total - EDGE..]));
        }
        start += total as u64;
    }
    records
}

fn run<D: Decoder>(records: &[(Header, &[u8])], midstream: bool) -> (D, Vec<Item<D::Value>>) {
    let mut half = Half::new(midstream);
    let mut decoder = D::make(&Limits::default());
    let mut items = Vec::new();
    for (header, payload) in records {
        for chunk in half.record(&Record::new(Kind::Send, *header, payload)) {
            match chunk {
                Chunk::Gap { len } => items.extend(decoder.miss(len)),
                Chunk::Break => decoder.desync(),
                Chunk::Bytes(mut segment) => {
                    items.extend(std::iter::from_fn(|| decoder.step(&mut segment)));
                }
            }
        }
    }
    (decoder, items)
}

/// Scenario: messages of several kB, captured by their edges, as a large one is by 16 KiB of each end.
/// Guarantees: no command and no reply is lost, and none of their lengths; large strings have their edges.
#[test]
fn large_transfers_by_their_edges() {
    let mut holes = 0;
    for connection in connections() {
        let want = decode::<RequestDecoder>(&Limits::default(), &connection.stream(true)).items;
        let (decoder, got) = run::<RequestDecoder>(&records(connection, true, 0), false);
        assert_eq!(decoder.stats().sync_losses, 0);
        assert_eq!(got.len(), want.len());
        for (got, (_, want)) in got.iter().zip(&want) {
            assert_eq!((got.bytes, got.value.name()), (want.bytes, want.value.name()));
            for (got, want) in got.value.args.iter().zip(&want.value.args) {
                let all = want.whole().expect("whole");
                assert!(all.starts_with(got.head()) && all.ends_with(got.tail()));
                if got.lost() > 0 {
                    // A line or two of the command stand in the same transfer.
                    assert!(got.head().len() > EDGE - 200 && got.tail().len() > EDGE - 200);
                    holes += 1;
                }
            }
        }

        let want = decode::<ReplyDecoder>(&Limits::default(), &connection.stream(false)).items;
        let (decoder, got) = run::<ReplyDecoder>(&records(connection, false, 0), false);
        assert_eq!(decoder.stats().sync_losses, 0);
        let lengths = |items: &[Item<_>]| items.iter().map(|item| item.bytes).collect::<Vec<_>>();
        assert_eq!(
            lengths(&got),
            want.iter().map(|(_, item)| item.bytes).collect::<Vec<_>>()
        );
    }
    assert!(holes > 5, "only {holes} strings were large");
}

/// Scenario: connections that are older than the capture.
/// Guarantees: requests are read from the first transfer that begins with a command; replies wait for a mark.
#[test]
fn midstream() {
    for connection in connections() {
        let want = decode::<RequestDecoder>(&Limits::default(), &connection.stream(true)).items;
        let (_, got) = run::<RequestDecoder>(&records(connection, true, 1 << 40), true);
        assert_eq!(got.len(), want.len());
        assert!(got.first().is_none_or(|item| item.resynced));
        let (decoder, got) = run::<ReplyDecoder>(&records(connection, false, 1 << 40), true);
        assert_eq!(
            (got.len(), decoder.is_synced()),
            (0, connection.stream(false).is_empty())
        );
    }
}
