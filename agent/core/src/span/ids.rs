//! Ids without coordination (design §6): functions of what the message itself says, so that the publisher's agent and
//! the worker's agent name the same spans with no exchange between them.

use sha2::{Digest, Sha256};

use super::model::{SpanId, TraceId};
use crate::text::Digits;
use crate::time::Wall;

/// Bytes of a text that needs no memory of its own.
const SHORT: usize = 256;

/// SHA-256 of these one after the other: a piece of memory is hashed faster than its parts.
fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let (mut text, mut length) = ([0; SHORT], 0_usize);
    for part in parts {
        let end = length.saturating_add(part.len());
        match text.get_mut(length..end) {
            Some(place) => place.copy_from_slice(part),
            None => return Sha256::digest(parts.concat()).into(),
        }
        length = end;
    }
    Sha256::digest(text.get(..length).unwrap_or_default()).into()
}

/// An all-zero id is invalid in OpenTelemetry: it becomes 1.
fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut id = [0; N];
    id.copy_from_slice(&bytes[..N]);
    if id == [0; N] {
        id[N - 1] = 1;
    }
    id
}

/// The trace id of every message with this Celery root id that carries no traceparent.
#[must_use]
pub fn trace_id_of_root(root_id: &str) -> TraceId {
    TraceId(first(&digest(&[b"celeryscope:trace:", root_id.as_bytes()])))
}

/// The span id of the publish of one message. `Task.replace` publishes the same id again, under another name or its own: what
/// tells those apart is how often the task was replaced before.
#[must_use]
pub(crate) fn publish_span_id(task_id: &str, retries: u32, task_name: &str, replacements: u32) -> SpanId {
    let (retries, nesting) = (
        Digits::of::<10>(retries.into()),
        Digits::of::<10>(replacements.into()),
    );
    let (mark, number): (&[u8], &[u8]) = match replacements {
        0 => (b"", b""),
        _ => (b":", nesting.bytes()),
    };
    let digest = digest(&[
        b"celeryscope:publish:",
        task_id.as_bytes(),
        b":",
        retries.bytes(),
        b":",
        task_name.as_bytes(),
        mark,
        number,
    ]);
    SpanId(first(&digest))
}

/// The span id of one attempt, unique for each and known only to the worker's agent, and the trace that it starts when runs link to
/// their publish instead of being its children.
#[must_use]
pub(crate) fn run_ids(task_id: &str, retries: u32, host: &str, start: Wall) -> (SpanId, TraceId) {
    let digest = digest(&[
        b"celeryscope:run:",
        task_id.as_bytes(),
        b":",
        Digits::of::<10>(retries.into()).bytes(),
        b":",
        host.as_bytes(),
        b":",
        Digits::of::<10>(start.0).bytes(),
    ]);
    (SpanId(first(&digest)), TraceId(first(&digest[16..])))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: ids of known inputs, computed with `printf … | sha256sum`.
    /// Guarantees: agents of different versions keep agreeing; a change here breaks traces between hosts.
    #[test]
    fn pinned() {
        let id = "d5706acd-ab86-4109-931d-a5e9e871cd92";
        assert_eq!(trace_id_of_root(id).to_string(), PINNED_TRACE);
        assert_eq!(
            publish_span_id(id, 0, "capapp.add", 0).to_string(),
            PINNED_PUBLISH
        );
        assert_eq!(
            publish_span_id(id, 0, "capapp.add", 2).to_string(),
            PINNED_REPLACEMENT
        );
    }

    const PINNED_TRACE: &str = "2f2ebf928be04c343852503b0bc693cf";
    const PINNED_PUBLISH: &str = "e23b4d753f6a8973";
    const PINNED_REPLACEMENT: &str = "8400b5049e8b9604";

    /// Scenario: texts of every length up to beyond two blocks, whole and in parts; numbers of any length.
    /// Guarantees: the digest is SHA-256's; the digits are those that the formatter writes.
    #[test]
    fn digests_and_digits() {
        let text: Vec<u8> = (0..200).collect();
        for length in 0..=text.len() {
            let whole = &text[..length];
            let (one, other) = whole.split_at(length / 3);
            let expected: [u8; 32] = Sha256::digest(whole).into();
            assert_eq!(digest(&[whole]), expected, "{length}");
            assert_eq!(digest(&[one, b"", other]), expected, "{length}");
        }
        for number in [0, 9, 10, 255, 1_795_186_876_502_925_200, u64::MAX] {
            assert_eq!(Digits::of::<10>(number).bytes(), number.to_string().as_bytes());
        }
    }

    /// Scenario: a digest that begins with zeros.
    /// Guarantees: the id is 1, never the invalid zero.
    #[test]
    fn zero_becomes_one() {
        assert_eq!(first::<8>(&[0; 32]), [0, 0, 0, 0, 0, 0, 0, 1]);
    }
}
