use super::*;
use crate::limits::Limits;
use crate::stream::{Call, Segment};
use crate::time::Mono;

fn call(n: u64) -> Call {
    Call {
        enter: Mono(n * 10),
        exit: Mono(n * 10 + 5),
        pid: 100 + n as u32,
        tid: 200 + n as u32,
    }
}

/// Feeds whole transfers, the n-th moved by `call(n)`.
fn requests(decoder: &mut RequestDecoder, transfers: &[&[u8]]) -> Vec<Item<Command<'static>>> {
    let mut items = Vec::new();
    for (n, data) in transfers.iter().enumerate() {
        let mut segment = Segment {
            data,
            begins: true,
            call: call(n as u64),
        };
        let next = || {
            decoder
                .next(&mut segment)
                .map(|item| item.map(Command::into_owned))
        };
        items.extend(std::iter::from_fn(next));
        assert!(segment.data.is_empty());
    }
    items
}

fn replies(decoder: &mut ReplyDecoder, transfers: &[&[u8]]) -> Vec<Item<Value<'static>>> {
    let mut items = Vec::new();
    for (n, data) in transfers.iter().enumerate() {
        let mut segment = Segment {
            data,
            begins: true,
            call: call(n as u64),
        };
        let next = || decoder.next(&mut segment).map(|item| item.map(Value::into_owned));
        items.extend(std::iter::from_fn(next));
        assert!(segment.data.is_empty());
    }
    items
}

