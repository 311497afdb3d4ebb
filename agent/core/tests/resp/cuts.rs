//! The same stream, cut differently.

use std::collections::HashSet;

use celeryscope_core::Limits;
use celeryscope_core::wire::resp::{ReplyDecoder, RequestDecoder};

use crate::support::{Decoder, Feed, connections, decode, tight};

fn all_limits() -> [Limits; 2] {
    [Limits::default(), tight()]
}

/// Feeds `stream` in pieces of `size`.
fn in_pieces<D: Decoder>(limits: &Limits, stream: &[u8], size: usize) -> Feed<D> {
    let mut feed = Feed::new(limits);
    for (i, piece) in stream.chunks(size).enumerate() {
        feed.bytes(piece, i == 0);
    }
    feed.check_balance();
    feed
}

fn pieces_of_every_size<D: Decoder>(sent: bool) {
    for limits in all_limits() {
        for connection in connections() {
            let stream = connection.stream(sent);
            let want = decode::<D>(&limits, &stream);
            for size in [1, 2, 3, 5, 7, 64, 1000] {
                let got = in_pieces::<D>(&limits, &stream, size);
                assert_eq!(got.items, want.items, "pieces of {size}");
                assert_eq!(got.decoder.counts(), want.decoder.counts());
            }
        }
    }
}

/// Scenario: every recorded stream in pieces of one byte, two, three, …, with default limits and tight ones.
/// Guarantees: the same items and the same counters as in one piece.
#[test]
fn pieces() {
    pieces_of_every_size::<RequestDecoder>(true);
    pieces_of_every_size::<ReplyDecoder>(false);
}

fn every_cut<D: Decoder>(sent: bool) {
    for limits in all_limits() {
        // Connections begin alike: what was tried once is not tried again.
        let mut tried = HashSet::new();
        for connection in connections() {
            let stream = connection.stream(sent);
            let items = decode::<D>(&limits, &stream).items;
            let starts: Vec<usize> = std::iter::once(0)
                .chain(items.iter().map(|(end, _)| *end as usize))
                .collect();
            for window in starts.windows(3) {
                let part = &stream[window[0]..window[2]];
                if !tried.insert(part.to_vec()) {
                    continue;
                }
                let want = decode::<D>(&limits, part);
                assert_eq!(want.items.len(), 2);
                let step = part.len() / 3000 + 1;
                for cut in (1..part.len()).filter(|cut| cut % step == 0 || *cut < 200) {
                    let mut got = Feed::<D>::new(&limits);
                    got.bytes(&part[..cut], true);
                    got.bytes(&part[cut..], false);
                    assert_eq!(got.items, want.items, "cut at {cut} of {}", part.escape_ascii());
                }
            }
        }
    }
}

/// Scenario: every pair of neighbours on every recorded connection, cut at every byte; of pairs over 3,000 bytes at every
/// second, third, … byte behind the first 200.
/// Guarantees: the same items as uncut.
#[test]
fn at_every_byte() {
    every_cut::<RequestDecoder>(true);
    every_cut::<ReplyDecoder>(false);
}

/// Scenario: a decoder that joins in the middle; then transfers that begin with commands, each cut at every byte.
/// Guarantees: sync is found at the same place, and the same commands are read, whatever the cut.
#[test]
fn resync_at_every_byte() {
    for connection in connections() {
        let transfers: Vec<_> = connection.transfers(true).collect();
        for transfer in transfers.iter().filter(|t| t.data.starts_with(b"*")) {
            let mut want = Feed::<RequestDecoder>::new(&Limits::default());
            want.decoder.lose_sync();
            want.bytes(&transfer.data, true);
            assert!(want.decoder.is_synced(), "{}", transfer.data.escape_ascii());
            for cut in 1..transfer.data.len().min(200) {
                let mut got = Feed::<RequestDecoder>::new(&Limits::default());
                got.decoder.lose_sync();
                got.bytes(&transfer.data[..cut], true);
                got.check_balance();
                got.bytes(&transfer.data[cut..], false);
                got.check_balance();
                assert_eq!(got.items, want.items, "cut at {cut}");
                assert_eq!(got.decoder.counts(), want.decoder.counts());
            }
        }
    }
}
