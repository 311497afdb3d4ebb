//! Targets of the core.
#![allow(unreachable_pub, reason = "a module of a test, too")]

mod bodies;
mod feed;
mod invariants;
mod pipeline;
mod records;
mod wire;

use celeryscope_core::Limits;

pub use bodies::{document, envelope};
pub use pipeline::pipeline;
pub use wire::{amqp, pool, resp};

/// Limits so small that short inputs meet them.
fn tight() -> Limits {
    Limits {
        connections: 3,
        stream_bytes: 2048,
        tasks: 4,
        message_bytes: 8192,
        groups: 2,
        processes: 4,
        bulk: 64,
        bulk_edge: 16,
        elements: 6,
        depth: 3,
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
