//! What the fuzz targets do with their input, and what must hold whatever it is.
//!
//! Each target is a function that takes any bytes. It fails by a panic: where the code under it panics, or where one of the
//! properties that its function names does not hold. libFuzzer calls it with new inputs; `cargo test` calls it with those that are
//! kept in `corpus/`.

pub mod agent;
pub mod core;
