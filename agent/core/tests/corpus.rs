//! The fuzz targets' kept inputs, without a fuzzer.

#[path = "../../../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;

/// Runs a target on all of its corpus; gives how many inputs that were.
fn replay(name: &str, target: fn(&[u8])) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(name);
    let inputs = std::fs::read_dir(&folder).expect("the corpus is there");
    let mut count = 0;
    for input in inputs {
        let path = input.expect("an entry").path();
        let data = std::fs::read(&path).expect("a file");
        if std::panic::catch_unwind(|| target(&data)).is_err() {
            panic!("it fails on {}", path.display());
        }
        count += 1;
    }
    count
}

/// Scenario: every input that the fuzzer found worth keeping, and every one that once failed.
/// Guarantees: no panic; cut into bytes they give the same; every byte is accounted for.
#[test]
fn kept_inputs() {
    type Target = fn(&[u8]);
    let targets: [(&str, Target); 5] = [
        ("amqp", targets::amqp),
        ("envelope", targets::envelope),
        ("pipeline", targets::pipeline),
        ("pool", targets::pool),
        ("resp", targets::resp),
    ];
    for (name, target) in targets {
        assert!(replay(name, target) >= 20, "{name}: the corpus is gone");
    }
}
