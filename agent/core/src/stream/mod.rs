//! Half-connections: from records, in stream order, to bytes and gaps.
//!
//! A connection has two [`Half`]s, what the process sent and what it received; nothing here knows which is which.
//! A half only orders and accounts: it copies no byte and holds none back, because what is missing from a recording
//! is never delivered later.

mod half;

pub use half::{Half, HalfStats};

use celeryscope_common::{Header, Kind, Record};

use crate::time::Mono;

/// A record that says no more than where its direction's stream is: what is missing up to there is a gap.
pub(crate) fn mark(kind: Kind, offset: u64) -> Record<'static> {
    let header = Header {
        start: offset,
        ..Header::default()
    };
    Record::new(kind, header, &[])
}

/// The system call that moved some bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// When it began.
    pub enter: Mono,
    /// When it returned.
    pub exit: Mono,
    /// Process that made it, in the initial pid namespace.
    pub pid: u32,
    /// Thread that made it.
    pub tid: u32,
}

impl From<&Header> for Call {
    fn from(header: &Header) -> Self {
        Self {
            enter: Mono(header.enter),
            exit: Mono(header.exit),
            pid: header.pid,
            tid: header.tid,
        }
    }
}

/// Bytes that follow, without a gap, those given before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Never empty when it comes from a [`Half`]. A decoder takes from the front of it.
    pub data: &'a [u8],
    /// The first byte of `data` is the first byte that its call moved.
    pub begins: bool,
    /// The call that moved them.
    pub call: Call,
}

impl<'a> Segment<'a> {
    /// Leaves `rest`, a suffix of `data`, to be read.
    pub(crate) fn advance_to(&mut self, rest: &'a [u8]) {
        self.begins &= rest.len() == self.data.len();
        self.data = rest;
    }

    /// Leaves nothing to be read; returns how many bytes that passed over.
    pub(crate) fn skip_all(&mut self) -> u64 {
        let len = self.data.len() as u64;
        self.advance_to(&[]);
        len
    }
}

/// What comes next in a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk<'a> {
    /// So many bytes were moved but not captured.
    Gap {
        /// Bytes; not zero.
        len: u64,
    },
    /// What came before is unknown, and how much it was as well: the connection is older than the capture.
    Break,
    /// Captured bytes.
    Bytes(Segment<'a>),
}
