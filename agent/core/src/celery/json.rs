//! JSON in one pass: what the envelopes and headers of every task are read with, several times a task.
//!
//! Strings are found by their closing quote and stepped over, nothing is built, and a value is looked at only when somebody asks. Of what is
//! stepped over the structure is checked (quotes, brackets) and not the spelling of numbers. Of members that are there twice the last
//! counts, as for the `json` of Python that reads them in the worker. No recursion but that of the callers, who know what they look for.

mod text;
mod usual;

pub use text::Text;

/// Deepest nesting that is stepped over; one bit each tells objects from arrays.
const DEPTH: u32 = 128;

/// It is not JSON, or not of the type that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotThat;

/// Names that are looked for, in the order in which they come as a rule: each as JSON's usual writers write it before a value
/// (`"name": `), and what stands for it. The next one is tried first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<F: 'static> {
    names: &'static [(&'static str, F)],
    next: usize,
}

impl<F: Copy> Expected<F> {
    pub(super) const fn new(names: &'static [(&'static str, F)]) -> Self {
        Self { names, next: 0 }
    }

    /// The next name, if `json` goes on with it, and how many bytes it takes.
    fn at_once(&mut self, json: &[u8]) -> Option<(F, usize)> {
        let (written, field) = *self.names.get(self.next)?;
        if !json.starts_with(written.as_bytes()) {
            return None;
        }
        self.next += 1;
        Some((field, written.len()))
    }

    /// What stands for this name, if it is one of those.
    pub(super) fn find(&mut self, name: &str) -> Option<F> {
        let fits = |(written, _): &(&str, F)| {
            let quoted = written.strip_prefix('"').and_then(|rest| rest.strip_prefix(name));
            quoted.is_some_and(|rest| rest.starts_with('"'))
        };
        let at = match self.names.get(self.next) {
            Some(name) if fits(name) => self.next,
            _ => self.names.iter().position(fits)?,
        };
        self.next = at + 1;
        self.names.get(at).map(|(_, field)| *field)
    }
}

