//! How large a document may become: by references to what stands once, a few bytes can stand for more than there is memory.

use super::MOST;

/// Values of one document.
const LARGEST: usize = 100_000;

/// What is left for a document that is being made.
#[derive(Debug)]
pub(super) struct Room {
    values: usize,
    /// Of texts, keys among them.
    bytes: u64,
}

impl Room {
    pub(super) fn new() -> Self {
        Self {
            values: LARGEST,
            bytes: MOST,
        }
    }

    /// Takes a value's place; `None` where there is none left.
    pub(super) fn value(&mut self) -> Option<()> {
        self.values = self.values.checked_sub(1)?;
        Some(())
    }

    /// Copies a text; `None` where there is no room for it.
    pub(super) fn text(&mut self, text: &str) -> Option<String> {
        self.bytes = self.bytes.checked_sub(text.len() as u64)?;
        Some(text.to_owned())
    }
}
