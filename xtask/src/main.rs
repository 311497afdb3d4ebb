//! celeryscope's developer commands.
fn main() {}
mod venv;
