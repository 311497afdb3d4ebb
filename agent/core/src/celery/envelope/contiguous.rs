//! An envelope as it was captured. The body comes first and may be large, so the middle of a long envelope may be missing: the
//! hole is accepted only where it provably lies inside the body string, because then nothing else is affected by it.

use std::borrow::Cow;

use super::Envelope;
use crate::celery::json::NotThat;

/// Why bytes are not an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not a JSON object, or a member has the wrong type.
    #[error("not a kombu envelope")]
    Malformed,
    /// The missing middle is not inside the body.
    #[error("the part that was not captured is not inside the body")]
    Hole,
}

/// The captured bytes of an envelope, made contiguous.
#[derive(Debug)]
pub struct Contiguous<'a> {
    json: Cow<'a, [u8]>,
    /// Length of the body string where it was cut out of `json`.
    cut_body: Option<u64>,
}

impl<'a> Contiguous<'a> {
    /// A message that was captured whole.
    #[must_use]
    pub fn whole(json: &'a [u8]) -> Self {
        Self {
            json: Cow::Borrowed(json),
            cut_body: None,
        }
    }

    /// A message of `len` bytes of which only the two ends were captured.
    ///
    /// # Errors
    /// [`EnvelopeError::Hole`] when the head does not end, or the tail does not begin, inside the body string.
    pub fn with_hole(head: &[u8], tail: &[u8], len: u64) -> Result<Self, EnvelopeError> {
        const OPEN: &[u8] = br#"{"body": ""#;
        const OPEN_COMPACT: &[u8] = br#"{"body":""#;
        let body = head
            .strip_prefix(OPEN)
            .or_else(|| head.strip_prefix(OPEN_COMPACT))
            .ok_or(EnvelopeError::Hole)?;
        if closing_quote(body).is_some() {
            return Err(EnvelopeError::Hole);
        }
        let close = closing_quote(tail).ok_or(EnvelopeError::Hole)?;
        let after = tail.get(close..).unwrap_or_default();
        let around = (head.len() - body.len()).saturating_add(after.len());
        // base64 padding stays, so that the decoded size is exact.
        let padding = tail
            .iter()
            .take(close)
            .rev()
            .take(2)
            .take_while(|b| **b == b'=')
            .count();
        let mut json = Vec::with_capacity(around.saturating_add(padding));
        json.extend_from_slice(OPEN);
        json.extend(std::iter::repeat_n(b'=', padding));
        json.extend_from_slice(after);
        Ok(Self {
            json: Cow::Owned(json),
            cut_body: Some(len.saturating_sub(around as u64)),
        })
    }

    /// Decodes the envelope.
    ///
    /// # Errors
    /// [`EnvelopeError::Malformed`] when it is not one.
    pub fn envelope(&self) -> Result<Envelope<'_>, EnvelopeError> {
        let mut envelope = Envelope::default();
        self.read(&mut envelope)?;
        Ok(envelope)
    }

    /// The same into an empty one: it is large to be moved.
    pub(in super::super) fn read<'b>(&'b self, envelope: &mut Envelope<'b>) -> Result<(), EnvelopeError> {
        envelope
            .read(&self.json)
            .map_err(|NotThat| EnvelopeError::Malformed)
    }

    /// Length of the body string, where the body itself was not captured whole.
    #[must_use]
    pub fn cut_body(&self) -> Option<u64> {
        self.cut_body
    }
}

/// Position of the first `"` that no backslash escapes. A run of backslashes at the very start is of unknown length (its
/// beginning may be missing), so a quote right behind one is refused.
fn closing_quote(text: &[u8]) -> Option<usize> {
    let start = text.iter().take_while(|b| **b == b'\\').count();
    if start > 0 && text.get(start) == Some(&b'"') {
        return None;
    }
    let mut at = start;
    loop {
        let step = memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        at += step;
        if text.get(at) == Some(&b'"') {
            return Some(at);
        }
        at += 2;
    }
}
