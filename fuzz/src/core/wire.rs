//! The protocols' decoders: AMQP, RESP, frames of the pool's pipes.

use celeryscope_core::Limits;
use celeryscope_core::celery::content;
use celeryscope_core::wire::amqp::{
    Array, ContentHeader, Field, Frame, FrameDecoder, FrameKind, Method, Table, Tuning,
};
use celeryscope_core::wire::pool as frames;
use celeryscope_core::wire::resp::{Item, ReplyDecoder, RequestDecoder};

use super::feed::{Decoder, Piece, feed};
use super::{parts, tight};

/// [`parts`] as what a decoder is fed.
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

fn read_frame(frame: &Frame<'_>) {
    match frame.kind {
        FrameKind::Method => _ = Method::parse(&frame.payload),
        FrameKind::Header => {
            if let Some(header) = ContentHeader::parse(&frame.payload) {
                if let Some(table) = header.headers {
                    read_table(table);
                }
                let body = br#"{"task": "t", "id": "1"}"#;
                for body in [None, Some(&body[..])] {
                    _ = content::read_amqp(&header, body, frame.payload.len() as u64, true, &|text| {
                        text.into()
                    });
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
        let whole = frames::parse(read, data);
        for end in [data.len() / 2, data.len().saturating_sub(1), data.len().min(128)] {
            // What a prefix tells is of the same kind.
            let part = frames::parse(read, &data[..end]);
            if let (Some(part), Some(whole)) = (&part, &whole) {
                assert_eq!(std::mem::discriminant(part), std::mem::discriminant(whole));
            }
        }
    }
}
