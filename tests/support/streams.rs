//! Recorded connections as two streams of bytes, call by call.

use std::collections::BTreeMap;

use celeryscope_core::common::Kind;

use super::fixture::{Fixture, names};

/// What one end of a connection sent.
#[derive(Debug)]
pub struct Direction {
    /// By the client.
    pub sent: bool,
    /// The bytes of each call.
    pub calls: Vec<Vec<u8>>,
}

impl Direction {
    /// All bytes.
    pub fn stream(&self) -> Vec<u8> {
        self.calls.concat()
    }

    /// Whether a call's first byte is the one at this offset.
    pub fn begins(&self, offset: u64) -> bool {
        let mut at = 0;
        self.calls.iter().any(|call| {
            let begins = at == offset;
            at += call.len() as u64;
            begins
        })
    }
}

/// Both directions of every connection to this broker that was recorded whole.
pub fn directions(broker: &str) -> Vec<Direction> {
    let mut all = Vec::new();
    for name in names(broker) {
        let mut found = BTreeMap::<(u64, bool), Option<Vec<Vec<u8>>>>::new();
        for record in Fixture::load(&name).records {
            let sent = match record.kind {
                Kind::Send => true,
                Kind::Recv => false,
                _ => continue,
            };
            let calls = found
                .entry((record.header.conn, sent))
                .or_insert_with(|| Some(Vec::new()));
            if record.payload.len() < record.header.total as usize {
                *calls = None;
            } else if let Some(calls) = calls {
                calls.push(record.payload);
            }
        }
        all.extend(
            found
                .into_iter()
                .filter_map(|((_, sent), calls)| calls.map(|calls| Direction { sent, calls })),
        );
    }
    all
}
