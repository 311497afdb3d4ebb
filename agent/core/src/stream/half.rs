//! One direction of one connection.
//!
//! Invariant: the lengths of the chunks that a half has given, and of what it was told to step over, add up to the stream offset
//! it expects next, counted from the last [`Chunk::Break`].

use celeryscope_common::{Record, flags};

use super::{Call, Chunk, Segment};

/// Accounts for one direction of a connection.
#[derive(Clone, Debug, Default)]
pub struct Half {
    /// Stream offset of the first byte not yet accounted for.
    next: u64,
    /// The next record starts the stream anew: nothing is known of what was before it.
    fresh: bool,
    stats: HalfStats,
}

/// What a half has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HalfStats {
    /// Bytes handed on.
    pub bytes: u64,
    /// Gaps handed on.
    pub gaps: u64,
    /// Bytes in those gaps.
    pub gap_bytes: u64,
    /// Bytes dropped because they had been seen before.
    pub overlap_bytes: u64,
    /// Bytes stepped over.
    pub idle_bytes: u64,
    /// Records dropped because their place in the stream is beyond what 64 bits count.
    pub rejected: u64,
}

impl Half {
    /// A direction; `midstream` when its connection is older than the capture ([`flags::MIDSTREAM`]).
    #[must_use]
    pub fn new(midstream: bool) -> Self {
        Self {
            fresh: midstream,
            ..Self::default()
        }
    }

    /// What `record` (a `Send` or a `Recv` of this direction) adds to the stream, in order.
    ///
    /// A gap before the record is found by its offset. When it is the last of its transfer and ends before the transfer
    /// does, the rest was not captured and is given as a gap at once.
    pub fn record<'a>(&mut self, record: &Record<'a>) -> impl Iterator<Item = Chunk<'a>> + use<'a> {
        self.place(record).unwrap_or_else(|| self.reject())
    }

    /// The bytes up to `offset` are none that need be read ([`Kind::Idle`](celeryscope_common::Kind)).
    pub fn step_over(&mut self, offset: u64) {
        let len = offset.saturating_sub(self.next);
        self.next = self.next.max(offset);
        self.stats.idle_bytes = self.stats.idle_bytes.saturating_add(len);
    }

    /// Counters so far.
    #[must_use]
    pub fn stats(&self) -> &HalfStats {
        &self.stats
    }

    /// `None` when the record's place cannot be counted.
    fn place<'a>(&mut self, record: &Record<'a>) -> Option<Chunks<'a>> {
        let header = &record.header;
        let begin = header.start.checked_add(u64::from(header.at))?;
        let end = begin.checked_add(record.payload.len() as u64)?;
        let transfer_end = header.start.checked_add(u64::from(header.total))?;

        let fresh = std::mem::take(&mut self.fresh);
        if fresh {
            self.next = begin;
        }
        let before = self.gap_to(begin);

        let seen = self.next.saturating_sub(begin).min(end - begin);
        self.stats.overlap_bytes += seen;
        let data = usize::try_from(seen)
            .ok()
            .and_then(|seen| record.payload.get(seen..))
            .unwrap_or_default();
        self.next = self.next.max(end);
        self.stats.bytes += data.len() as u64;

        let last = header.flags & flags::LAST != 0;
        Some(Chunks {
            fresh,
            before,
            segment: Segment {
                data,
                begins: header.at == 0 && seen == 0,
                call: Call::from(header),
            },
            after: if last { self.gap_to(transfer_end) } else { 0 },
        })
    }

    /// Moves on to `offset` if it lies ahead. Gives how far that is.
    fn gap_to(&mut self, offset: u64) -> u64 {
        let len = offset.saturating_sub(self.next);
        if len > 0 {
            self.next = offset;
            self.stats.gaps += 1;
            self.stats.gap_bytes = self.stats.gap_bytes.saturating_add(len);
        }
        len
    }

    /// A record that cannot be placed leaves the rest of the stream without a known place too.
    fn reject<'a>(&mut self) -> Chunks<'a> {
        self.stats.rejected += 1;
        self.fresh = true;
        Chunks {
            fresh: false,
            before: 0,
            segment: Segment {
                data: &[],
                begins: false,
                call: Call::default(),
            },
            after: 0,
        }
    }
}

