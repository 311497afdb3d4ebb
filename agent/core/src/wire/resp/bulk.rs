//! Bulk strings: payloads of known length, kept whole or by their edges, with holes where bytes were not captured.

use std::borrow::Cow;

/// A bulk string as far as it was seen and kept: borrowed where all of it was seen at once.
///
/// Either it is [whole](Self::whole), or there is a hole somewhere between a head and a tail: because it is longer
/// than the limit, because bytes in it were not captured, or both.
#[derive(Clone, Debug)]
pub struct Bulk<'a>(Seen<'a>);

/// No larger than a slice: every command is made of these.
#[derive(Clone, Debug)]
enum Seen<'a> {
    /// All of it, where it was captured.
    Whole(&'a [u8]),
    /// Put together from pieces, maybe with a hole.
    Kept(Box<Kept>),
}

/// What is kept of a string with memory of its own.
#[derive(Clone, Debug, Default)]
struct Kept {
    len: u64,
    head: Vec<u8>,
    /// Bytes behind the head that were not captured.
    lost: u64,
    tail: Vec<u8>,
}

impl<'a> Bulk<'a> {
    /// All of it, if all of it was captured and kept.
    #[must_use]
    pub fn whole(&self) -> Option<&[u8]> {
        match &self.0 {
            Seen::Whole(bytes) => Some(bytes),
            Seen::Kept(kept) => (kept.head.len() as u64 == kept.len).then_some(&kept.head),
        }
    }

    /// Its first bytes, without a hole: everything when it is whole.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        match &self.0 {
            Seen::Whole(bytes) => bytes,
            Seen::Kept(kept) => &kept.head,
        }
    }

    /// Its last bytes, without a hole: everything when it is whole, nothing when its end was not captured.
    #[must_use]
    pub fn tail(&self) -> &[u8] {
        match &self.0 {
            Seen::Whole(bytes) => bytes,
            Seen::Kept(kept) => self.whole().unwrap_or(&kept.tail),
        }
    }

    /// Its length on the wire, in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.0 {
            Seen::Whole(bytes) => bytes.len() as u64,
            Seen::Kept(kept) => kept.len,
        }
    }

    /// Nothing in it, on the wire.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of its bytes were not captured.
    #[must_use]
    pub fn lost(&self) -> u64 {
        match &self.0 {
            Seen::Whole(_) => 0,
            Seen::Kept(kept) => kept.lost,
        }
    }

    /// The same with memory of its own.
    #[must_use]
    pub fn into_owned(self) -> Bulk<'static> {
        match self.0 {
            Seen::Whole(bytes) => Bulk::headed(bytes.to_vec(), bytes.len() as u64, 0),
            Seen::Kept(kept) => Bulk(Seen::Kept(kept)),
        }
    }

    /// A string of which nothing but its first bytes is kept.
    pub(super) fn headed(head: Vec<u8>, len: u64, lost: u64) -> Self {
        let kept = Kept {
            len,
            head,
            lost,
            tail: Vec::new(),
        };
        Self(Seen::Kept(Box::new(kept)))
    }

    /// Bytes of memory behind it.
    pub(super) fn held(&self) -> usize {
        match &self.0 {
            Seen::Whole(_) => 0,
            Seen::Kept(kept) => size_of::<Kept>().saturating_add(kept.held()),
        }
    }

    /// Its first bytes.
    pub(super) fn into_head(self) -> Cow<'a, [u8]> {
        match self.0 {
            Seen::Whole(bytes) => Cow::Borrowed(bytes),
            Seen::Kept(kept) => Cow::Owned(kept.head),
        }
    }
}

impl PartialEq for Bulk<'_> {
    fn eq(&self, other: &Self) -> bool {
        let parts = |bulk: &Self| (bulk.len(), bulk.lost());
        parts(self) == parts(other) && self.head() == other.head() && self.tail() == other.tail()
    }
}

impl Eq for Bulk<'_> {}

impl Default for Bulk<'_> {
    fn default() -> Self {
        Self::from(&[][..])
    }
}

impl<'a> From<&'a [u8]> for Bulk<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(Seen::Whole(bytes))
    }
}

impl Kept {
    fn held(&self) -> usize {
        self.head.capacity().saturating_add(self.tail.capacity())
    }
}

/// How much of a bulk string to keep, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Keep {
    /// Of its beginning; all of it where this is not below its length.
    pub(super) head: u64,
    /// Of its end, where the beginning is not all that is kept.
    pub(super) tail: u64,
}

