//! Lines: everything in RESP up to a CRLF, resumable, never scanned twice.

use memchr::memchr;

/// Longest line that holds a length, a count, a number or a name of a type, without its type byte and CRLF.
const SHORT: usize = 32;

/// What kind of line to expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A number or the like: at most 32 bytes.
    Short,
    /// Text that may hold a lone CR or LF, at most so many bytes.
    Text(usize),
    /// An inline command: printable, ended by LF with or without CR, at most so many bytes.
    Inline(usize),
}

/// One step of reading a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// It does not end in this data; all of it is consumed.
    More,
    /// The line without its end.
    Whole(&'a [u8]),
    /// Too long, or not what it should be. Nothing is consumed.
    Bad,
}

/// Reads one line after another, each perhaps in pieces.
#[derive(Debug, Default)]
pub(super) struct LineReader {
    carry: Vec<u8>,
    done: bool,
}

impl LineReader {
    /// The line's first byte, as far as it is known before more of it is read.
    pub(super) fn first(&self, data: &[u8]) -> Option<u8> {
        self.carried().first().or(data.first()).copied()
    }

    /// Whether the next byte is a line's first.
    pub(super) fn is_empty(&self) -> bool {
        self.carried().is_empty()
    }

    /// Forgets the line that is begun, and the memory of a long one.
    pub(super) fn clear(&mut self) {
        self.done = false;
        self.carry.clear();
        self.carry.shrink_to(SHORT.saturating_mul(4));
    }

    /// Bytes of memory behind it.
    pub(super) fn held(&self) -> usize {
        self.carry.capacity()
    }

