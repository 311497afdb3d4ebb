//! Input that means harm, or is not RESP at all.

use celeryscope_core::Limits;
use celeryscope_core::wire::resp::{ReplyDecoder, RequestDecoder};
use proptest::prelude::*;

use crate::support::{Decoder, Feed, connections, tight};

/// Feeds pieces, some of them gaps, some of them beginnings of transfers.
fn feed<D: Decoder>(limits: &Limits, pieces: &[(u8, Vec<u8>)]) -> Feed<D> {
    let mut feed = Feed::new(limits);
    for (kind, data) in pieces {
        match kind {
            0 => feed.gap(data.len() as u64),
            _ => feed.bytes(data, *kind == 1),
        }
    }
    feed.check_balance();
    feed
}

/// Bytes that are close to being RESP.
fn nearly_resp() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        Just("\r\n".to_owned()),
        Just("\r".to_owned()),
        Just("\n".to_owned()),
        "[-+:$*_,#(!=%~>|;.]",
        "[-+:$*_,#(!=%~>|;.](-1|[0-9]{1,2}|\\?|9{18}|9{19}|9{20})\r\n",
        "[a-zA-Z]{1,9}",
        any::<u8>().prop_map(|b| char::from(b).to_string()),
    ];
    prop::collection::vec(token, 0..30).prop_map(|tokens| tokens.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Scenario: random bytes and bytes that are nearly RESP, with random gaps and random beginnings of transfers.
    /// Guarantees: no panic, all of it is read, every byte is accounted for, with default limits and tight ones.
    #[test]
    fn chance(pieces in prop::collection::vec((0..3_u8, nearly_resp()), 0..8)) {
        for limits in [Limits::default(), tight()] {
            feed::<RequestDecoder>(&limits, &pieces);
            feed::<ReplyDecoder>(&limits, &pieces);
        }
    }

    /// Scenario: a recorded stream with some bytes turned into others.
    /// Guarantees: no panic, every byte is accounted for.
    #[test]
    fn flipped_bytes(
        index in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        sent in any::<bool>(),
    ) {
        let connections = connections();
        let mut stream = index.get(connections).stream(sent);
        prop_assume!(!stream.is_empty());
        for (at, byte) in flips {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        let pieces: Vec<_> = stream.chunks(97).map(|piece| (2, piece.to_vec())).collect();
        feed::<RequestDecoder>(&tight(), &pieces);
        feed::<ReplyDecoder>(&tight(), &pieces);
    }
}
