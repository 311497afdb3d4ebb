//! The first line of a value: its type, and its value or its length.

use super::line::{Form, number_at_once, parse_int, parse_len, short_text};
use super::value::Value;

/// What a line of a reply starts or is.
#[derive(Debug, PartialEq)]
pub(super) enum Head {
    /// A value, complete.
    Value(Value<'static>),
    /// A bulk string of so many bytes.
    Bulk(Text, u64),
    /// A bulk string in pieces (`$?`).
    Pieces,
    /// One piece of it (`;<len>`); the last one is empty.
    Piece(u64),
    /// An aggregate of so many values, or of as many as come before its end (`*?`).
    Aggregate(Kind, Option<u64>),
    /// The end of such an aggregate (`.`).
    End,
}

/// Kinds of bulk strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Bulk,
    Verbatim,
    Error,
}

/// Kinds of aggregates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Array,
    Push,
    Map,
    Set,
    /// Describes the value behind it; is none itself.
    Attribute,
}

impl Kind {
    pub(super) fn value(self, elements: Vec<Value<'static>>) -> Option<Value<'static>> {
        Some(match self {
            Self::Array => Value::Array(elements),
            Self::Push => Value::Push(elements),
            Self::Map => Value::Map(elements),
            Self::Set => Value::Set(elements),
            Self::Attribute => return None,
        })
    }

    /// Values in an aggregate whose count is `n`.
    fn values(self, n: u64) -> Option<u64> {
        match self {
            Self::Map | Self::Attribute => n.checked_mul(2),
            Self::Array | Self::Push | Self::Set => Some(n),
        }
    }
}

impl Head {
    /// The form of a line that starts with `mark`; `None` when no type has it. Texts may have `max` bytes.
    pub(super) fn form(mark: u8, max: usize) -> Option<Form> {
        match mark {
            b'+' | b'-' | b'(' => Some(Form::Text(max)),
            b':' | b'$' | b'*' | b'_' | b',' | b'#' | b'=' | b'!' | b'%' | b'~' | b'>' | b'|' | b';'
            | b'.' => Some(Form::Short),
            _ => None,
        }
    }

    /// The commonest lines, where one is whole at the front of `data`, and what follows. Texts may have `max` bytes.
    pub(super) fn at_once(data: &[u8], max: usize) -> Option<(Self, &[u8])> {
        let (&mark, text) = data.split_first()?;
        if mark == b'+' {
            let (text, rest) = short_text(text).filter(|(text, _)| text.len() <= max)?;
            let value = Value::Simple(text.to_vec().into());
            return Some((Self::Value(value), rest));
        }
        let (number, rest) = number_at_once(data, mark)?;
        let head = match mark {
            b'$' => Self::Bulk(Text::Bulk, number),
            b'*' => Self::Aggregate(Kind::Array, Some(number)),
            b':' => Self::Value(Value::Int(i64::try_from(number).ok()?)),
            _ => return None,
        };
        Some((head, rest))
    }

    /// Reads a line, its type byte included. `None` when it is not RESP.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let (mark, rest) = line.split_first()?;
        Some(match mark {
            b'$' | b'*' if rest == b"-1" => Self::Value(Value::Null),
            b'$' if rest == b"?" => Self::Pieces,
            b'$' => Self::Bulk(Text::Bulk, parse_len(rest)?),
            b'=' => Self::Bulk(Text::Verbatim, parse_len(rest)?),
            b'!' => Self::Bulk(Text::Error, parse_len(rest)?),
            b';' => Self::Piece(parse_len(rest)?),
            b'*' => Self::aggregate(Kind::Array, rest)?,
            b'>' => Self::aggregate(Kind::Push, rest)?,
            b'%' => Self::aggregate(Kind::Map, rest)?,
            b'~' => Self::aggregate(Kind::Set, rest)?,
            b'|' => Self::aggregate(Kind::Attribute, rest)?,
            b'.' if rest.is_empty() => Self::End,
            b'+' => Self::Value(Value::Simple(rest.to_vec().into())),
            b'-' => Self::Value(Value::Error(rest.to_vec().into())),
            b':' => Self::Value(Value::Int(parse_int(rest)?)),
            b'_' if rest.is_empty() => Self::Value(Value::Null),
            b'#' if rest == b"t" => Self::Value(Value::Bool(true)),
            b'#' if rest == b"f" => Self::Value(Value::Bool(false)),
            b',' => Self::Value(Value::Double(std::str::from_utf8(rest).ok()?.parse().ok()?)),
            b'(' => Self::Value(Value::Big(big(rest)?.to_vec().into())),
            _ => return None,
        })
    }

    fn aggregate(kind: Kind, count: &[u8]) -> Option<Self> {
        let left = match count {
            b"?" => None,
            digits => Some(kind.values(parse_len(digits)?)?),
        };
        Some(Self::Aggregate(kind, left))
    }
}

fn big(text: &[u8]) -> Option<&[u8]> {
    let digits = text
        .strip_prefix(b"-")
        .or(text.strip_prefix(b"+"))
        .unwrap_or(text);
    (!digits.is_empty() && digits.iter().all(u8::is_ascii_digit)).then_some(text)
}
