//! celeryscope's kernel half.
fn main() {}
