//! What the fuzz targets do with their input, and what must hold whatever it is.
//!
//! Each function takes any bytes. It fails by a panic: where the core panics, where the same bytes in other pieces give
//! something else, or where bytes are not accounted for. libFuzzer calls it with new inputs; `cargo test` calls it with those
//! that are kept in `corpus/`.

#![allow(unreachable_pub, reason = "a module of a test, too")]

mod feed;

use celeryscope_core::celery::content::{self, Content};
use celeryscope_core::celery::envelope::Contiguous;
use celeryscope_core::celery::{ResultMeta, TraceParent, body, event, legacy};
use celeryscope_core::common::{Header, Kind, Record, flags};
use celeryscope_core::wire::amqp::{
    Array, ContentHeader, Field, Frame, FrameDecoder, FrameKind, Method, Table, Tuning,
};
use celeryscope_core::wire::pool;
use celeryscope_core::wire::resp::{Item, ReplyDecoder, RequestDecoder};
use celeryscope_core::{Config, Limits, Pipeline};
use feed::{Decoder, Piece, feed};

/// Limits so small that short inputs meet them.
fn tight() -> Limits {
    Limits {
        bulk: 64,
        bulk_edge: 16,
        elements: 6,
        depth: 3,
        connections: 3,
        tasks: 4,
        groups: 2,
        processes: 4,
        in_flight: 4,
        ..Limits::default()
    }
}

/// Parts of an input, each `op`, a length of two bytes, and so many bytes or what is left.
fn parts(mut input: &[u8]) -> Vec<(u8, u16, &[u8])> {
    let mut out = Vec::new();
    while let Some(([op, hi, lo], rest)) = input.split_first_chunk::<3>() {
        let len = u16::from_be_bytes([*hi, *lo]);
        let takes = *op % 8 != 0;
        let end = if takes {
            usize::from(len).min(rest.len())
        } else {
            0
        };
        let (data, rest) = rest.split_at(end);
        out.push((*op, len, data));
        input = rest;
    }
    out
}

/// The same as what a decoder is fed.
fn pieces(input: &[u8]) -> Vec<Piece<'_>> {
    let mut out = Vec::new();
    for (op, len, data) in parts(input) {
        match op % 8 {
            0 => out.push(Piece::Gap(u64::from(len))),
            1 => out.extend([Piece::Break, Piece::Bytes { data, begins: true }]),
            op => out.push(Piece::Bytes {
                data,
                begins: op % 2 == 1,
            }),
        }
    }
    out
}

/// Two decoders, one fed as the pieces are, the other byte by byte, say the same.
fn same_in_bytes<D: Decoder>(make: impl Fn() -> D, pieces: &[Piece<'_>]) -> Vec<Item<D::Value>> {
    let whole = feed(&mut make(), pieces, usize::MAX);
    let bytes = feed(&mut make(), pieces, 1);
    assert_eq!(whole, bytes, "pieces change nothing");
    whole.into_iter().map(|(_, item)| item).collect()
}

/// AMQP 0-9-1: frames in pieces, with gaps; the methods, headers and tables in them.
pub fn amqp(data: &[u8]) {
    let pieces = pieces(data);
    for limits in [Limits::default(), tight()] {
        for tuning in [None, Some(Tuning::new(4096, 8))] {
            let make = || {
                let mut decoder = FrameDecoder::new(&limits);
                if let Some(tuning) = tuning {
                    decoder.tune(tuning);
                }
                decoder
            };
            for item in same_in_bytes(make, &pieces) {
                assert!(item.value.payload.len() <= limits.bulk.min(item.value.len as usize));
                read_frame(&item.value);
            }
        }
    }
    // Inputs without any framing: tables are reached sooner.
    read_table(Table::new(data));
}

fn read_frame(frame: &Frame) {
    match frame.kind {
        FrameKind::Method => _ = Method::parse(&frame.payload),
        FrameKind::Header => {
            if let Some(header) = ContentHeader::parse(&frame.payload) {
                if let Some(table) = header.headers {
                    read_table(table);
                }
                let body = br#"{"task": "t", "id": "1"}"#;
                for body in [None, Some(&body[..])] {
                    _ = content::read_amqp(&header, body, frame.payload.len() as u64, true);
                }
            }
        }
        FrameKind::Body | FrameKind::Heartbeat => {}
    }
}

/// All that is in a table; how deep it goes is the table's to limit.
fn read_table(table: Table<'_>) {
    let mut tables = vec![table];
    let mut arrays: Vec<Array<'_>> = Vec::new();
    loop {
        let fields: Vec<Field<'_>> = if let Some(array) = arrays.pop() {
            array.values().collect()
        } else if let Some(table) = tables.pop() {
            table.fields().map(|(_, field)| field).collect()
        } else {
            return;
        };
        for field in fields {
            match field {
                Field::Table(table) => tables.push(table),
                Field::Array(array) => arrays.push(array),
                other => _ = other.text(),
            }
        }
    }
}

