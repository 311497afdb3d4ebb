//! celeryscope's developer commands.
fn main() {}