fn names(items: &[Item<Command<'static>>]) -> Vec<String> {
    items
        .iter()
        .map(|item| String::from_utf8_lossy(item.value.name()).into_owned())
        .collect()
}

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// Scenario: a message sent as redis-py sends a large one (three calls), then a pipeline of two in one call.
/// Guarantees: times and thread are those of the calls that moved an item's first and last byte.
#[test]
fn times_of_an_item() {
    let mut decoder = RequestDecoder::new(&Limits::default());
    let pipeline = [PING, PING].concat();
    let transfers: [&[u8]; 4] = [
        b"*3\r\n$5\r\nLPUSH\r\n$1\r\nq\r\n$4\r\n",
        b"body",
        b"\r\n",
        &pipeline,
    ];
    let items = requests(&mut decoder, &transfers);
    assert_eq!(names(&items), ["LPUSH", "PING", "PING"]);
    let push = &items[0];
    assert_eq!(
        (push.first, push.last_enter, push.last),
        (Mono(0), Mono(20), Mono(25))
    );
    assert_eq!((push.pid, push.tid, push.bytes), (102, 202, 32));
    assert!(
        items[1..]
            .iter()
            .all(|item| item.first == Mono(30) && item.last == Mono(35))
    );
}

/// Scenario: a gap inside a large argument, and one that ends exactly where the command ends.
/// Guarantees: the command is exact but for the hole; what follows is read without losing sync.
#[test]
fn gap_inside_a_string() {
    let mut decoder = RequestDecoder::new(&Limits::default());
    requests(&mut decoder, &[b"*2\r\n$5\r\nLPUSH\r\n$10\r\n012"]);
    assert_eq!(decoder.gap(4), None);
    let items = requests(&mut decoder, &[b"789\r\n", b"*2\r\n$3\r\nGET\r\n$4\r\nab"]);
    let bulk = items[0].value.arg(1).unwrap();
    assert_eq!(
        (bulk.head(), bulk.tail(), bulk.whole(), bulk.lost()),
        (&b"012"[..], &b"789"[..], None, 4)
    );
    assert!(items[0].degraded && !items[0].truncated && !items[0].resynced);
    assert_eq!(items[0].bytes, 32);

    let item = decoder.gap(4).expect("the command's last bytes are the gap's");
    assert_eq!(
        (item.value.arg(1).unwrap().head(), item.degraded),
        (&b"ab"[..], true)
    );
    assert_eq!(
        (item.first, item.last),
        (Mono(10), Mono(15)),
        "of the last bytes that were seen"
    );
    assert_eq!(names(&requests(&mut decoder, &[PING])), ["PING"]);
    assert_eq!(decoder.stats().sync_losses, 0);
}

/// Scenario: gaps that may have swallowed a boundary: between commands, in a line, beyond a string.
/// Guarantees: sync is lost, the item at hand dropped; found at the next transfer that begins with a command, which
/// says so; the accounts balance.
#[test]
fn gap_elsewhere() {
    for (before, gap) in [
        (&b""[..], 3),
        (b"*2\r\n$3\r\nG", 5),
        (b"*2\r\n$3", 1),
        (b"*1\r\n", 1),
    ] {
        let mut decoder = RequestDecoder::new(&Limits::default());
        requests(&mut decoder, &[before]);
        assert_eq!(decoder.gap(gap), None);
        assert!(!decoder.is_synced());
        let items = requests(&mut decoder, &[b"$1\r\nx\r\n", PING, PING]);
        assert_eq!(names(&items), ["PING", "PING"], "{}", before.escape_ascii());
        assert_eq!((items[0].resynced, items[1].resynced), (true, false));
        let stats = decoder.stats();
        assert_eq!(
            (stats.sync_losses, stats.resyncs, stats.protocol_errors),
            (1, 1, 0)
        );
        assert_eq!(
            stats.bytes + stats.gap_bytes,
            stats.item_bytes + stats.skipped_bytes
        );
    }
}

/// Scenario: out of sync, transfers that begin with what is not quite a command.
/// Guarantees: none of them is taken for a boundary.
#[test]
fn what_is_no_boundary() {
    let no: [&[u8]; 10] = [
        b"{\"body\": 1}",
        b"*0\r\n$4\r\nPING\r\n",
        b"*1\r\n$0\r\n\r\n",
        b"*1\r\n$33\r\nABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG\r\n",
        b"*1048577\r\n$4\r\nPING\r\n",
        b"*1\r\n$4\r\nP1NG\r\n",
        b"*1\r\n:4\r\n",
        b"*1\n$4\nPING\n",
        b"*\r\n$4\r\nPING\r\n",
        b"PING\r\n",
    ];
    for data in no {
        let mut decoder = RequestDecoder::new(&Limits::default());
        decoder.lose_sync();
        assert_eq!(requests(&mut decoder, &[data]), [], "{}", data.escape_ascii());
        assert!(!decoder.is_synced());
        assert_eq!(decoder.stats().skipped_bytes, data.len() as u64);
    }
    // Right bytes, wrong place: not at the beginning of a transfer.
    let mut decoder = RequestDecoder::new(&Limits::default());
    decoder.lose_sync();
    let mut segment = Segment {
        data: PING,
        begins: false,
        call: call(0),
    };
    assert_eq!(decoder.next(&mut segment), None);
}

/// Scenario: inline commands, blank lines, commands without arguments.
/// Guarantees: an inline command keeps its place with its first word; what Redis does not answer is no item.
#[test]
fn inline_commands() {
    let mut decoder = RequestDecoder::new(&Limits::default());
    let items = requests(
        &mut decoder,
        &[b"ping\r\n", b"\r\n", b"*0\r\n*-1\r\n", b"SET a b\n", PING],
    );
    assert_eq!(names(&items), ["ping", "SET", "PING"]);
    assert!(items[0].value.is("PING") && items[0].value.inline && !items[2].value.inline);
    let stats = decoder.stats();
    assert_eq!(
        (stats.inline, stats.skipped_bytes, stats.protocol_errors),
        (2, 11, 0)
    );
}

/// Scenario: TLS, HTTP, AMQP, other first bytes, in place of requests.
/// Guarantees: one protocol error at once, no item beyond what HTTP shares with inline commands, no resync.
#[test]
fn not_resp() {
    let others: [&[u8]; 5] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"AMQP\x00\x00\x09\x01",
        b"*1\r\n:1\r\n",
        b"*1\r\n$-1\r\n",
    ];
    for data in others {
        let mut decoder = RequestDecoder::new(&Limits::default());
        assert_eq!(requests(&mut decoder, &[data, data]), []);
        assert_eq!(decoder.stats().protocol_errors, 1, "{}", data.escape_ascii());
        assert!(!decoder.is_synced());
    }
}

/// Scenario: a fault in the middle of a transfer, a command right behind it, another in the next transfer.
/// Guarantees: only the beginning of a transfer is a boundary.
#[test]
fn fault_inside_a_transfer() {
    let mut decoder = RequestDecoder::new(&Limits::default());
    let fault = [PING, b"*1\r\n", PING].concat();
    let items = requests(&mut decoder, &[&fault, PING]);
    let resynced: Vec<_> = items.iter().map(|item| item.resynced).collect();
    assert_eq!(resynced, [false, true]);
    assert_eq!(decoder.stats().skipped_bytes, 4 + PING.len() as u64);
}

