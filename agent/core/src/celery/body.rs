//! The body of a task message: measured and counted, never kept.

use std::fmt;
use std::ops::Deref;

use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use base64::{DecodeSliceError, Engine};
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;

use super::document::Form;
use super::json::{NotThat, Reader};

/// A message body as it stands in the envelope.
#[derive(Debug)]
pub struct Body<'a> {
    text: &'a str,
    base64: bool,
    /// Length of the text where it was not captured whole.
    cut: Option<u64>,
}

/// Bytes of a body that need no memory of their own.
const SHORT: usize = 192;

/// A decoded body.
#[derive(Debug, PartialEq)]
pub enum Decoded<'a> {
    /// It was not encoded.
    Plain(&'a [u8]),
    /// These bytes, so many of them.
    Short([u8; SHORT], usize),
    /// These bytes.
    Long(Vec<u8>),
}

impl Deref for Decoded<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Short(bytes, len) => bytes.get(..*len).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
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
    pub fn decoded(&self) -> Option<Decoded<'a>> {
        if self.cut.is_some() {
            return None;
        }
        if !self.base64 {
            return Some(Decoded::Plain(self.text.as_bytes()));
        }
        let mut bytes = [0; SHORT];
        match STANDARD.decode_slice(self.text, &mut bytes) {
            Ok(len) => Some(Decoded::Short(bytes, len)),
            Err(DecodeSliceError::OutputSliceTooSmall) => STANDARD.decode(self.text).ok().map(Decoded::Long),
            Err(DecodeSliceError::DecodeError(_)) => None,
        }
    }
}

/// What a protocol 2 body in JSON ends with where the task is no part of a workflow.
const NO_WORKFLOW: &str = r#"{"callbacks": null, "errbacks": null, "chain": null, "chord": null}]"#;

/// The same in base64: how many of its bytes are encoded together with those before, and the rest.
const NO_WORKFLOW_ENCODED: [(usize, &str); 3] = [
    (
        2,
        "Y2FsbGJhY2tzIjogbnVsbCwgImVycmJhY2tzIjogbnVsbCwgImNoYWluIjogbnVsbCwgImNob3JkIjogbnVsbH1d",
    ),
    (
        1,
        "ImNhbGxiYWNrcyI6IG51bGwsICJlcnJiYWNrcyI6IG51bGwsICJjaGFpbiI6IG51bGwsICJjaG9yZCI6IG51bGx9XQ==",
    ),
    (
        0,
        "eyJjYWxsYmFja3MiOiBudWxsLCAiZXJyYmFja3MiOiBudWxsLCAiY2hhaW4iOiBudWxsLCAiY2hvcmQiOiBudWxsfV0=",
    ),
];

/// Bytes of arguments that are decoded without what follows them.
const FEW: usize = 96;

impl Body<'_> {
    /// Positional and keyword arguments of a protocol 2 body.
    #[must_use]
    pub fn arguments(&self, form: Form<'_>) -> Option<(u64, u64)> {
        if self.base64
            && form.is_json()
            && let Some(counts) = self.few_arguments()
        {
            return Some(counts);
        }
        count_arguments(&form.json(&self.decoded()?)?)
    }

    /// The same where the task is no part of a workflow: most of the body is then known.
    fn few_arguments(&self) -> Option<(u64, u64)> {
        if self.cut.is_some() {
            return None;
        }
        let ending = |(shared, encoded): &(usize, &str)| Some((*shared, self.text.strip_suffix(encoded)?));
        let (shared, before) = NO_WORKFLOW_ENCODED.iter().find_map(ending)?;
        // Base64 that goes on has no padding yet.
        if before.len() % 4 != 0 {
            return None;
        }
        let mut bytes = [0; FEW];
        let len = STANDARD_NO_PAD.decode_slice(before, &mut bytes).ok()?;
        // With the zeros behind them: the check is slow on what is short.
        let text = simdutf8::basic::from_utf8(&bytes).ok()?.get(..len)?;
        before_no_workflow(text.strip_suffix(NO_WORKFLOW.get(..shared)?)?)
    }
}

/// Positional and keyword arguments of a protocol 2 body in JSON.
#[must_use]
pub fn count_arguments(json: &[u8]) -> Option<(u64, u64)> {
    let json = simdutf8::basic::from_utf8(json).ok()?;
    json.strip_suffix(NO_WORKFLOW)
        .and_then(before_no_workflow)
        .or_else(|| all_arguments(json))
}

/// The same of what stands before [`NO_WORKFLOW`], as Python writes it.
fn before_no_workflow(json: &str) -> Option<(u64, u64)> {
    let mut reader = Reader::of_text(json.strip_prefix('[')?.strip_suffix(", ")?);
    let args = reader.count().ok()?;
    if !reader.passes(b", ") {
        return None;
    }
    let kwargs = reader.count().ok()?;
    reader.end().ok()?;
    Some((args, kwargs))
}

fn all_arguments(json: &str) -> Option<(u64, u64)> {
    let mut reader = Reader::of_text(json);
    let mut counts = SmallVec::<[u64; 3]>::new();
    let count = |part: &mut Reader<'_>| {
        counts.push(match counts.len() {
            0 | 1 => part.count()?,
            2 => part.skip().map(|()| 0)?,
            _ => return Err(NotThat),
        });
        Ok(())
    };
    reader.separated(b'[', b']', count).ok()?;
    reader.end().ok()?;
    match counts[..] {
        [args, kwargs, _] => Some((args, kwargs)),
        _ => None,
    }
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
mod tests;
