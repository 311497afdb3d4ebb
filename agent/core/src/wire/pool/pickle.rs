//! A walk over what a pickle is made of.

use smallvec::SmallVec;

/// Headers that follow each other and nearly always say the same.
#[derive(Clone, Copy)]
pub(super) enum Usual {
    /// `lang` to `id`, which are not read.
    Names,
    /// `shadow` to `timelimit`, of a task that is to run at once, by itself, for the first time.
    Plain,
    /// `ignore_result` to `stamps`, of one without anything special.
    Ordinary,
}

/// Things that may be referred to later: the text of each that is one.
type Memo = &'static [Option<&'static [u8]>];

/// How they are written, and the things in them that may be referred to later.
const USUAL: [(Usual, &[u8], Memo); 3] = [
    (
        Usual::Names,
        b"\x8c\x04lang\x94\x8c\x02py\x94\x8c\x04task\x94h\x03\x8c\x02id\x94h\x04",
        &[Some(b"lang"), Some(b"py"), Some(b"task"), Some(b"id")],
    ),
    (
        Usual::Plain,
        b"\x8c\x06shadow\x94N\x8c\x03eta\x94N\x8c\x07expires\x94N\x8c\x05group\x94N\x8c\x0bgroup_index\x94N\
          \x8c\x07retries\x94K\x00\x8c\ttimelimit\x94]\x94(NNe",
        &[
            Some(b"shadow"),
            Some(b"eta"),
            Some(b"expires"),
            Some(b"group"),
            Some(b"group_index"),
            Some(b"retries"),
            Some(b"timelimit"),
            None,
        ],
    ),
    (
        Usual::Ordinary,
        b"\x8c\rignore_result\x94\x89\x8c\x15replaced_task_nesting\x94K\x00\x8c\x0fstamped_headers\x94N\
          \x8c\x06stamps\x94}\x94",
        &[
            Some(b"ignore_result"),
            Some(b"replaced_task_nesting"),
            Some(b"stamped_headers"),
            Some(b"stamps"),
            None,
        ],
    ),
];

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// Text, not looked at.
    Str(&'a [u8]),
    Int(i64),
    Bool(bool),
    None,
    Mark,
    Dict,
    List,
    Global,
    /// SETITEMS or APPENDS: closes the latest mark.
    Fill,
    /// Anything else that stands for a value or builds one.
    Other,
}

/// A walk over pickle opcodes (CPython `Lib/pickletools.py`), protocol 4 and 5, remembering memoized strings.
pub(super) struct Pickle<'a> {
    pub(super) rest: &'a [u8],
    memo: SmallVec<[Option<&'a [u8]>; 64]>,
}

impl<'a> Pickle<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self {
            rest,
            memo: SmallVec::new(),
        }
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(taken)
    }

    /// Steps over headers that say what they usually say.
    pub(super) fn usual(&mut self) -> Option<Usual> {
        // The first key's length tells them apart.
        let length = self.rest.get(1)?;
        let (usual, written, memoized) = USUAL
            .iter()
            .find(|(_, written, _)| written.get(1) == Some(length))?;
        self.steps_over(written, memoized).then_some(*usual)
    }

    /// Whether this is what comes next. It is stepped over then; the things in it may be referred to later.
    pub(super) fn steps_over(&mut self, written: &[u8], memoized: Memo) -> bool {
        let rest = self.rest.strip_prefix(written);
        if let Some(rest) = rest {
            self.rest = rest;
            self.memo.extend_from_slice(memoized);
        }
        rest.is_some()
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn text(&mut self, n: usize) -> Option<Token<'a>> {
        let text = self.take(n)?;
        // MEMOIZE follows at once where the string may be referred to again.
        if self.rest.first() == Some(&0x94) {
            self.take(1)?;
            self.memo.push(Some(text));
        }
        Some(Token::Str(text))
    }

    fn recall(&self, index: usize) -> Token<'a> {
        self.memo
            .get(index)
            .copied()
            .flatten()
            .map_or(Token::Other, Token::Str)
    }

    /// The next token; `None` at the end, at an unknown opcode or at one that is cut.
    #[inline]
    pub(super) fn next(&mut self) -> Option<Token<'a>> {
        // Nearly all are short texts that may be referred to later.
        if let [0x8c, n, rest @ ..] = self.rest
            && let Some((text, [0x94, rest @ ..])) = rest.split_at_checked(usize::from(*n))
        {
            self.rest = rest;
            self.memo.push(Some(text));
            return Some(Token::Str(text));
        }
        self.any()
    }

    pub(super) fn any(&mut self) -> Option<Token<'a>> {
        loop {
            return Some(match self.byte()? {
                // MEMOIZE of something that is not a string.
                0x94 => {
                    self.memo.push(None);
                    continue;
                }
                0x95 => {
                    self.take(8)?;
                    continue;
                }
                0x8c => {
                    let n = self.byte()?;
                    return self.text(usize::from(n));
                }
                0x58 => {
                    let n = self.u32()?;
                    return self.text(usize::try_from(n).ok()?);
                }
                0x68 => {
                    let index = self.byte()?;
                    self.recall(usize::from(index))
                }
                0x6a => {
                    let index = self.u32()?;
                    self.recall(usize::try_from(index).ok()?)
                }
                0x4b => Token::Int(i64::from(self.byte()?)),
                0x4d => Token::Int(i64::from(u16::from_le_bytes(self.take(2)?.try_into().ok()?))),
                0x4a => Token::Int(i64::from(i32::from_le_bytes(self.take(4)?.try_into().ok()?))),
                0x4e => Token::None,
                0x88 => Token::Bool(true),
                0x89 => Token::Bool(false),
                0x28 => Token::Mark,
                0x7d => Token::Dict,
                0x5d => Token::List,
                0x93 => Token::Global,
                0x75 | 0x65 => Token::Fill,
                0x47 => {
                    self.take(8)?;
                    Token::Other
                }
                // SHORT_BINBYTES, LONG1
                0x43 | 0x8a => {
                    let n = self.byte()?;
                    self.take(usize::from(n))?;
                    Token::Other
                }
                // EMPTY_TUPLE, TUPLE1..3, TUPLE, NEWOBJ, REDUCE, BUILD, APPEND, SETITEM
                0x29 | 0x85 | 0x86 | 0x87 | 0x74 | 0x81 | 0x52 | 0x62 | 0x61 | 0x73 => Token::Other,
                _ => return None,
            });
        }
    }

    pub(super) fn expect(&mut self, want: &Token<'_>) -> Option<()> {
        (self.next()? == *want).then_some(())
    }

    /// Steps over what fills a list or dict that was just opened; an empty one has nothing to step over.
    pub(super) fn skip_filling(&mut self) -> Option<()> {
        if self.rest.first() == Some(&0x94) {
            self.take(1)?;
            self.memo.push(None);
        }
        if self.rest.first() != Some(&0x28) {
            return Some(());
        }
        let mut open = 0u32;
        loop {
            match self.next()? {
                Token::Mark => open = open.saturating_add(1),
                Token::Fill if open <= 1 => return Some(()),
                Token::Fill => open = open.saturating_sub(1),
                _ => {}
            }
        }
    }
}