/// Scenario: replies out of sync: nothing marked; marked but with a gap before the bytes; marked, in the middle of a
/// transfer; marked.
/// Guarantees: only the last finds sync, and says so.
#[test]
fn replies_need_a_mark() {
    let mut decoder = ReplyDecoder::new(&Limits::default());
    assert_eq!(decoder.gap(7), None);
    assert_eq!(replies(&mut decoder, &[b"+OK\r\n"]), []);

    decoder.mark_boundary();
    assert_eq!(decoder.gap(1), None);
    assert_eq!(replies(&mut decoder, &[b"+OK\r\n"]), []);

    decoder.mark_boundary();
    let mut segment = Segment {
        data: b"+OK\r\n",
        begins: false,
        call: call(0),
    };
    assert_eq!(decoder.next(&mut segment), None);
    assert_eq!(replies(&mut decoder, &[b"+OK\r\n"]), [], "the mark is used up");

    decoder.mark_boundary();
    let items = replies(&mut decoder, &[b":1\r\n:2\r\n"]);
    let values: Vec<_> = items
        .iter()
        .map(|item| (item.value.int().unwrap(), item.resynced))
        .collect();
    assert_eq!(values, [(1, true), (2, false)]);
    assert_eq!(decoder.stats().resyncs, 1);

    // In sync a mark means nothing: the pipeline's owner may have been mistaken.
    replies(&mut decoder, &[b"$4\r\nab"]);
    decoder.mark_boundary();
    assert_eq!(
        replies(&mut decoder, &[b"cd\r\n"])[0].value.text(),
        Some(&b"abcd"[..])
    );
}

/// Scenario: aggregates nested deeper than the limit, with attributes, maps and strings in them.
/// Guarantees: they are passed over exactly, marked as too deep; what follows is read. Without a length they cannot
/// be passed over: sync is lost.
#[test]
fn too_deep() {
    let limits = Limits {
        depth: 2,
        ..Limits::default()
    };
    let mut decoder = ReplyDecoder::new(&limits);
    let deep =
        b"*2\r\n*2\r\n*2\r\n|1\r\n+a\r\n*1\r\n:1\r\n%1\r\n$3\r\n*1\r\r\n*0\r\n:2\r\n:3\r\n:4\r\n:5\r\n";
    let items = replies(&mut decoder, &[deep]);
    let inner = Value::Array(vec![Value::TooDeep, Value::Int(3)]);
    assert_eq!(items[0].value, Value::Array(vec![inner, Value::Int(4)]));
    assert!(items[0].truncated);
    assert_eq!(items[1].value, Value::Int(5));

    assert_eq!(replies(&mut decoder, &[b"*1\r\n*1\r\n*?\r\n:1\r\n.\r\n"]), []);
    assert_eq!(decoder.stats().protocol_errors, 1);
}

/// Scenario: more arguments, and longer ones, than are kept.
/// Guarantees: the first are kept, the long ones by their edges; the command is flagged, the next one is not.
#[test]
fn too_much() {
    let limits = Limits {
        elements: 2,
        bulk: 4,
        bulk_edge: 2,
        ..Limits::default()
    };
    let mut decoder = RequestDecoder::new(&limits);
    let items = requests(
        &mut decoder,
        &[b"*3\r\n$4\r\nPING\r\n$6\r\nabcdef\r\n$1\r\nx\r\n*1\r\n$1\r\nX\r\n"],
    );
    let args = &items[0].value.args;
    assert_eq!(args.len(), 2);
    assert_eq!(
        (args[1].head(), args[1].tail(), args[1].len()),
        (&b"ab"[..], &b"ef"[..], 6)
    );
    assert_eq!(
        (items[0].truncated, items[0].degraded, items[1].truncated),
        (true, false, false)
    );
}

/// Scenario: a reply of more values than are kept, the last of them inside an array inside it.
/// Guarantees: the values that come first are kept where they are, the array around them too.
#[test]
fn too_much_inside() {
    let limits = Limits {
        elements: 3,
        ..Limits::default()
    };
    let mut decoder = ReplyDecoder::new(&limits);
    let items = replies(&mut decoder, &[b"*2\r\n*3\r\n:1\r\n:2\r\n:3\r\n:4\r\n"]);
    let inner = Value::Array(vec![Value::Int(1), Value::Int(2)]);
    assert_eq!(items[0].value, Value::Array(vec![inner]));
    assert!(items[0].truncated);
}

/// Scenario: lengths and counts at the ends of their types, lines without an end.
/// Guarantees: passed over or refused; never reserved, never overflown.
#[test]
fn absurd_numbers() {
    let max = u64::MAX.to_string();
    let most = i64::MAX.to_string();
    for mark in ["*", "$", "%", "~", ">", "|", "=", "!", ";"] {
        for (number, refused) in [(&max, true), (&most, false)] {
            let line = format!("{mark}{number}\r\n");
            let mut decoder = ReplyDecoder::new(&Limits::default());
            assert_eq!(replies(&mut decoder, &[line.as_bytes()]), []);
            // A piece is refused because no string in pieces is open.
            let error = decoder.stats().protocol_errors == 1;
            assert_eq!(error, refused || mark == ";", "{line}");
            assert!(decoder.held() < 4096, "{line} holds {}", decoder.held());
        }
    }
    let mut decoder = ReplyDecoder::new(&Limits::default());
    let endless = [b"$", &[b'1'; 100][..]].concat();
    replies(&mut decoder, &[&endless]);
    assert_eq!(decoder.stats().protocol_errors, 1);
}

