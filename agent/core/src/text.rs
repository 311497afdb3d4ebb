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

/// Gives `put` the digits of a number, to a base of at most 16: the formatter takes several times as long.
pub(crate) fn digits<const BASE: u64>(number: u64, put: &mut impl FnMut(u8)) {
    if number >= BASE {
        digits::<BASE>(number / BASE, put);
    }
    let digit = usize::try_from(number % BASE).ok();
    put(*digit
        .and_then(|digit| b"0123456789abcdef".get(digit))
        .unwrap_or(&b'0'));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: numbers of one digit and of as many as there can be.
    /// Guarantees: they are written as the formatter writes them.
    #[test]
    fn numbers() {
        for number in [0, 9, 10, 255, 1_795_186_876_502_925_200, u64::MAX] {
            let (mut decimal, mut hex) = (Vec::new(), Vec::new());
            digits::<10>(number, &mut |digit| decimal.push(digit));
            digits::<16>(number, &mut |digit| hex.push(digit));
            assert_eq!(decimal, number.to_string().as_bytes());
            assert_eq!(hex, format!("{number:x}").as_bytes());
        }
    }
}
