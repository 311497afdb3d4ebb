//! What a reply can be.

use std::borrow::Cow;

use super::bulk::Bulk;

/// A reply, or a part of one: borrowed where all of it was seen at once. Attributes (RESP3 `|`) are dropped.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// `+OK`
    Simple(Cow<'a, [u8]>),
    /// `-ERR …`, or RESP3's `!` (its first bytes, where it is too long to be kept).
    Error(Cow<'a, [u8]>),
    /// `:1`
    Int(i64),
    /// `$-1`, `*-1` or RESP3's `_`
    Null,
    /// `$`
    Bulk(Bulk<'a>),
    /// `=`: a bulk string that starts with its format and a colon (`txt:`).
    Verbatim(Bulk<'a>),
    /// `*`
    Array(Vec<Value<'a>>),
    /// `>`: sent unasked; answers no command.
    Push(Vec<Value<'a>>),
    /// `%`: key, value, key, value, …
    Map(Vec<Value<'a>>),
    /// `~`
    Set(Vec<Value<'a>>),
    /// `,`
    Double(f64),
    /// `#`
    Bool(bool),
    /// `(`: a decimal number of any length.
    Big(Cow<'a, [u8]>),
    /// An aggregate nested deeper than [`Limits::depth`](crate::Limits).
    TooDeep,
}

impl<'a> Value<'a> {
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
    pub fn bulk(&self) -> Option<&Bulk<'a>> {
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
    pub fn elements(&self) -> Option<&[Value<'a>]> {
        match self {
            Self::Array(v) | Self::Push(v) | Self::Map(v) | Self::Set(v) => Some(v),
            _ => None,
        }
    }

    /// The same with memory of its own.
    #[must_use]
    pub fn into_owned(self) -> Value<'static> {
        let text = |text: Cow<'_, [u8]>| Cow::Owned(text.into_owned());
        let all = |values: Vec<Self>| values.into_iter().map(Self::into_owned).collect();
        match self {
            Self::Simple(own) => Value::Simple(text(own)),
            Self::Error(own) => Value::Error(text(own)),
            Self::Int(n) => Value::Int(n),
            Self::Null => Value::Null,
            Self::Bulk(bulk) => Value::Bulk(bulk.into_owned()),
            Self::Verbatim(bulk) => Value::Verbatim(bulk.into_owned()),
            Self::Array(values) => Value::Array(all(values)),
            Self::Push(values) => Value::Push(all(values)),
            Self::Map(values) => Value::Map(all(values)),
            Self::Set(values) => Value::Set(all(values)),
            Self::Double(n) => Value::Double(n),
            Self::Bool(b) => Value::Bool(b),
            Self::Big(digits) => Value::Big(text(digits)),
            Self::TooDeep => Value::TooDeep,
        }
    }

    /// Bytes of memory behind it.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Simple(Cow::Owned(text)) | Self::Error(Cow::Owned(text)) | Self::Big(Cow::Owned(text)) => {
                text.capacity()
            }
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
