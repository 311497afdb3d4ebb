//! What many messages say alike (their task's name, their queue, their sender) is kept once.

use std::sync::Arc;

use crate::bounded::Bounded;

/// Different texts that are kept; who has more of them has task names by the million, and they cost what they cost.
const KEPT: usize = 1024;

/// Longest text that is kept, in bytes.
const LONGEST: usize = 256;

/// The texts seen last.
#[derive(Debug)]
pub(super) struct Names(Bounded<Arc<str>, Arc<str>>);

impl Default for Names {
    fn default() -> Self {
        Self(Bounded::new(KEPT))
    }
}

impl Names {
    /// The text, shared with who said it before.
    pub(super) fn of(&mut self, text: &str) -> Arc<str> {
        if text.is_empty() {
            return Arc::default();
        }
        if text.len() > LONGEST {
            return Arc::from(text);
        }
        if let Some(known) = self.0.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(text);
        self.0.insert(Arc::clone(&new), Arc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: two messages of one task, and then more names than are kept.
    /// Guarantees: the two share their texts; no more are kept than that.
    #[test]
    fn alike_texts_are_shared() {
        let mut names = Names::default();
        let mut told = |name: &str| [name, "celery", "gen1@host"].map(|text| names.of(text));
        let (one, other) = (told("app.add"), told("app.add"));
        for (one, other) in one.iter().zip(&other) {
            assert!(Arc::ptr_eq(one, other));
        }
        for n in 0..2 * KEPT {
            told(&n.to_string());
        }
        assert_eq!(names.0.len(), KEPT);
    }
}
