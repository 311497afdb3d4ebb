//! Masking.
use celeryscope_common::Record;

/// Masks records.
#[derive(Debug, Default)]
pub struct Redactor {}

impl Redactor {
    /// The record, masked.
    pub fn mask<'a>(&mut self, record: &Record<'a>) -> Record<'a> {
        *record
    }
}