    /// Takes the line, or what there is of it, from the front of `data`.
    pub(super) fn read<'l, 'd: 'l>(&'l mut self, data: &mut &'d [u8], form: Form) -> Line<'l> {
        if self.done {
            self.clear();
        }
        let max = match form {
            Form::Short => SHORT,
            Form::Text(max) | Form::Inline(max) => max,
        };
        let room = max.saturating_add(3).saturating_sub(self.carry.len());
        let window = data.get(..room).unwrap_or(data);
        let Some(end) = self.find_end(window, form) else {
            return Line::Bad;
        };
        let Some(end) = end else {
            if window.len() >= room {
                return Line::Bad;
            }
            self.carry.extend_from_slice(window);
            *data = &[];
            return Line::More;
        };
        let (line, rest) = data.split_at_checked(end).unwrap_or((data, &[]));
        *data = rest;
        let line = if self.carry.is_empty() {
            line
        } else {
            self.carry.extend_from_slice(line);
            self.done = true;
            &self.carry
        };
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        Line::Whole(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// Where in `window` the line's end is over, if it is there. `None` outside when the line is bad.
    fn find_end(&self, window: &[u8], form: Form) -> Option<Option<usize>> {
        let mut from = 0;
        while let Some(lf) = find_lf(window.get(from..)?, form) {
            let lf = lf.saturating_add(from);
            let before = match lf.checked_sub(1) {
                Some(at) => window.get(at),
                None => self.carry.last(),
            };
            let end = lf.saturating_add(1);
            match form {
                Form::Short | Form::Text(_) if before == Some(&b'\r') => return Some(Some(end)),
                Form::Short => return None,
                Form::Text(_) => from = end,
                Form::Inline(_) => return printable(window.get(..end)?).then_some(Some(end)),
            }
        }
        match form {
            Form::Inline(_) => printable(window).then_some(None),
            Form::Short | Form::Text(_) => Some(None),
        }
    }

    fn carried(&self) -> &[u8] {
        if self.done { &[] } else { &self.carry }
    }
}

fn find_lf(window: &[u8], form: Form) -> Option<usize> {
    match form {
        // A handful of bytes: a search of wide steps would cost more to begin than this does.
        Form::Short => window.iter().position(|&b| b == b'\n'),
        Form::Text(_) | Form::Inline(_) => memchr(b'\n', window),
    }
}

fn printable(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .all(|b| matches!(b, b' '..=b'~' | b'\t' | b'\r' | b'\n'))
}

/// A signed 64-bit integer, as RESP writes it.
pub(super) fn parse_int(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.split_first()? {
        (b'-', digits) => (true, digits),
        (b'+', digits) => (false, digits),
        _ => (false, text),
    };
    let magnitude = parse_len(digits)?;
    if negative {
        0_i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    }
}

/// Longest number that [`number_at_once`] reads, in digits: so many cannot overflow.
const AT_ONCE: usize = 18;

/// The number of a whole line of `mark` and digits at the front of `data`, and what follows. `None`: [`LineReader`] has to see.
#[inline]
pub(super) fn number_at_once(data: &[u8], mark: u8) -> Option<(u64, &[u8])> {
    let digit = |byte: &u8| u64::from(byte & 0x0f);
    // Nearly all are short.
    match data {
        [first, a @ b'0'..=b'9', b'\r', b'\n', rest @ ..] if *first == mark => Some((digit(a), rest)),
        [first, a @ b'0'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', rest @ ..] if *first == mark => {
            let number = digit(a).saturating_mul(10).saturating_add(digit(b));
            Some((number, rest))
        }
        [first, digits @ ..] if *first == mark => longer_at_once(digits),
        _ => None,
    }
}

/// The same of any length, behind the mark.
fn longer_at_once(line: &[u8]) -> Option<(u64, &[u8])> {
    let mut rest = line;
    let (mut number, mut digits) = (0_u64, 0);
    while let Some((byte, after)) = rest.split_first()
        && byte.is_ascii_digit()
        && digits <= AT_ONCE
    {
        number = number.wrapping_mul(10).wrapping_add(u64::from(byte & 0x0f));
        digits = digits.saturating_add(1);
        rest = after;
    }
    let rest = rest.strip_prefix(b"\r\n")?;
    (1..=AT_ONCE).contains(&digits).then_some((number, rest))
}

/// Longest text that is looked for at once: `OK`, `QUEUED`, `PONG`.
const SHORT_TEXT: usize = 16;

/// A short text and its end at the front of `data`, and what follows. `None`: [`LineReader`] has to see.
pub(super) fn short_text(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = data.iter().take(SHORT_TEXT).position(|byte| *byte == b'\r')?;
    let (text, rest) = data.split_at_checked(len)?;
    Some((text, rest.strip_prefix(b"\r\n")?))
}

/// A length or count: digits only.
pub(super) fn parse_len(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    digits.iter().try_fold(0_u64, |n, byte| {
        let digit = byte.checked_sub(b'0').filter(|&digit| digit <= 9)?;
        n.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_in_pieces(pieces: &[&[u8]], form: Form) -> Option<Vec<u8>> {
        let mut reader = LineReader::default();
        for piece in pieces {
            let mut data = *piece;
            match reader.read(&mut data, form) {
                Line::More => assert!(data.is_empty()),
                Line::Whole(line) => return Some(line.to_vec()),
                Line::Bad => return None,
            }
        }
        None
    }

    /// Scenario: lines of each form, cut at every place.
    /// Guarantees: the same line whatever the cut; lone LF ends only an inline command.
    #[test]
    fn cut_anywhere() {
        type Case<'a> = (&'a [u8], Form, Option<&'a [u8]>);
        let cases: [Case<'_>; 8] = [
            (b"$12\r\nrest", Form::Short, Some(b"$12")),
            (b"$1\n2\r\n", Form::Short, None),
            (b"+a\nb\rc\r\nrest", Form::Text(99), Some(b"+a\nb\rc")),
            (b"PING\nrest", Form::Inline(99), Some(b"PING")),
            (b"PING a\r\nrest", Form::Inline(99), Some(b"PING a")),
            (b"P\x01NG\r\n", Form::Inline(99), None),
            (b"+0123456789\r\n", Form::Text(10), Some(b"+0123456789")),
            (b"+01234567890\r\n", Form::Text(10), None),
        ];
        for (bytes, form, want) in cases {
            for cut in 0..bytes.len() {
                let (a, b) = bytes.split_at(cut);
                assert_eq!(
                    read_in_pieces(&[a, b], form).as_deref(),
                    want,
                    "{bytes:?} cut at {cut}"
                );
            }
        }
    }

    /// Scenario: numbers at and beyond the ends of their types, and what only looks like numbers.
    /// Guarantees: exact values or none.
    #[test]
    fn numbers() {
        assert_eq!(parse_int(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(parse_int(b"9223372036854775808"), None);
        assert_eq!(parse_int(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_int(b"+7"), Some(7));
        for bad in [&b""[..], b"-", b"--1", b"1a", b" 1", b"99999999999999999999"] {
            assert_eq!(parse_int(bad), None, "{bad:?}");
        }
        assert_eq!(parse_len(b"-1"), None);
        assert_eq!(parse_len(b"0"), Some(0));
    }
}
