//! Against the crate `redis-protocol`, which reads whole frames from a buffer.

use celeryscope_core::Limits;
use celeryscope_core::wire::resp::{Bulk, ReplyDecoder, RequestDecoder, Value};
use redis_protocol::{resp2, resp3};
use resp2::types::OwnedFrame as Resp2;
use resp3::types::OwnedFrame as Resp3;

use crate::support::{connections, decode};

fn whole<'a>(bulk: &'a Bulk<'_>) -> &'a [u8] {
    bulk.whole().expect("a whole string")
}

fn same2(ours: &Value<'_>, theirs: &Resp2) -> bool {
    match (ours, theirs) {
        (Value::Simple(a), Resp2::SimpleString(b)) => **a == **b,
        (Value::Error(a), Resp2::Error(b)) => **a == *b.as_bytes(),
        (Value::Int(a), Resp2::Integer(b)) => a == b,
        (Value::Bulk(a), Resp2::BulkString(b)) => whole(a) == b,
        (Value::Array(a), Resp2::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same2(a, b)),
        (Value::Null, Resp2::Null) => true,
        _ => false,
    }
}

fn all_same3<'a>(ours: &[Value<'_>], theirs: impl ExactSizeIterator<Item = &'a Resp3>) -> bool {
    ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| same3(a, b))
}

