//! Ids without coordination (design §6): functions of what the message itself says, so that the publisher's agent and
//! the worker's agent name the same spans with no exchange between them.

use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use super::model::{SpanId, TraceId};
use crate::text::digits;
use crate::time::Wall;

/// What an id is made of. A piece of memory is hashed faster than its parts.
#[derive(Default)]
struct Source(SmallVec<[u8; 128]>);

impl Source {
    fn text(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn number(&mut self, number: u64) -> &mut Self {
        digits::<10>(number, &mut |digit| self.0.push(digit));
        self
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
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
    let mut source = Source::default();
    TraceId(first(&source.text("celeryscope:trace:").text(root_id).digest()))
}

/// The span id of the publish of one message. `Task.replace` publishes the same id again, under another name or its own: what
/// tells those apart is how often the task was replaced before.
#[must_use]
pub(crate) fn publish_span_id(task_id: &str, retries: u32, task_name: &str, replacements: u32) -> SpanId {
    let mut source = Source::default();
    source
        .text("celeryscope:publish:")
        .text(task_id)
        .text(":")
        .number(retries.into())
        .text(":")
        .text(task_name);
    if replacements != 0 {
        source.text(":").number(replacements.into());
    }
    SpanId(first(&source.digest()))
}

/// The span id of one attempt, unique for each and known only to the worker's agent, and the trace that it starts when runs link to
/// their publish instead of being its children.
#[must_use]
pub(crate) fn run_ids(task_id: &str, retries: u32, host: &str, start: Wall) -> (SpanId, TraceId) {
    let mut source = Source::default();
    source
        .text("celeryscope:run:")
        .text(task_id)
        .text(":")
        .number(retries.into())
        .text(":")
        .text(host)
        .text(":")
        .number(start.0);
    let digest = source.digest();
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

    /// Scenario: a digest that begins with zeros.
    /// Guarantees: the id is 1, never the invalid zero.
    #[test]
    fn zero_becomes_one() {
        assert_eq!(first::<8>(&[0; 32]), [0, 0, 0, 0, 0, 0, 0, 1]);
    }
}
