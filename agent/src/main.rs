//! The `celeryscope` binary.
fn main() {}