/// What a record adds to the stream, as far as it has not been given.
struct Chunks<'a> {
    fresh: bool,
    /// Bytes missing before the segment.
    before: u64,
    segment: Segment<'a>,
    /// Bytes missing behind it.
    after: u64,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        if std::mem::take(&mut self.fresh) {
            return Some(Chunk::Break);
        }
        let before = std::mem::take(&mut self.before);
        if before > 0 {
            return Some(Chunk::Gap { len: before });
        }
        if !self.segment.data.is_empty() {
            let segment = self.segment;
            self.segment.data = &[];
            return Some(Chunk::Bytes(segment));
        }
        let after = std::mem::take(&mut self.after);
        (after > 0).then_some(Chunk::Gap { len: after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use celeryscope_common::{Header, Kind};

    fn piece(start: u64, at: u32, total: u32, last: bool, payload: &[u8]) -> Record<'_> {
        let header = Header {
            flags: if last { flags::LAST } else { 0 },
            start,
            at,
            total,
            ..Header::default()
        };
        Record::new(Kind::Send, header, payload)
    }

    fn whole(start: u64, payload: &[u8]) -> Record<'_> {
        piece(start, 0, payload.len() as u32, true, payload)
    }

    fn show(half: &mut Half, record: &Record<'_>) -> Vec<String> {
        half.record(record)
            .map(|chunk| match chunk {
                Chunk::Gap { len } => format!("gap {len}"),
                Chunk::Break => "break".to_owned(),
                Chunk::Bytes(s) => {
                    let sign = if s.begins { "^" } else { "" };
                    format!("{sign}{}", String::from_utf8_lossy(s.data))
                }
            })
            .collect()
    }

    /// Scenario: a whole transfer; one with head and tail only; one whose record was lost; one cut short.
    /// Guarantees: bytes and gaps in order, gaps as early as they can be known, only first bytes marked as beginnings.
    #[test]
    fn gaps_are_placed() {
        let mut half = Half::new(false);
        assert_eq!(show(&mut half, &whole(0, b"abc")), ["^abc"]);
        assert_eq!(show(&mut half, &piece(3, 0, 100, false, b"head")), ["^head"]);
        assert_eq!(
            show(&mut half, &piece(3, 96, 100, true, b"tail")),
            ["gap 92", "tail"]
        );
        assert_eq!(show(&mut half, &whole(110, b"x")), ["gap 7", "^x"]);
        assert_eq!(show(&mut half, &piece(111, 0, 10, true, b"yy")), ["^yy", "gap 8"]);
        assert_eq!(show(&mut half, &piece(121, 0, 5, true, b"")), ["gap 5"]);
        assert_eq!(show(&mut half, &whole(126, b"z")), ["^z"]);
        let stats = half.stats();
        assert_eq!((stats.bytes, stats.gaps, stats.gap_bytes), (15, 4, 112));
        assert_eq!(
            stats.bytes + stats.gap_bytes,
            127,
            "every offset is accounted for"
        );
    }

    /// Scenario: records that repeat bytes, in part or whole.
    /// Guarantees: what was seen is cut off and counted; a cut transfer does not begin where it was cut.
    #[test]
    fn overlaps_are_cut() {
        let mut half = Half::new(false);
        assert_eq!(show(&mut half, &whole(0, b"abcd")), ["^abcd"]);
        assert!(show(&mut half, &whole(0, b"abcd")).is_empty());
        assert_eq!(show(&mut half, &whole(2, b"cdef")), ["ef"]);
        assert!(show(&mut half, &whole(1, b"b")).is_empty());
        assert_eq!(show(&mut half, &whole(6, b"g")), ["^g"]);
        assert_eq!(half.stats().overlap_bytes, 7);
    }

    /// Scenario: a connection that is older than the capture.
    /// Guarantees: it starts with a break of unknown length, once, and no gap is made up for what came before.
    #[test]
    fn midstream_starts_with_a_break() {
        let mut half = Half::new(true);
        assert_eq!(show(&mut half, &whole(500, b"abc")), ["break", "^abc"]);
        assert_eq!(show(&mut half, &whole(503, b"d")), ["^d"]);
        assert_eq!(half.stats().gap_bytes, 0);
    }

    /// Scenario: bytes that were left out are stepped over, ahead of where the stream is and behind it.
    /// Guarantees: no gap is made of them; what is missing after them still is one; nothing goes back.
    #[test]
    fn what_is_stepped_over_is_no_gap() {
        let mut half = Half::new(false);
        assert_eq!(show(&mut half, &whole(0, b"abc")), ["^abc"]);
        half.step_over(103);
        assert_eq!(show(&mut half, &whole(103, b"d")), ["^d"]);
        half.step_over(50);
        assert_eq!(show(&mut half, &whole(106, b"e")), ["gap 2", "^e"]);
        half.step_over(u64::MAX);
        let stats = half.stats();
        assert_eq!((stats.gap_bytes, stats.bytes), (2, 5));
        assert_eq!(stats.idle_bytes, 100 + (u64::MAX - 107));
    }

    /// Scenario: offsets at the end of what 64 bits count, and jumps over nearly all of it.
    /// Guarantees: no overflow; a record without a place is dropped and counted, the next one starts anew.
    #[test]
    fn absurd_offsets() {
        let mut half = Half::new(false);
        assert!(show(&mut half, &whole(u64::MAX, b"ab")).is_empty());
        assert!(show(&mut half, &piece(u64::MAX - 3, 9, 10, true, b"a")).is_empty());
        assert_eq!(half.stats().rejected, 2);
        assert_eq!(show(&mut half, &whole(7, b"a")), ["break", "^a"]);
        assert_eq!(
            show(&mut half, &whole(u64::MAX - 1, b"z")),
            [format!("gap {}", u64::MAX - 9), "^z".to_owned()]
        );
        assert!(show(&mut half, &whole(3, b"late")).is_empty());
    }

    /// Scenario: a record whose payload goes beyond the transfer it belongs to.
    /// Guarantees: its bytes are taken as they come, no gap is made up.
    #[test]
    fn payload_beyond_the_transfer() {
        let mut half = Half::new(false);
        assert_eq!(show(&mut half, &piece(0, 0, 1, true, b"abc")), ["^abc"]);
        assert_eq!(show(&mut half, &whole(3, b"d")), ["^d"]);
    }
}
