//! The kept inputs of the fuzz targets of what the agent writes to disk, without a fuzzer.

use celeryscope::recording;

#[path = "../fuzz/src/kept.rs"]
mod kept;
#[allow(unreachable_pub, reason = "public where the fuzzer takes it in")]
#[path = "../fuzz/src/agent/recording_file.rs"]
mod recording_file;
#[allow(unreachable_pub, reason = "public where the fuzzer takes it in")]
#[path = "../fuzz/src/agent/redact/mod.rs"]
mod redact;

/// Scenario: every recording, and every conversation with secrets, that the fuzzer found worth keeping, and every one that
/// once failed.
/// Guarantees: no panic; of a damaged recording nothing is read that was not written; no secret is left of a conversation.
#[test]
fn kept_inputs() {
    for (name, target) in [
        ("recording", recording_file::recording as fn(&[u8])),
        ("redact", redact::redact),
    ] {
        assert!(kept::replay(name, target) >= 20, "{name}: the corpus is gone");
    }
}
