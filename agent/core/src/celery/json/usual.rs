//! What nearly always stands there, byte for byte: passed at once, with the strings between.

use super::Reader;

/// A string up to this length is looked through without a search's start-up.
const SHORT: usize = 40;
/// Bytes of a uuid.
const UUID: usize = 36;

impl<'a> Reader<'a> {
    /// Steps over what comes next, if it is this.
    #[inline]
    pub(in super::super) fn passes<const N: usize>(&mut self, usual: &[u8; N]) -> bool {
        let passes = self.rest().first_chunk() == Some(usual);
        self.at += if passes { N } else { 0 };
        passes
    }

    /// Steps over `usual`, of which the last byte opens a string, and over that string, if both are there and it has no escapes.
    #[inline]
    pub(in super::super) fn after<const N: usize>(&mut self, usual: &[u8; N]) -> Option<&'a str> {
        let rest = self.rest();
        if rest.first_chunk() != Some(usual) {
            return None;
        }
        self.plain(self.at + N)
    }

    /// The same of a member that may be null instead: `usual` has no opening quote.
    #[inline]
    pub(in super::super) fn after_or_null<const N: usize>(
        &mut self,
        usual: &[u8; N],
    ) -> Option<Option<&'a str>> {
        let (begin, value) = self.rest().split_first_chunk()?;
        if begin != usual {
            return None;
        }
        if value.starts_with(b"null") {
            self.at += N + 4;
            return Some(None);
        }
        if value.first() != Some(&b'"') {
            return None;
        }
        self.plain(self.at + N + 1).map(Some)
    }

    /// As [`Self::after`], of a string that is long as a rule.
    pub(in super::super) fn after_long<const N: usize>(&mut self, usual: &[u8; N]) -> Option<&'a str> {
        let (begin, text) = self.rest().split_first_chunk()?;
        if begin != usual {
            return None;
        }
        self.until(self.at + N, memchr::memchr2(b'"', b'\\', text)?)
    }

    /// The string without escapes whose first byte is there, with its closing quote.
    fn plain(&mut self, begin: usize) -> Option<&'a str> {
        let text = self.json.as_bytes().get(begin..)?;
        self.until(begin, if is_uuid_long(text) { UUID } else { stop(text)? })
    }

    /// The string of this length, if it ends there.
    #[inline]
    fn until(&mut self, begin: usize, len: usize) -> Option<&'a str> {
        let end = begin + len;
        if self.json.as_bytes().get(end) != Some(&b'"') {
            return None;
        }
        let text = self.json.get(begin..end)?;
        self.at = end + 1;
        Some(text)
    }
}

/// Whether these are a uuid's characters, or others that are neither quote nor backslash, and a quote behind them.
fn is_uuid_long(text: &[u8]) -> bool {
    const BIT_3: u64 = u64::from_le_bytes([1 << 3; 8]);
    let Some((uuid, [b'"', ..])) = text.split_first_chunk::<UUID>() else {
        return false;
    };
    // Digits, small letters up to f and the dash have bit 5, and one of bits 3, 4 and 6; a quote and a backslash don't.
    let fits = |eight: &[u8; 8]| {
        let bits = u64::from_le_bytes(*eight);
        (bits | bits >> 1 | bits >> 3) & bits >> 2
    };
    let (eights, _) = uuid.as_chunks::<8>();
    let last = uuid.last_chunk().map_or(0, fits);
    eights.iter().fold(last, |all, eight| all & fits(eight)) & BIT_3 == BIT_3
}

/// Where the first quote or backslash is.
pub(super) fn stop(text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const QUOTES: u64 = u64::from_le_bytes([b'"'; 8]);
    const BACKSLASHES: u64 = u64::from_le_bytes([b'\\'; 8]);
    // A byte that is zero borrows; the lowest that did is one that was.
    let zeros = |eight: u64| eight.wrapping_sub(ONES) & !eight & (ONES << 7);
    // Nearly all are short: to start a search would cost more than to find their end.
    let (eights, _) = text.as_chunks::<8>();
    let mut at = 0;
    for eight in eights.iter().take(SHORT / 8) {
        let eight = u64::from_le_bytes(*eight);
        let found = zeros(eight ^ QUOTES) | zeros(eight ^ BACKSLASHES);
        if found != 0 {
            return Some(at + (found.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    Some(at + memchr::memchr2(b'"', b'\\', text.get(at..)?)?)
}
