//! Recorded connections with parts of them missing.

use std::collections::HashMap;

use celeryscope_core::Limits;
use celeryscope_core::wire::resp::{Bulk, Command, Item, ReplyDecoder, RequestDecoder, Value};
use proptest::prelude::*;

use crate::support::{Connection, Decoder, Feed, connections, decode};

/// A missing part: where it begins, in thousandths of its direction's stream, and its length.
type Hole = (bool, u32, usize);

/// Which bytes of a stream are missing.
fn mask(stream: &[u8], sent: bool, holes: &[Hole]) -> Vec<bool> {
    let mut missing = vec![false; stream.len()];
    for (_, at, len) in holes.iter().filter(|hole| hole.0 == sent) {
        let begin = stream.len() * *at as usize / 1000;
        let end = (begin + len).min(stream.len());
        missing[begin..end].fill(true);
    }
    missing
}

/// Feeds one transfer, cut into what is there and what is missing.
fn transfer<D: Decoder>(feed: &mut Feed<D>, data: &[u8], missing: &[bool]) {
    let mut at = 0;
    for part in missing.chunk_by(|a, b| a == b) {
        if part[0] {
            feed.gap(part.len() as u64);
        } else {
            feed.bytes(&data[at..at + part.len()], at == 0);
        }
        at += part.len();
    }
}

/// Both directions of a connection whose client alternates, holes and all.
fn replay(connection: &Connection, holes: &[Hole]) -> (Feed<RequestDecoder>, Feed<ReplyDecoder>) {
    let limits = Limits::default();
    let mut requests = Feed::<RequestDecoder>::new(&limits);
    let mut replies = Feed::<ReplyDecoder>::new(&limits);
    let masks = [false, true].map(|sent| mask(&connection.stream(sent), sent, holes));
    for t in &connection.0 {
        let missing = &masks[usize::from(t.sent)];
        if t.sent {
            let at = requests.at as usize;
            replies.decoder.mark_boundary();
            transfer(&mut requests, &t.data, &missing[at..at + t.data.len()]);
        } else {
            let at = replies.at as usize;
            transfer(&mut replies, &t.data, &missing[at..at + t.data.len()]);
        }
    }
    requests.check_balance();
    replies.check_balance();
    (requests, replies)
}

fn bulk_is_of(ours: &Bulk<'_>, truth: &Bulk<'_>) -> bool {
    let all = truth.whole().expect("a whole string");
    ours.len() == truth.len()
        && all.starts_with(ours.head())
        && all.ends_with(ours.tail())
        && ours.whole().is_none_or(|whole| whole == all)
}

/// What differs between the two is only what is missing.
fn value_is_of(ours: &Value<'_>, truth: &Value<'_>) -> bool {
    match (ours, truth) {
        (Value::Bulk(a), Value::Bulk(b)) | (Value::Verbatim(a), Value::Verbatim(b)) => bulk_is_of(a, b),
        (Value::Array(a), Value::Array(b))
        | (Value::Push(a), Value::Push(b))
        | (Value::Map(a), Value::Map(b))
        | (Value::Set(a), Value::Set(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| value_is_of(a, b))
        }
        _ => ours == truth,
    }
}

fn command_is_of(ours: &Command<'_>, truth: &Command<'_>) -> bool {
    ours.args.len() == truth.args.len() && ours.args.iter().zip(&truth.args).all(|(a, b)| bulk_is_of(a, b))
}

/// Every item stands where a true one does and is it, as far as it was seen. Gives the true ones by their start.
fn check_truth<D: Decoder>(
    feed: &Feed<D>,
    stream: &[u8],
    missing: &[bool],
    is_of: impl Fn(&D::Value, &D::Value) -> bool,
) -> Vec<(usize, usize)> {
    let truth: HashMap<u64, (u64, Item<D::Value>)> = decode::<D>(&Limits::default(), stream)
        .items
        .into_iter()
        .map(|(end, item)| (end - item.bytes, (end, item)))
        .collect();
    for (end, item) in &feed.items {
        let start = end - item.bytes;
        let (true_end, true_item) = truth.get(&start).expect("an item begins here");
        assert_eq!(end, true_end);
        let lacks = missing[start as usize..*end as usize].contains(&true);
        assert_eq!(item.degraded, lacks);
        if lacks {
            assert!(
                is_of(&item.value, &true_item.value),
                "{item:?} is not {true_item:?}"
            );
        } else {
            assert_eq!(item.value, true_item.value);
        }
    }
    truth
        .iter()
        .map(|(start, (end, _))| (*start as usize, *end as usize))
        .collect()
}

