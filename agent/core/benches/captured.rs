//! Both wire decoders on recorded traffic of Celery, as its programs' calls moved it, beside `redis-protocol` and
//! `amq-protocol`.
//!
//! Those do not resume: as their own codecs do, they are given a growing buffer and asked again at each call.

#[path = "../../../tests/support/mod.rs"]
mod support;

use std::hint::black_box;

use amq_protocol::frame::parse_frame;
use bytes::{Buf, BytesMut};
use celeryscope_core::Limits;
use celeryscope_core::stream::{Call, Segment};
use celeryscope_core::wire::amqp::{ContentHeader, FrameDecoder, FrameKind, Method};
use celeryscope_core::wire::resp::{ReplyDecoder, RequestDecoder};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use redis_protocol::{resp2, resp3};
use support::streams::{Direction, directions};

/// All calls of all streams through a new decoder each; gives how many items they hold.
macro_rules! ours {
    ($streams:expr, $decoder:ty, $use:expr) => {{
        let mut count = 0_u64;
        for stream in $streams {
            let mut decoder = <$decoder>::new(&Limits::default());
            for data in &stream.calls {
                let call = Call::default();
                let mut segment = Segment {
                    data,
                    begins: true,
                    call,
                };
                while let Some(item) = decoder.next(&mut segment) {
                    $use(&item.value);
                    black_box(item);
                    count += 1;
                }
            }
        }
        count
    }};
}

/// The same through a function that takes a buffer and gives an item and its length, if there is a whole one.
fn theirs<T>(streams: &[Direction], decode: impl Fn(&[u8]) -> Option<(T, usize)>) -> u64 {
    let mut count = 0;
    for stream in streams {
        let mut buffer = BytesMut::new();
        for data in &stream.calls {
            buffer.extend_from_slice(data);
            while let Some((item, len)) = decode(&buffer) {
                black_box(item);
                buffer.advance(len);
                count += 1;
            }
        }
    }
    count
}

fn request(buffer: &[u8]) -> Option<(resp2::types::OwnedFrame, usize)> {
    resp2::decode::decode(buffer).ok().flatten()
}

fn reply(buffer: &[u8]) -> Option<(resp3::types::OwnedFrame, usize)> {
    resp3::decode::complete::decode(buffer).ok().flatten()
}

fn frame(buffer: &[u8]) -> Option<(amq_protocol::frame::AMQPFrame, usize)> {
    let (rest, frame) = parse_frame(buffer).ok()?;
    Some((frame, buffer.len() - rest.len()))
}

/// Reads as much of a frame as is read of it for Celery, and its whole table.
fn read(frame: &celeryscope_core::wire::amqp::Frame<'_>) {
    match frame.kind {
        FrameKind::Method => _ = black_box(Method::parse(&frame.payload)),
        FrameKind::Header => {
            let header = ContentHeader::parse(&frame.payload);
            if let Some(table) = header.as_ref().and_then(|header| header.headers) {
                table.fields().for_each(|field| _ = black_box(field));
            }
        }
        FrameKind::Body | FrameKind::Heartbeat => {}
    }
}

fn captured(c: &mut Criterion) {
    let mut group = c.benchmark_group("captured");
    let mut compare = |name: &str,
                       streams: Vec<Direction>,
                       ours: &dyn Fn(&[Direction]) -> u64,
                       crate_name: &str,
                       theirs: &dyn Fn(&[Direction]) -> u64| {
        let bytes = streams
            .iter()
            .flat_map(|stream| &stream.calls)
            .map(|call| call.len() as u64)
            .sum();
        group.throughput(Throughput::ElementsAndBytes {
            elements: ours(&streams),
            bytes,
        });
        group.bench_function(format!("{name}/celeryscope"), |b| b.iter(|| ours(&streams)));
        group.bench_function(format!("{name}/{crate_name}"), |b| b.iter(|| theirs(&streams)));
    };

    let (requests, replies): (Vec<_>, Vec<_>) = directions("redis").into_iter().partition(|d| d.sent);
    // What the other crate reads to its end: its decoder of RESP3 does not know RESP2's nulls.
    let resp3: Vec<_> = replies
        .into_iter()
        .filter(|d| {
            let mut rest = &d.stream()[..];
            while let Some((_, len)) = reply(rest) {
                rest = &rest[len..];
            }
            rest.is_empty()
        })
        .collect();
    compare(
        "redis-requests",
        requests,
        &|streams| ours!(streams, RequestDecoder, |_: &_| ()),
        "redis-protocol",
        &|streams| theirs(streams, request),
    );
    compare(
        "redis-replies",
        resp3,
        &|streams| ours!(streams, ReplyDecoder, |_: &_| ()),
        "redis-protocol",
        &|streams| theirs(streams, reply),
    );
    let (sent, received): (Vec<_>, Vec<_>) = directions("rabbitmq").into_iter().partition(|d| d.sent);
    for (name, streams) in [("rabbitmq-sent", sent), ("rabbitmq-received", received)] {
        compare(
            name,
            streams,
            &|streams| ours!(streams, FrameDecoder, read),
            "amq-protocol",
            &|streams| theirs(streams, frame),
        );
    }
    group.finish();
}

criterion_group!(benches, captured);
criterion_main!(benches);
