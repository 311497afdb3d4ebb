//! A cursor over a frame's payload: every read is checked, integers are big-endian (§4.2.5).

/// What is left to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    /// Steps over what comes next, if it is this.
    #[inline]
    pub(super) fn passes<const N: usize>(&mut self, usual: &[u8; N]) -> bool {
        match self.rest.split_first_chunk() {
            Some((first, rest)) if first == usual => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Bytes that are left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// Up to 255 bytes, with their length before them.
    pub(super) fn short_bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u8()?;
        self.take(usize::from(len))
    }

    /// A string of up to 255 bytes.
    pub(super) fn short_string(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.short_bytes()?).ok()
    }

    /// Bytes with a 32-bit length before them.
    pub(super) fn long_bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(usize::try_from(len).ok()?)
    }
}

/// A cursor over bytes that are nearly always UTF-8, the lengths among them too: then none of the texts has to be looked at by
/// itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct TextReader<'a> {
    pub(super) reader: Reader<'a>,
    /// All of it, what was read included.
    text: Option<&'a str>,
}

impl<'a> TextReader<'a> {
    /// Of what is left there.
    pub(super) fn new(reader: Reader<'a>) -> Self {
        Self {
            text: simdutf8::basic::from_utf8(reader.rest).ok(),
            reader,
        }
    }

    /// Of bytes of which it is known whether they are text.
    pub(super) fn known(bytes: &'a [u8], text: Option<&'a str>) -> Self {
        Self {
            reader: Reader::new(bytes),
            text,
        }
    }

    /// As text, the bytes that were read last.
    pub(super) fn text_of(&self, read: &'a [u8]) -> Option<&'a str> {
        let Some(text) = self.text else {
            return simdutf8::basic::from_utf8(read).ok();
        };
        let end = text.len().checked_sub(self.reader.left())?;
        text.get(end.checked_sub(read.len())?..end)
    }

    /// A string of up to 255 bytes.
    pub(super) fn short_string(&mut self) -> Option<&'a str> {
        let bytes = self.reader.short_bytes()?;
        self.text_of(bytes)
    }
}
