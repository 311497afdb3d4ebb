//! A string of JSON.

use std::borrow::Cow;

use super::NotThat;

/// A string, or what says it in JSON: few have escapes, and of those most are never looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Text<'a> {
    /// Itself; where it has escapes as it is written, with the quotes around it.
    written: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
    /// A string without escapes, or that is not from JSON.
    #[must_use]
    pub const fn plain(text: &'a str) -> Self {
        Self {
            written: text,
            escaped: false,
        }
    }

    /// One with escapes, with the quotes around it.
    pub(super) fn escaped(written: &'a str) -> Result<Self, NotThat> {
        serde_json::from_str::<Cow<'_, str>>(written).map_err(|_| NotThat)?;
        Ok(Self {
            written,
            escaped: true,
        })
    }

    /// The string.
    #[must_use]
    #[inline]
    pub fn get(self) -> Cow<'a, str> {
        if self.escaped {
            // It was read before.
            serde_json::from_str(self.written).map_or_else(|_| Cow::default(), Cow::Owned)
        } else {
            Cow::Borrowed(self.written)
        }
    }
}