/// Offsets where transfers of a direction begin.
fn starts(connection: &Connection, sent: bool) -> Vec<usize> {
    let ends = connection.transfers(sent).scan(0, |at, t| {
        *at += t.data.len();
        Some(*at)
    });
    std::iter::once(0).chain(ends).collect()
}

/// Offsets of the first byte received after something was sent.
fn answers(connection: &Connection) -> Vec<usize> {
    let mut at = 0;
    let mut sent = false;
    let mut answers = Vec::new();
    for t in &connection.0 {
        if !t.sent {
            if sent {
                answers.push(at);
            }
            at += t.data.len();
        }
        sent = t.sent;
    }
    answers
}

fn check(connection: &Connection, holes: &[Hole]) {
    let (requests, replies) = replay(connection, holes);

    let stream = connection.stream(true);
    let missing = mask(&stream, true, holes);
    let truth = check_truth(&requests, &stream, &missing, command_is_of);
    let begins = starts(connection, true);
    for (start, end) in truth {
        let seen = !missing[start..end].contains(&true);
        if seen && begins.contains(&start) {
            assert!(
                requests.items.iter().any(|(e, _)| *e == end as u64),
                "the command at {start} is found"
            );
        }
    }

    let stream = connection.stream(false);
    let missing = mask(&stream, false, holes);
    let truth = check_truth(&replies, &stream, &missing, value_is_of);
    let begins = answers(connection);
    for (start, end) in truth {
        let seen = !missing[start.saturating_sub(1)..end].contains(&true);
        if seen && begins.contains(&start) {
            assert!(
                replies.items.iter().any(|(e, _)| *e == end as u64),
                "the reply at {start} is found"
            );
        }
    }
}

fn alternating() -> Vec<&'static Connection> {
    connections().iter().filter(|c| !c.subscribes()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Scenario: up to six holes of up to 6,000 bytes anywhere in the two directions of a recorded connection.
    /// Guarantees: no item that is not one of the truth, at its place; one without a hole is equal to it, one with a hole
    /// differs by that alone; sync is found again at the first transfer that shows where it is; no byte is unaccounted for.
    #[test]
    fn holes(
        index in any::<prop::sample::Index>(),
        holes in prop::collection::vec((any::<bool>(), 0..1000_u32, prop_oneof![1..20_usize, 1..400_usize, 1..6000_usize]), 1..6),
    ) {
        let connections = alternating();
        check(index.get::<&Connection>(&connections), &holes);
    }
}

/// Scenario: each single transfer of each recorded connection missing, one after another.
/// Guarantees: as with holes at random.
#[test]
fn every_lost_transfer() {
    for connection in alternating() {
        for sent in [true, false] {
            let stream = connection.stream(sent);
            let limits = Limits::default();
            let begins = starts(connection, sent);
            for lost in begins.windows(2) {
                let mut missing = vec![false; stream.len()];
                missing[lost[0]..lost[1]].fill(true);
                if sent {
                    let mut feed = Feed::<RequestDecoder>::new(&limits);
                    for part in begins.windows(2) {
                        transfer(&mut feed, &stream[part[0]..part[1]], &missing[part[0]..part[1]]);
                    }
                    check_truth(&feed, &stream, &missing, command_is_of);
                    feed.check_balance();
                } else {
                    let mut feed = Feed::<ReplyDecoder>::new(&limits);
                    for part in begins.windows(2) {
                        transfer(&mut feed, &stream[part[0]..part[1]], &missing[part[0]..part[1]]);
                    }
                    check_truth(&feed, &stream, &missing, value_is_of);
                    feed.check_balance();
                }
            }
        }
    }
}