/// At a value; each method reads it and leaves what follows.
pub(super) struct Reader<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn of(json: &'a [u8]) -> Result<Self, NotThat> {
        simdutf8::basic::from_utf8(json)
            .map(Self::of_text)
            .map_err(|_| NotThat)
    }

    pub(super) fn of_text(json: &'a str) -> Self {
        Self { json, at: 0 }
    }

    /// Nothing comes any more.
    pub(super) fn end(&mut self) -> Result<(), NotThat> {
        if self.peek().is_ok() { Err(NotThat) } else { Ok(()) }
    }

    /// An object, or what is left of it where its first members were read already: gives `take` each expected member, for it to
    /// read the value. Others are stepped over.
    pub(super) fn members<F: Copy>(
        &mut self,
        begun: bool,
        mut expected: Expected<F>,
        mut take: impl FnMut(F, &mut Self) -> Result<(), NotThat>,
    ) -> Result<(), NotThat> {
        let mut more = if begun {
            self.another(b'}')?
        } else {
            self.open(b'{', b'}')?
        };
        while more {
            let field = if let Some((field, len)) = expected.at_once(self.rest()) {
                self.at += len;
                Some(field)
            } else {
                expected.find(&self.name()?.get())
            };
            match field {
                Some(field) => take(field, self)?,
                None => self.skip()?,
            }
            more = self.another(b'}')?;
        }
        Ok(())
    }

    /// How many values there are in an array, or members in an object; none for null.
    pub(super) fn count(&mut self) -> Result<u64, NotThat> {
        let (open, close) = match self.peek()? {
            b'[' => (b'[', b']'),
            b'{' => (b'{', b'}'),
            _ if self.null()? => return Ok(0),
            _ => return Err(NotThat),
        };
        let mut count = 0;
        let mut more = self.open(open, close)?;
        while more {
            count += 1;
            if open == b'{' {
                self.name()?;
            }
            self.skip()?;
            more = self.another(close)?;
        }
        Ok(count)
    }

    /// A member's name, and the colon behind it.
    fn name(&mut self) -> Result<Text<'a>, NotThat> {
        let name = self.string()?;
        self.expect(b':')?;
        Ok(name)
    }

    /// What stands between these brackets, with commas between.
    pub(super) fn separated(
        &mut self,
        open: u8,
        close: u8,
        mut take: impl FnMut(&mut Self) -> Result<(), NotThat>,
    ) -> Result<(), NotThat> {
        let mut more = self.open(open, close)?;
        while more {
            take(self)?;
            more = self.another(close)?;
        }
        Ok(())
    }

    /// Steps over the opening bracket, and over the closing one if nothing stands between; says whether something does.
    fn open(&mut self, open: u8, close: u8) -> Result<bool, NotThat> {
        self.expect(open)?;
        let empty = self.peek()? == close;
        self.at += usize::from(empty);
        Ok(!empty)
    }

    /// Steps over what stands behind a value: a comma, or the bracket that closes; says whether another value comes.
    fn another(&mut self, close: u8) -> Result<bool, NotThat> {
        // As Python writes it.
        if let [b',', b' ', ..] = *self.rest() {
            self.at += 2;
            return Ok(true);
        }
        let more = match self.peek()? {
            b',' => true,
            end if end == close => false,
            _ => return Err(NotThat),
        };
        self.at += 1;
        Ok(more)
    }

    /// A string.
    pub(super) fn string(&mut self) -> Result<Text<'a>, NotThat> {
        let begin = self.begin()?;
        let escaped = self.quoted()?;
        if !escaped {
            let text = self.json.get(begin + 1..self.at - 1).ok_or(NotThat)?;
            return Ok(Text::plain(text));
        }
        let written = self.json.get(begin..self.at).ok_or(NotThat)?;
        Text::escaped(written)
    }

    /// A string, or `None` for null.
    pub(super) fn text(&mut self) -> Result<Option<Text<'a>>, NotThat> {
        if self.peek()? == b'n' && self.null()? {
            return Ok(None);
        }
        self.string().map(Some)
    }

    /// A whole number, or `None` for null.
    pub(super) fn number<N: std::str::FromStr + From<u8>>(&mut self) -> Result<Option<N>, NotThat> {
        if self.null()? {
            return Ok(None);
        }
        if let [digit @ b'0'..=b'9', b',' | b'}', ..] = *self.rest() {
            self.at += 1;
            return Ok(Some(N::from(digit - b'0')));
        }
        self.scalar()?.parse().map(Some).map_err(|_| NotThat)
    }

    /// True or false, or `None` for null.
    pub(super) fn bool(&mut self) -> Result<Option<bool>, NotThat> {
        match self.scalar()? {
            "null" => Ok(None),
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            _ => Err(NotThat),
        }
    }

    /// Whether the value is null; only then it is read.
    pub(super) fn null(&mut self) -> Result<bool, NotThat> {
        if self.peek()? != b'n' {
            return Ok(false);
        }
        if !self.rest().starts_with(b"null") {
            return Err(NotThat);
        }
        self.at += 4;
        Ok(true)
    }

    /// Any value, as it stands.
    pub(super) fn raw(&mut self) -> Result<&'a str, NotThat> {
        let begin = self.begin()?;
        self.skip()?;
        self.json.get(begin..self.at).ok_or(NotThat)
    }

    /// Steps over any value.
    pub(super) fn skip(&mut self) -> Result<(), NotThat> {
        match self.peek()? {
            b'"' => self.quoted().map(|_| ()),
            b'{' | b'[' => self.nested(),
            b'0'..=b'9' => {
                self.at += digits(self.rest());
                Ok(())
            }
            _ if self.null()? => Ok(()),
            _ => self.scalar().map(|_| ()),
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.json.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// The next byte that is no blank.
    #[inline]
    fn peek(&mut self) -> Result<u8, NotThat> {
        loop {
            match self.json.as_bytes().get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(byte) => return Ok(*byte),
                None => return Err(NotThat),
            }
        }
    }

    /// Where the value begins.
    fn begin(&mut self) -> Result<usize, NotThat> {
        self.peek().map(|_| self.at)
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotThat> {
        if self.peek()? != byte {
            return Err(NotThat);
        }
        self.at += 1;
        Ok(())
    }

    /// Steps over a string; says whether it has escapes.
    fn quoted(&mut self) -> Result<bool, NotThat> {
        self.expect(b'"')?;
        let mut escaped = false;
        loop {
            self.at += usual::stop(self.rest()).ok_or(NotThat)? + 1;
            if self.json.as_bytes().get(self.at - 1) == Some(&b'"') {
                return Ok(escaped);
            }
            escaped = true;
            self.at += 1;
        }
    }

    /// Anything but strings, objects and arrays. That it ends here is for those to find out who read what comes next.
    fn scalar(&mut self) -> Result<&'a str, NotThat> {
        // Python writes and reads the last three.
        const WORDS: [&[u8]; 6] = [b"null", b"true", b"false", b"NaN", b"Infinity", b"-Infinity"];
        let begin = self.begin()?;
        let rest = self.rest();
        let is_number = match rest {
            [b'-', b'I', ..] => false,
            [b'-' | b'0'..=b'9', ..] => true,
            _ => false,
        };
        let len = if is_number {
            digits(rest)
        } else {
            let word = WORDS.into_iter().find(|word| rest.starts_with(word));
            word.ok_or(NotThat)?.len()
        };
        self.at += len;
        self.json.get(begin..self.at).ok_or(NotThat)
    }

    /// An object or an array, from its opening bracket on. That its members are separated as they should be is for those to find out
    /// who read them.
    fn nested(&mut self) -> Result<(), NotThat> {
        // Of each level whether it is an object; the innermost is the lowest bit.
        let (mut objects, mut depth) = (0_u128, 0_u32);
        loop {
            match *self.json.as_bytes().get(self.at).ok_or(NotThat)? {
                b'"' => {
                    self.quoted()?;
                    continue;
                }
                open @ (b'{' | b'[') => {
                    if depth == DEPTH {
                        return Err(NotThat);
                    }
                    depth += 1;
                    objects = objects << 1 | u128::from(open == b'{');
                }
                close @ (b'}' | b']') => {
                    if (objects & 1 == 1) != (close == b'}') {
                        return Err(NotThat);
                    }
                    depth -= 1;
                    objects >>= 1;
                    if depth == 0 {
                        self.at += 1;
                        return Ok(());
                    }
                }
                _ => {}
            }
            self.at += 1;
        }
    }
}

/// Bytes of the number that is there.
fn digits(json: &[u8]) -> usize {
    let number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    json.iter().take_while(|byte| number(byte)).count()
}

#[cfg(test)]
pub(super) mod tests;
