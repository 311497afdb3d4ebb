//! Recorded connections with parts of them missing.

use std::collections::HashMap;

use celeryscope_core::Limits;
use celeryscope_core::wire::amqp::{Frame, FrameDecoder, FrameKind};
use celeryscope_core::wire::resp::Item;
use proptest::prelude::*;

use crate::feed::{Piece, feed};
use crate::recorded::{directions, frames, pieces};
use crate::support::streams::Direction;

/// The calls of a direction without the bytes that are missing.
fn with_holes<'a>(direction: &'a Direction, missing: &[bool]) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let mut begin = 0;
    for call in &direction.calls {
        let mut at = 0;
        for part in missing[begin..begin + call.len()].chunk_by(|a, b| a == b) {
            pieces.push(if part[0] {
                Piece::Gap(part.len() as u64)
            } else {
                Piece::Bytes {
                    data: &call[at..at + part.len()],
                    begins: at == 0,
                }
            });
            at += part.len();
        }
        begin += call.len();
    }
    pieces
}

/// Every frame that is found stands where a true one does and is it, as far as it was seen; every one that was seen whole
/// and shows where it begins is found.
fn check(direction: &Direction, missing: &[bool]) {
    let stream = direction.stream();
    let truth: HashMap<u64, _> = frames(&stream, usize::MAX)
        .into_iter()
        .map(|(end, item)| (end - item.bytes, item))
        .collect();
    let mut decoder = FrameDecoder::new(&Limits::default());
    let mut found = HashMap::new();
    for (end, item) in feed(&mut decoder, &with_holes(direction, missing), usize::MAX) {
        let start = end - item.bytes;
        let whole = truth.get(&start).expect("a frame begins here");
        let (ours, theirs) = (&item.value, &whole.value);
        assert_eq!(
            (item.bytes, ours.kind, ours.channel, ours.len),
            (whole.bytes, theirs.kind, theirs.channel, theirs.len)
        );
        let lacks = missing[start as usize..end as usize].contains(&true);
        assert_eq!(item.degraded, lacks);
        if lacks {
            assert!(theirs.payload.starts_with(&ours.payload));
        } else {
            assert_eq!(ours.payload, theirs.payload);
        }
        found.insert(start, item);
    }
    let mut begin = 0;
    for call in &direction.calls {
        if let Some(whole) = truth.get(&begin) {
            let seen = !missing[begin as usize..(begin + whole.bytes) as usize].contains(&true);
            let shows = whole.value.kind != FrameKind::Body;
            assert!(
                !(seen && shows) || found.contains_key(&begin),
                "the frame at {begin} is found"
            );
        }
        begin += call.len() as u64;
    }
}

/// Scenario: each call of each recorded direction is lost in turn.
/// Guarantees: no frame is made up or in a wrong place, none that was seen is taken for whole where bytes are missing, and
/// frames are read again from the next call on that begins with a method, a content header or a heartbeat.
#[test]
fn every_lost_call() {
    for direction in directions() {
        let len = direction.stream().len();
        let mut begin = 0;
        for call in &direction.calls {
            let mut missing = vec![false; len];
            missing[begin..begin + call.len()].fill(true);
            begin += call.len();
            // Quadratic: of long connections the beginning stands for the rest.
            if begin > 20_000 {
                break;
            }
            check(direction, &missing);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Scenario: up to six holes of up to 6,000 bytes anywhere in a recorded direction.
    /// Guarantees: as with lost calls.
    #[test]
    fn holes(
        index in any::<prop::sample::Index>(),
        holes in prop::collection::vec((0..1000_usize, prop_oneof![1..20_usize, 1..400_usize, 1..6000_usize]), 1..6),
    ) {
        let direction = index.get(directions());
        let mut missing = vec![false; direction.stream().len()];
        for (at, len) in holes {
            let begin = missing.len() * at / 1000;
            let end = (begin + len).min(missing.len());
            missing[begin..end].fill(true);
        }
        check(direction, &missing);
    }
}

/// Scenario: a decoder that joins each recorded direction before any of its calls, not knowing how much it missed.
/// Guarantees: it finds the first frame that shows where it begins, and every frame after it.
#[test]
fn joined_in_the_middle() {
    for direction in directions() {
        let stream = direction.stream();
        let truth = frames(&stream, usize::MAX);
        let calls = pieces(direction);
        let mut begin = 0;
        for (n, call) in direction.calls.iter().enumerate().take(200) {
            let mut decoder = FrameDecoder::new(&Limits::default());
            let mut joined = vec![Piece::Break];
            joined.extend(&calls[n..]);
            let found: Vec<_> = feed(&mut decoder, &joined, usize::MAX)
                .into_iter()
                .map(|(end, item)| (end + begin, item.value))
                .collect();
            let shows = |(end, item): &&(u64, Item<Frame<'_>>)| {
                let start = end - item.bytes;
                start >= begin && item.value.kind != FrameKind::Body && direction.begins(start)
            };
            let first = truth
                .iter()
                .position(|frame| shows(&frame))
                .unwrap_or(truth.len());
            let want: Vec<_> = truth[first..]
                .iter()
                .map(|(end, item)| (*end, item.value.clone()))
                .collect();
            assert_eq!(found, want, "from call {n}");
            begin += call.len() as u64;
        }
    }
}
