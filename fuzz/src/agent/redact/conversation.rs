//! What is said on one connection, in records.

use celeryscope_core::common::{Endpoint, Header, Kind, flags};

/// The fuzzer's bytes, taken one after the other; zeros when there are no more.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    pub(super) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Text without control characters, as identifiers and JSON have it.
    pub(super) fn text(&mut self) -> String {
        let len = usize::from(self.byte() & 31);
        let text = String::from_utf8_lossy(self.bytes(len)).into_owned();
        text.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect()
    }

    /// The same in quotes, escaped.
    pub(super) fn quoted(&mut self) -> String {
        serde_json::to_string(&self.text()).expect("text")
    }
}

/// A connection to a broker.
pub(super) struct Conversation {
    pub(super) records: Vec<(Kind, Header, Vec<u8>)>,
    /// Parts may get lost.
    lossy: bool,
    /// It is older than the capture, or something got lost.
    partial: bool,
    offsets: [u64; 2],
    now: u64,
}

impl Conversation {
    pub(super) fn new(lossy: bool, older: bool) -> Self {
        let header = Header {
            flags: if older { flags::MIDSTREAM } else { 0 },
            conn: 1,
            pid: 7,
            tid: 7,
            ..Header::default()
        };
        let endpoint = Endpoint {
            port: 6379,
            ..Endpoint::default()
        };
        Self {
            records: vec![(Kind::Open, header, endpoint.to_bytes().to_vec())],
            lossy,
            partial: older,
            offsets: [0; 2],
            now: 0,
        }
    }

    /// Whether parts may get lost.
    pub(super) fn is_lossy(&self) -> bool {
        self.lossy
    }

    /// Whether all of it is in the records.
    pub(super) fn is_whole(&self) -> bool {
        !self.partial
    }

    /// One call's bytes, in records cut where the input says.
    pub(super) fn say(&mut self, kind: Kind, bytes: &[u8], input: &mut Input<'_>) {
        let cuts = input.byte();
        let mut edges: Vec<usize> = (0..cuts & 3)
            .map(|_| usize::from(input.byte()) * (bytes.len() + 1) / 256)
            .collect();
        edges.extend([0, bytes.len()]);
        edges.sort_unstable();
        edges.dedup();
        self.now += 1_000_000;
        let start = self.offsets[usize::from(kind == Kind::Recv)];
        let pieces = edges.len() - 1;
        for (n, pair) in edges.windows(2).enumerate() {
            if self.lossy && cuts >> (4 + n) & 1 == 1 {
                self.partial = true;
                continue;
            }
            let header = Header {
                flags: if n + 1 == pieces { flags::LAST } else { 0 },
                enter: self.now,
                exit: self.now + 1000,
                pid: 7,
                tid: 7,
                conn: 1,
                start,
                at: pair[0] as u32,
                total: bytes.len() as u32,
                ..Header::default()
            };
            self.records
                .push((kind, header, bytes[pair[0]..pair[1]].to_vec()));
        }
        self.offsets[usize::from(kind == Kind::Recv)] += bytes.len() as u64;
    }
}
