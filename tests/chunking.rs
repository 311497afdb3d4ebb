//! The same bytes, cut otherwise.

mod support;
