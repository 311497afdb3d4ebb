//! What a reply can be.

use super::bulk::Bulk;

/// A reply, or a part of one. Attributes (RESP3 `|`) are dropped.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `+OK`
    Simple(Vec<u8>),
    /// `-ERR …`, or RESP3's `!` (its first bytes, where it is too long to be kept).
    Error(Vec<u8>),
    /// `:1`
    Int(i64),
    /// `$-1`, `*-1` or RESP3's `_`
    Null,
    /// `$`
    Bulk(Bulk),
    /// `=`: a bulk string that starts with its format and a colon (`txt:`).
    Verbatim(Bulk),
    /// `*`
    Array(Vec<Value>),
    /// `>`: sent unasked; answers no command.
    Push(Vec<Value>),
    /// `%`: key, value, key, value, …
    Map(Vec<Value>),
    /// `~`
    Set(Vec<Value>),
    /// `,`
    Double(f64),
    /// `#`
    Bool(bool),
    /// `(`: a decimal number of any length.
    Big(Vec<u8>),
    /// An aggregate nested deeper than [`Limits::depth`](crate::Limits).
    TooDeep,
}

impl Value {
    /// The bytes of a simple string or of a bulk string that is whole.
    #[must_use]
    pub fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Simple(text) => Some(text),
            Self::Bulk(bulk) => bulk.whole(),
            _ => None,
        }
    }

    /// The bulk string.
    #[must_use]
    pub fn bulk(&self) -> Option<&Bulk> {
        match self {
            Self::Bulk(bulk) => Some(bulk),
            _ => None,
        }
    }

    /// The integer.
    #[must_use]
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            _ => None,
        }
    }

    /// The elements of an aggregate of any kind; of a map keys and values in turn.
    #[must_use]
    pub fn elements(&self) -> Option<&[Value]> {
        match self {
            Self::Array(v) | Self::Push(v) | Self::Map(v) | Self::Set(v) => Some(v),
            _ => None,
        }
    }

    /// Bytes of memory behind it.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Simple(text) | Self::Error(text) | Self::Big(text) => text.capacity(),
            Self::Bulk(bulk) | Self::Verbatim(bulk) => bulk.held(),
            Self::Array(v) | Self::Push(v) | Self::Map(v) | Self::Set(v) => Self::all_held(v),
            _ => 0,
        }
    }

    /// The same of a list of them.
    pub(super) fn all_held(values: &Vec<Self>) -> usize {
        let list = values.capacity().saturating_mul(size_of::<Self>());
        values.iter().map(Self::held).fold(list, usize::saturating_add)
    }

    /// An error, of either kind.
    #[must_use]
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }
}