fn same3(ours: &Value<'_>, theirs: &Resp3) -> bool {
    match (ours, theirs) {
        (Value::Simple(a), Resp3::SimpleString { data, .. }) => **a == **data,
        (Value::Error(a), Resp3::SimpleError { data, .. }) => **a == *data.as_bytes(),
        (Value::Error(a), Resp3::BlobError { data, .. }) => **a == **data,
        (Value::Int(a), Resp3::Number { data, .. }) => a == data,
        (Value::Double(a), Resp3::Double { data, .. }) => a == data,
        (Value::Bool(a), Resp3::Boolean { data, .. }) => a == data,
        (Value::Big(a), Resp3::BigNumber { data, .. }) => **a == **data,
        (Value::Bulk(a), Resp3::BlobString { data, .. }) => whole(a) == data,
        (Value::Verbatim(a), Resp3::VerbatimString { data, .. }) => whole(a).get(4..) == Some(data),
        (Value::Null, Resp3::Null) => true,
        (Value::Array(a), Resp3::Array { data, .. }) | (Value::Push(a), Resp3::Push { data, .. }) => {
            all_same3(a, data.iter())
        }
        (Value::Map(a), Resp3::Map { data, .. }) => {
            let (pairs, odd) = a.as_chunks::<2>();
            let found =
                |pair: &[Value<'_>; 2]| data.iter().any(|(k, v)| same3(&pair[0], k) && same3(&pair[1], v));
            odd.is_empty() && pairs.len() == data.len() && pairs.iter().all(found)
        }
        (Value::Set(a), Resp3::Set { data, .. }) => {
            a.len() == data.len() && a.iter().all(|a| data.iter().any(|b| same3(a, b)))
        }
        _ => false,
    }
}

/// Scenario: what clients sent on every recorded connection.
/// Guarantees: the same commands, of the same length, as the other implementation reads; nothing is left over.
#[test]
fn requests() {
    let mut count = 0;
    for connection in connections() {
        let stream = connection.stream(true);
        let feed = decode::<RequestDecoder>(&Limits::default(), &stream);
        let mut rest = &stream[..];
        for (_, item) in &feed.items {
            let (frame, len) = resp2::decode::decode(rest).expect("RESP").expect("a frame");
            rest = &rest[len..];
            let args = item.value.args.iter().cloned().map(Value::Bulk).collect();
            assert!(same2(&Value::Array(args), &frame), "{item:?} is not {frame:?}");
            assert_eq!(item.bytes, len as u64);
            assert!(!item.degraded && !item.truncated && !item.resynced);
            count += 1;
        }
        assert!(rest.is_empty());
    }
    assert!(count > 500, "only {count} commands");
}

/// Scenario: what clients received on every recorded connection, RESP2 and RESP3.
/// Guarantees: the same replies and pushes, of the same length, as the other implementation reads.
#[test]
fn replies() {
    let mut count = [0; 2];
    for connection in connections() {
        let stream = connection.stream(false);
        let feed = decode::<ReplyDecoder>(&Limits::default(), &stream);
        let version3 = stream.starts_with(b"%") || connection.stream(true).windows(5).any(|w| w == b"HELLO");
        let mut rest = &stream[..];
        for (_, item) in &feed.items {
            let len = if version3 {
                let (frame, len) = resp3::decode::complete::decode(rest)
                    .expect("RESP3")
                    .expect("a frame");
                assert!(same3(&item.value, &frame), "{:?} is not {frame:?}", item.value);
                len
            } else {
                let (frame, len) = resp2::decode::decode(rest).expect("RESP2").expect("a frame");
                assert!(same2(&item.value, &frame), "{:?} is not {frame:?}", item.value);
                len
            };
            rest = &rest[len..];
            assert_eq!(item.bytes, len as u64);
            count[usize::from(version3)] += 1;
        }
        assert!(rest.is_empty());
    }
    assert!(count[0] > 100 && count[1] > 500, "only {count:?} replies");
}

/// Scenario: RESP2's two ways to say that there is nothing.
/// Guarantees: both are null, alone and inside an array.
#[test]
fn nulls_of_resp2() {
    let feed = decode::<ReplyDecoder>(&Limits::default(), b"$-1\r\n*-1\r\n*2\r\n$-1\r\n*-1\r\n");
    let values: Vec<_> = feed.items.into_iter().map(|(_, item)| item.value).collect();
    let pair = Value::Array(vec![Value::Null, Value::Null]);
    assert_eq!(values, [Value::Null, Value::Null, pair]);
}

/// Scenario: one value of each type of RESP3, well-formed and not.
/// Guarantees: both implementations read the same, and refuse the same.
#[test]
fn every_type() {
    let good: &[&str] = &[
        "+OK\r\n",
        "-ERR no\r\n",
        ":-12\r\n",
        ":9223372036854775807\r\n",
        "$0\r\n\r\n",
        "$3\r\na\r\n\r\n",
        "_\r\n",
        ",1.5\r\n",
        ",-3e10\r\n",
        ",inf\r\n",
        ",-inf\r\n",
        "#t\r\n",
        "#f\r\n",
        "(3492890328409238509324850943850943825024385\r\n",
        "!5\r\nERR x\r\n",
        "=7\r\ntxt:abc\r\n",
        "*0\r\n",
        "*2\r\n:1\r\n*1\r\n+x\r\n",
        "%1\r\n+k\r\n:1\r\n",
        "~2\r\n:1\r\n:2\r\n",
        ">2\r\n+message\r\n:1\r\n",
        "|1\r\n+ttl\r\n:3600\r\n:7\r\n",
    ];
    for text in good {
        let feed = decode::<ReplyDecoder>(&Limits::default(), text.as_bytes());
        let (frame, len) = resp3::decode::complete::decode(text.as_bytes())
            .expect(text)
            .expect(text);
        assert_eq!((feed.items.len(), len), (1, text.len()), "{text}");
        assert!(
            same3(&feed.items[0].1.value, &frame),
            "{:?} is not {frame:?}",
            feed.items[0].1
        );
    }
    let bad: &[&str] = &[
        ":\r\n",
        ":1x\r\n",
        "$x\r\n",
        "#x\r\n",
        "@1\r\n",
        "*1\r\n:x\r\n",
        ",x\r\n",
        "%-5\r\n",
    ];
    for text in bad {
        let feed = decode::<ReplyDecoder>(&Limits::default(), text.as_bytes());
        assert_eq!(feed.decoder.stats().protocol_errors, 1, "{text}");
        assert!(
            resp3::decode::complete::decode(text.as_bytes()).is_err(),
            "{text}"
        );
    }
}
