//! Ids as the rules have them, worked out without the core.

use celeryscope_core::{SpanId, TraceId};
use sha2::{Digest, Sha256};

use super::super::truth::{Publish, Task};

/// The trace of a message: its trace context's, else made of its root.
pub fn trace_id(publish: &Publish) -> TraceId {
    TraceId(publish.traceparent.map_or_else(
        || digest(&format!("celeryscope:trace:{}", publish.root_id)),
        |context| context.trace,
    ))
}

/// The span of a publish, as any agent works it out.
pub fn publish_id(task: &Task, publish: &Publish) -> SpanId {
    let (id, retries, name) = (&task.id, publish.retries, &publish.name);
    let again = match publish.replacements {
        0 => String::new(),
        n => format!(":{n}"),
    };
    SpanId(digest(&format!(
        "celeryscope:publish:{id}:{retries}:{name}{again}"
    )))
}

/// First bytes of a SHA-256; all zero becomes 1.
fn digest<const N: usize>(text: &str) -> [u8; N] {
    let hash = Sha256::digest(text.as_bytes());
    let mut out = [0; N];
    out.copy_from_slice(&hash[..N]);
    if out == [0; N] {
        out[N - 1] = 1;
    }
    out
}
