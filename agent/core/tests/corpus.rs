//! The kept inputs of the core's fuzz targets, without a fuzzer.

#[path = "../../../fuzz/src/kept.rs"]
mod kept;
#[path = "../../../fuzz/src/core/mod.rs"]
mod targets;

/// Scenario: every input that the fuzzer found worth keeping, and every one that once failed.
/// Guarantees: no panic, and what each target says must hold.
#[test]
fn kept_inputs() {
    type Target = fn(&[u8]);
    let targets: [(&str, Target); 6] = [
        ("amqp", targets::amqp),
        ("document", targets::document),
        ("envelope", targets::envelope),
        ("pipeline", targets::pipeline),
        ("pool", targets::pool),
        ("resp", targets::resp),
    ];
    for (name, target) in targets {
        assert!(kept::replay(name, target) >= 20, "{name}: the corpus is gone");
    }
}
