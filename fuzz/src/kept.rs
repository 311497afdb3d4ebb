//! A target's kept inputs, without a fuzzer.

use std::path::Path;

/// Runs a target on all of its corpus; gives how many inputs that were.
pub(crate) fn replay(name: &str, target: fn(&[u8])) -> usize {
    // The core's tests and the agent's both stand one or two folders below the root.
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = manifest
        .ancestors()
        .map(|folder| folder.join("fuzz/corpus").join(name))
        .find(|folder| folder.is_dir())
        .expect("the corpus is there");
    let mut count = 0;
    for input in std::fs::read_dir(&folder).expect("the corpus can be read") {
        let path = input.expect("an entry").path();
        let data = std::fs::read(&path).expect("a file");
        if std::panic::catch_unwind(|| target(&data)).is_err() {
            panic!("it fails on {}", path.display());
        }
        count += 1;
    }
    count
}
