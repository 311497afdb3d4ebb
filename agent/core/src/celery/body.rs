//! The body of a task message: measured and counted, never kept.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A message body as it stands in the envelope.
#[derive(Debug)]
pub struct Body<'a> {
    text: &'a str,
    base64: bool,
    /// Length of the text where it was not captured whole.
    cut: Option<u64>,
}

impl<'a> Body<'a> {
    /// `cut` is the text's true length where `text` is not all of it.
    #[must_use]
    pub fn new(text: &'a str, base64: bool, cut: Option<u64>) -> Self {
        Self { text, base64, cut }
    }

    /// Bytes of the decoded body.
    #[must_use]
    pub fn size(&self) -> u64 {
        let len = self.cut.unwrap_or(self.text.len() as u64);
        if !self.base64 {
            return len;
        }
        let padding = self.text.bytes().rev().take_while(|b| *b == b'=').count() as u64;
        (len / 4 * 3).saturating_sub(padding)
    }

    /// The decoded body; `None` when it is cut or not base64.
    #[must_use]
    pub fn decoded(&self) -> Option<Vec<u8>> {
        if self.cut.is_some() {
            return None;
        }
        if self.base64 {
            STANDARD.decode(self.text).ok()
        } else {
            Some(self.text.as_bytes().to_vec())
        }
    }
}

/// Positional and keyword arguments of a protocol 2 body in JSON.
#[must_use]
pub fn count_arguments(json: &[u8]) -> Option<(u64, u64)> {
    let (Count(args), Count(kwargs), _): (Count, Count, IgnoredAny) = serde_json::from_slice(json).ok()?;
    Some((args, kwargs))
}

/// The number of elements of a JSON array or object, whose elements are stepped over.
#[derive(Debug, Default)]
pub(super) struct Count(pub(super) u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counter;
        impl<'de> Visitor<'de> for Counter {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array or an object")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Count, A::Error> {
                let mut n = 0;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    n += 1;
                }
                Ok(Count(n))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Count, A::Error> {
                let mut n = 0;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    n += 1;
                }
                Ok(Count(n))
            }

            fn visit_unit<E>(self) -> Result<Count, E> {
                Ok(Count(0))
            }
        }
        deserializer.deserialize_any(Counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a protocol 2 body with two positional and one keyword argument, nested ones included.
    /// Guarantees: top-level arguments are counted; size is that of the decoded bytes.
    #[test]
    fn counts() {
        let json = r#"[[1, [2, 3]], {"k": {"a": 1}}, {"chain": null}]"#;
        let text = STANDARD.encode(json);
        let body = Body::new(&text, true, None);
        assert_eq!(count_arguments(&body.decoded().unwrap()), Some((2, 1)));
        assert_eq!(body.size(), json.len() as u64);
        assert_eq!(Body::new("", true, Some(1 << 20)).decoded(), None);
        assert_eq!(Body::new("!!", true, None).decoded(), None);
    }
}
