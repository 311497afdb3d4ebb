//! Text that clones share: a task's id stands on a dozen attributes of two spans, its name in every message of its kind.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Text that is cheap to clone.
#[derive(Clone)]
pub enum Text {
    /// One of the program's own words.
    Static(&'static str),
    /// Any other.
    Shared(Arc<str>),
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Static(text) => text,
            Self::Shared(text) => text,
        }
    }
}

/// By what it says, not by how it is held.
impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        Self::Static(text)
    }
}

impl From<&Arc<str>> for Text {
    fn from(text: &Arc<str>) -> Self {
        Self::Shared(Arc::clone(text))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::Shared(Arc::from(text))
    }
}

/// A number's digits: the formatter takes several times as long.
pub(crate) struct Digits {
    /// As many as the largest number has in base 10, filled from the end.
    digits: [u8; 20],
    first: usize,
}

impl Digits {
    /// To a base from 10 to 16.
    pub(crate) fn of<const BASE: u64>(number: u64) -> Self {
        const { assert!(10 <= BASE && BASE <= 16) };
        let mut digits = [b'0'; 20];
        let (mut rest, mut first) = (number, 0);
        for (at, place) in digits.iter_mut().enumerate().rev() {
            let digit = (rest % BASE) as u8;
            *place = if digit < 10 {
                b'0' + digit
            } else {
                b'a' + digit - 10
            };
            (rest, first) = (rest / BASE, at);
            if rest == 0 {
                break;
            }
        }
        Self { digits, first }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.digits.get(self.first..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: numbers of one digit and of as many as there can be.
    /// Guarantees: they are written as the formatter writes them.
    #[test]
    fn numbers() {
        for number in [0, 9, 10, 255, 1_795_186_876_502_925_200, u64::MAX] {
            let (decimal, hex) = (Digits::of::<10>(number), Digits::of::<16>(number));
            assert_eq!(decimal.bytes(), number.to_string().as_bytes());
            assert_eq!(hex.bytes(), format!("{number:x}").as_bytes());
        }
    }
}