/// RESP: commands and replies in pieces, with gaps.
pub fn resp(data: &[u8]) {
    let pieces = pieces(data);
    for limits in [Limits::default(), tight()] {
        same_in_bytes(|| RequestDecoder::new(&limits), &pieces);
        same_in_bytes(|| ReplyDecoder::new(&limits), &pieces);
    }
}

/// Frames of the pool's pipes, cut anywhere.
pub fn pool(data: &[u8]) {
    for read in [true, false] {
        let whole = pool::parse(read, data);
        for end in [data.len() / 2, data.len().saturating_sub(1), data.len().min(128)] {
            // What a prefix tells is of the same kind.
            let part = pool::parse(read, &data[..end]);
            if let (Some(part), Some(whole)) = (&part, &whole) {
                assert_eq!(std::mem::discriminant(part), std::mem::discriminant(whole));
            }
        }
    }
}

/// Envelopes, results, events, bodies and contexts, whole and with a hole.
pub fn envelope(data: &[u8]) {
    _ = content::read(&Contiguous::whole(data), data.len() as u64, true);
    let (head, tail) = data.split_at(data.len() / 2);
    let len = data.len() as u64 + 1000;
    if let Ok(cut) = Contiguous::with_hole(head, tail, len)
        && let Content::Task(message) = content::read(&cut, len, false)
    {
        assert_eq!(message.reprs, None, "arguments are not kept unless asked for");
    }
    _ = ResultMeta::parse(data);
    _ = event::parse(data);
    _ = legacy::read(data);
    _ = body::count_arguments(data);
    if let Ok(text) = std::str::from_utf8(data) {
        _ = TraceParent::parse(text);
        _ = TraceParent::parse_b3(text);
    }
}

/// Records of all kinds, on a few connections of a few processes.
pub fn pipeline(data: &[u8]) {
    let mut pipeline = Pipeline::new(Config {
        limits: tight(),
        ..Config::default()
    });
    let mut offsets = [[0_u64; 2]; 4];
    for (n, (op, _, part)) in parts(data).into_iter().enumerate() {
        let kind = Kind::from_raw(u16::from(op) / 8 % 13).unwrap_or(Kind::Send);
        let [which, payload @ ..] = part else { continue };
        let conn = which % 4;
        let sends = kind == Kind::Send;
        let offset = &mut offsets[usize::from(conn)][usize::from(sends)];
        // Now and then something is missing.
        *offset += u64::from(which / 64) * 5;
        let now = n as u64 * 1_000_000;
        let header = Header {
            flags: flags::LAST | if which & 8 != 0 { flags::MIDSTREAM } else { 0 },
            enter: now,
            exit: now + 1000,
            pid: 100 + u32::from(which >> 4 & 3),
            tid: 100 + u32::from(which >> 4 & 3),
            conn: match kind {
                Kind::Fork | Kind::Process => 100 + u64::from(conn),
                _ => u64::from(conn),
            },
            start: *offset,
            total: payload.len() as u32,
            ..Header::default()
        };
        if matches!(kind, Kind::Send | Kind::Recv) {
            *offset += payload.len() as u64;
        }
        pipeline.feed(&Record::new(kind, header, payload));
        while pipeline.poll().is_some() {}
    }
    pipeline.finish();
    while pipeline.poll().is_some() {}
    let stats = pipeline.stats();
    assert_eq!(
        stats.records,
        stats.records_transfer
            + stats.records_pipe
            + stats.records_process
            + stats.records_control
            + stats.records_rejected
    );
}