/// Scenario: endless input of each kind that makes a decoder hold something.
/// Guarantees: what it holds stays within a few times what one item may keep.
#[test]
fn memory_is_bounded() {
    let limits = Limits {
        bulk: 1024,
        bulk_edge: 512,
        elements: 32,
        depth: 8,
        ..Limits::default()
    };
    let values = 2 * (limits.elements + 8 * limits.depth) * size_of::<Value<'_>>();
    let bound = 8 * limits.bulk + values + 2048;
    let string = [b"$1000\r\n", &[b'x'; 1000][..], b"\r\n"].concat();
    let long = [b"$2000\r\n", &[b'x'; 2000][..], b"\r\n"].concat();
    let kinds: [(&[u8], &[u8]); 10] = [
        (b"*999999999\r\n", &long),
        (b"*999999999\r\n", &string),
        (b"*999999999\r\n", b"$1000000\r\nxxxxxxxxxxx"),
        (
            b"*999999999\r\n",
            b"+xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n",
        ),
        (b"*999999999\r\n", b"*9\r\n"),
        (b"*?\r\n", b"*?\r\n"),
        (b"*999999999\r\n", b"*0\r\n"),
        (b"+", b"xxxxxxxxxxxxxxx"),
        (b"$?\r\n", b";9\r\n123456789\r\n"),
        (b"|99999999\r\n", &string),
    ];
    for (start, more) in kinds {
        let mut reply = ReplyDecoder::new(&limits);
        let mut request = RequestDecoder::new(&limits);
        replies(&mut reply, &[start]);
        requests(&mut request, &[start]);
        for _ in 0..2000 {
            for data in more.chunks(700) {
                let mut segment = Segment {
                    data,
                    begins: false,
                    call: call(0),
                };
                assert_eq!(reply.next(&mut segment), None);
                let mut segment = Segment {
                    data,
                    begins: false,
                    call: call(0),
                };
                while request.next(&mut segment).is_some() {}
            }
            assert!(
                reply.held() <= bound,
                "{}: {} held",
                start.escape_ascii(),
                reply.held()
            );
            assert!(
                request.held() <= bound,
                "{}: {} held",
                start.escape_ascii(),
                request.held()
            );
        }
    }
}

/// Scenario: replies that say no more than that there is one, each with another behind it and cut anywhere, and replies that say more.
/// Guarantees: the former are passed over, whole or not at all, and count as they do when they are read; of the latter nothing is taken.
#[test]
fn replies_are_passed_over() {
    let decoder = || ReplyDecoder::new(&Limits::default());
    fn segment(data: &[u8]) -> Segment<'_> {
        Segment {
            data,
            begins: true,
            call: call(1),
        }
    }
    let plain = [
        "+OK\r\n",
        "+QUEUED\r\n",
        ":0\r\n",
        ":1795186876\r\n",
        "_\r\n",
        "$-1\r\n",
        "*1\r\n:1\r\n",
        "*3\r\n+OK\r\n_\r\n:12\r\n",
    ];
    for reply in plain {
        let both = format!("{reply}:7\r\n");
        let (mut passing, mut rest) = (decoder(), segment(both.as_bytes()));
        assert!(passing.pass(&mut rest), "{reply:?}");
        assert_eq!((rest.data, rest.begins), (&b":7\r\n"[..], false), "{reply:?}");
        let mut reading = decoder();
        assert_eq!(replies(&mut reading, &[reply.as_bytes()]).len(), 1);
        assert_eq!(passing.stats(), reading.stats(), "{reply:?}");
        for end in 0..reply.len() {
            assert!(
                !decoder().pass(&mut segment(&reply.as_bytes()[..end])),
                "{reply:?} {end}"
            );
        }
    }
    for reply in [
        "$2\r\nab\r\n",
        "-ERR\r\n",
        "*0\r\n",
        "*2\r\n:1\r\n$1\r\na\r\n",
        ">1\r\n:1\r\n",
        "#t\r\n",
        "+a long text that is no acknowledgment\r\n",
    ] {
        let mut rest = segment(reply.as_bytes());
        assert!(!decoder().pass(&mut rest), "{reply:?}");
        assert_eq!(rest.data, reply.as_bytes());
    }
}
