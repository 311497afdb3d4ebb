//! The RESP decoders on what Celery sends and receives, beside `redis-protocol`.
//!
//! `redis-protocol` does not resume: as its own codec does, it is given a growing buffer and asked again at each call.

use std::hint::black_box;

use bytes::{Buf, BytesMut};
use celeryscope_core::Limits;
use celeryscope_core::stream::{Call, Segment};
use celeryscope_core::wire::resp::{ReplyDecoder, RequestDecoder};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use redis_protocol::{resp2, resp3};

/// An array of bulk strings.
fn array(args: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn segment(data: &[u8]) -> Segment<'_> {
    Segment {
        data,
        begins: true,
        call: Call::default(),
    }
}

/// Both decoders on `count` copies of `one` that arrive in calls of `call` bytes.
macro_rules! compare {
    ($group:ident, $name:literal, $one:expr, $count:literal, $call:expr, $ours:ty, $theirs:path) => {
        let stream = $one.repeat($count);
        let call: usize = $call;
        $group.throughput(Throughput::ElementsAndBytes {
            elements: $count,
            bytes: stream.len() as u64,
        });
        $group.bench_function(concat!($name, "/celeryscope"), |b| {
            let mut decoder = <$ours>::new(&Limits::default());
            b.iter(|| {
                for piece in stream.chunks(call) {
                    let mut segment = segment(piece);
                    while let Some(item) = decoder.next(&mut segment) {
                        black_box(item);
                    }
                }
            });
            assert_eq!(decoder.pending(), 0);
        });
        $group.bench_function(concat!($name, "/redis-protocol"), |b| {
            let mut buffer = BytesMut::new();
            b.iter(|| {
                for piece in stream.chunks(call) {
                    buffer.extend_from_slice(piece);
                    while let Ok(Some((frame, len))) = $theirs(&buffer) {
                        black_box(frame);
                        buffer.advance(len);
                    }
                }
            });
            assert!(buffer.is_empty());
        });
    };
}

fn resp(c: &mut Criterion) {
    let message = vec![b'x'; 1024];
    let large = vec![b'x'; 1 << 20];
    let mut group = c.benchmark_group("resp");

    let push = array(&[b"LPUSH", b"celery", &message]);
    compare!(
        group,
        "lpush-1k",
        push,
        1000,
        push.len(),
        RequestDecoder,
        resp2::decode::decode
    );
    compare!(
        group,
        "lpush-1k-in-100-byte-calls",
        push,
        1000,
        100,
        RequestDecoder,
        resp2::decode::decode
    );
    let ack = [
        array(&[b"MULTI"]),
        array(&[b"ZREM", b"unacked_index", b"d8f9c8ab-0000-4000-8000-000000000000"]),
        array(&[b"HDEL", b"unacked", b"d8f9c8ab-0000-4000-8000-000000000000"]),
        array(&[b"EXEC"]),
    ]
    .concat();
    compare!(
        group,
        "ack",
        ack,
        1000,
        ack.len(),
        RequestDecoder,
        resp2::decode::decode
    );
    let push = array(&[b"LPUSH", b"celery", &large]);
    compare!(
        group,
        "lpush-1m",
        push,
        4,
        64 * 1024,
        RequestDecoder,
        resp2::decode::decode
    );

    let delivery = array(&[b"celery", &message]);
    compare!(
        group,
        "brpop-1k",
        delivery,
        1000,
        delivery.len(),
        ReplyDecoder,
        resp3::decode::complete::decode
    );
    compare!(
        group,
        "brpop-1k-in-100-byte-calls",
        delivery,
        1000,
        100,
        ReplyDecoder,
        resp3::decode::complete::decode
    );
    compare!(
        group,
        "poll",
        b"_\r\n",
        1000,
        3,
        ReplyDecoder,
        resp3::decode::complete::decode
    );
    let exec = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n:1\r\n";
    compare!(
        group,
        "exec",
        exec,
        1000,
        exec.len(),
        ReplyDecoder,
        resp3::decode::complete::decode
    );
    let delivery = array(&[b"celery", &large]);
    compare!(
        group,
        "brpop-1m",
        delivery,
        4,
        32 * 1024,
        ReplyDecoder,
        resp3::decode::complete::decode
    );
    group.finish();
}

criterion_group!(benches, resp);
criterion_main!(benches);