/// What a gap did to the string being read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// It ends inside the string or its CRLF.
    Inside,
    /// It ends where the string's CRLF does.
    Done(Bulk<'static>),
    /// It goes beyond: what comes next is not known.
    Beyond,
}

/// The string's CRLF is something else.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoCrlf;

/// Reads the payload of one bulk string and the CRLF behind it, in pieces.
#[derive(Debug, Default)]
pub(super) struct BulkReader {
    bulk: Kept,
    keep: Keep,
    /// Offset in payload and CRLF of the next byte.
    at: u64,
    /// From this offset on, bytes are kept in the tail.
    tail_from: u64,
}

const CRLF: [u8; 2] = *b"\r\n";

impl BulkReader {
    /// A string of `len` bytes that is to be kept whole, if all of it and its CRLF are in `data`: taken from its front.
    pub(super) fn at_once<'d>(data: &mut &'d [u8], len: u64, keep: Keep) -> Option<Bulk<'d>> {
        if keep.head < len {
            return None;
        }
        let (payload, rest) = data.split_at_checked(usize::try_from(len).ok()?)?;
        *data = rest.strip_prefix(&CRLF)?;
        Some(Bulk::from(payload))
    }

    /// Starts a string of `len` bytes. Reserves nothing.
    pub(super) fn start(&mut self, len: u64, keep: Keep) {
        let edge = if keep.head < len { keep.tail } else { 0 };
        *self = Self {
            bulk: Kept {
                len,
                ..Kept::default()
            },
            keep,
            at: 0,
            tail_from: len.saturating_sub(edge).max(keep.head.min(len)),
        };
    }

    /// Takes what belongs to the string from the front of `data`; gives the string when its CRLF is read.
    pub(super) fn read(&mut self, data: &mut &[u8]) -> Result<Option<Bulk<'static>>, NoCrlf> {
        let left = self.bulk.len.saturating_sub(self.at);
        if left > 0 {
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
            let (payload, rest) = data.split_at_checked(take).unwrap_or((data, &[]));
            *data = rest;
            self.push(payload);
        }
        while let Some((&byte, rest)) = data.split_first() {
            let in_crlf = self.at.saturating_sub(self.bulk.len);
            if usize::try_from(in_crlf).ok().and_then(|at| CRLF.get(at)) != Some(&byte) {
                return Err(NoCrlf);
            }
            *data = rest;
            self.at = self.at.saturating_add(1);
            if in_crlf == 1 {
                return Ok(Some(self.take()));
            }
        }
        Ok(None)
    }

    /// Passes over `len` bytes that were not captured.
    pub(super) fn gap(&mut self, len: u64) -> Gap {
        let end = self.bulk.len.saturating_add(CRLF.len() as u64);
        let Some(at) = self.at.checked_add(len).filter(|&at| at <= end) else {
            return Gap::Beyond;
        };
        let lost = at.min(self.bulk.len).saturating_sub(self.at);
        self.at = at;
        if lost > 0 {
            self.bulk.lost = self.bulk.lost.saturating_add(lost);
            self.bulk.tail.clear();
            let edge = if self.keep.head < self.bulk.len {
                self.keep.tail
            } else {
                self.bulk.len
            };
            self.tail_from = self.bulk.len.saturating_sub(edge).max(at);
        }
        if at == end {
            Gap::Done(self.take())
        } else {
            Gap::Inside
        }
    }

    /// Bytes of memory behind the string being read.
    pub(super) fn held(&self) -> usize {
        self.bulk.held()
    }

    fn take(&mut self) -> Bulk<'static> {
        Bulk(Seen::Kept(Box::new(std::mem::take(&mut self.bulk))))
    }

    /// `payload` is the next part of the string.
    fn push(&mut self, payload: &[u8]) {
        let begin = self.at;
        self.at = begin.saturating_add(payload.len() as u64);
        let mut rest = payload;
        if self.bulk.lost == 0 {
            let room = self.keep.head.saturating_sub(begin);
            let take = usize::try_from(room).unwrap_or(usize::MAX).min(rest.len());
            let (head, after) = rest.split_at_checked(take).unwrap_or((rest, &[]));
            if !head.is_empty() {
                self.bulk.head.extend_from_slice(head);
            }
            rest = after;
        }
        let rest_begin = self.at.saturating_sub(rest.len() as u64);
        let skip = self.tail_from.saturating_sub(rest_begin);
        let tail = usize::try_from(skip).ok().and_then(|skip| rest.get(skip..));
        if let Some(tail) = tail.filter(|tail| !tail.is_empty()) {
            self.bulk.tail.extend_from_slice(tail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes and gaps of one string of ten digits, in order; a number is a gap.
    fn read(keep: Keep, parts: &[Result<&[u8], u64>]) -> Bulk<'static> {
        let mut reader = BulkReader::default();
        reader.start(10, keep);
        let mut done = None;
        for part in parts {
            assert_eq!(done, None, "nothing comes after the CRLF");
            match part {
                Ok(bytes) => {
                    let mut data = *bytes;
                    done = reader.read(&mut data).unwrap();
                    assert!(data.is_empty());
                }
                Err(len) => match reader.gap(*len) {
                    Gap::Inside => {}
                    Gap::Done(bulk) => done = Some(bulk),
                    Gap::Beyond => panic!("beyond"),
                },
            }
        }
        done.expect("the string ends")
    }

    const ALL: Keep = Keep { head: 10, tail: 0 };
    const EDGES: Keep = Keep { head: 3, tail: 3 };

    /// Scenario: a string of ten digits, whole or by edges, with gaps of several pieces in every part of it.
    /// Guarantees: head is a prefix, tail a suffix, each as long as the gaps and limits let it be.
    #[test]
    fn edges_and_holes() {
        type Case<'a> = (Keep, &'a [Result<&'a [u8], u64>], &'a [u8], &'a [u8], u64);
        let cases: &[Case<'_>] = &[
            (ALL, &[Ok(b"0123456789\r\n")], b"0123456789", b"0123456789", 0),
            (
                ALL,
                &[Ok(b"0123"), Ok(b"456789\r"), Ok(b"\n")],
                b"0123456789",
                b"0123456789",
                0,
            ),
            (ALL, &[Ok(b"0123"), Err(2), Ok(b"6789\r\n")], b"0123", b"6789", 2),
            (
                ALL,
                &[Ok(b"01"), Err(2), Ok(b"45"), Err(1), Ok(b"789\r\n")],
                b"01",
                b"789",
                3,
            ),
            (ALL, &[Ok(b"01"), Err(2), Ok(b"4567"), Err(4)], b"01", b"", 4),
            (ALL, &[Err(2), Ok(b"23456789"), Err(2)], b"", b"23456789", 2),
            (
                ALL,
                &[Ok(b"0123456789"), Err(1), Ok(b"\n")],
                b"0123456789",
                b"0123456789",
                0,
            ),
            (ALL, &[Err(12)], b"", b"", 10),
            (EDGES, &[Ok(b"0123456789\r\n")], b"012", b"789", 0),
            (
                EDGES,
                &[Ok(b"01"), Ok(b"2345678"), Ok(b"9\r\n")],
                b"012",
                b"789",
                0,
            ),
            (
                EDGES,
                &[Ok(b"01"), Err(3), Ok(b"5"), Err(2), Ok(b"89\r\n")],
                b"01",
                b"89",
                5,
            ),
            (EDGES, &[Ok(b"0123"), Err(2), Ok(b"6789\r\n")], b"012", b"789", 2),
            (EDGES, &[Ok(b"01234567"), Err(1), Ok(b"9\r\n")], b"012", b"9", 1),
        ];
        for (keep, parts, head, tail, lost) in cases {
            let bulk = read(*keep, parts);
            assert_eq!(bulk.head(), *head, "{parts:?}");
            assert_eq!(bulk.tail(), *tail, "{parts:?}");
            assert_eq!((bulk.len(), bulk.lost()), (10, *lost), "{parts:?}");
            assert_eq!(bulk.whole().is_some(), head.len() == 10, "{parts:?}");
        }
    }

    /// Scenario: something else than CRLF behind the payload, a gap that ends beyond it, lengths at the end of u64.
    /// Guarantees: refused, without overflow.
    #[test]
    fn ends_are_checked() {
        let mut reader = BulkReader::default();
        reader.start(2, ALL);
        assert_eq!(reader.read(&mut &b"ab\rx"[..]), Err(NoCrlf));
        reader.start(2, ALL);
        assert_eq!(reader.gap(5), Gap::Beyond);
        reader.start(u64::MAX, EDGES);
        assert_eq!(reader.gap(u64::MAX - 1), Gap::Inside);
        assert_eq!(reader.gap(2), Gap::Beyond);
    }
}
