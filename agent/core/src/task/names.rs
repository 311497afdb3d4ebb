//! What many messages say alike (their task's name, their queue, their sender) is kept once.

use std::sync::Arc;

use crate::bounded::Bounded;

/// Different texts that are kept; who has more of them has task names by the million, and they cost what they cost.
const KEPT: usize = 1024;

/// Longest text that is kept, in bytes.
const LONGEST: usize = 256;

/// Places for texts that are looked for first.
const PLACES: usize = 64;

/// The texts seen last.
#[derive(Debug)]
pub(super) struct Names {
    all: Bounded<Arc<str>, Arc<str>>,
    /// One of them at each place, where a glance at a text leads: the same few are asked for again and again.
    at_hand: [Option<Arc<str>>; PLACES],
}

impl Default for Names {
    fn default() -> Self {
        Self {
            all: Bounded::new(KEPT),
            at_hand: [const { None }; PLACES],
        }
    }
}

impl Names {
    /// The text, shared with who said it before.
    pub(super) fn of(&mut self, text: &str) -> Arc<str> {
        let [first, .., last] = text.as_bytes() else {
            return self.look_up(text);
        };
        let place = usize::from(*first) + 7 * usize::from(*last) + 5 * text.len();
        let place = place % PLACES;
        if let Some(Some(known)) = self.at_hand.get(place)
            && **known == *text
        {
            return Arc::clone(known);
        }
        let found = self.look_up(text);
        if text.len() <= LONGEST
            && let Some(place) = self.at_hand.get_mut(place)
        {
            *place = Some(Arc::clone(&found));
        }
        found
    }

    fn look_up(&mut self, text: &str) -> Arc<str> {
        if text.is_empty() {
            return Arc::default();
        }
        if text.len() > LONGEST {
            return Arc::from(text);
        }
        if let Some(known) = self.all.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(text);
        self.all.insert(Arc::clone(&new), Arc::clone(&new));
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
        assert_eq!(names.all.len(), KEPT);
    }

    /// Scenario: texts that lead to one place, in turn; short ones, and one that is too long to be kept.
    /// Guarantees: each is given as it is asked for, and shared unless it is too long.
    #[test]
    fn texts_of_one_place() {
        let mut names = Names::default();
        let long = "x".repeat(LONGEST + 1);
        let texts = [
            "app.add",
            "app.odd",
            "axx.xxd",
            "",
            "a",
            "aa",
            "app.add",
            long.as_str(),
        ];
        for text in texts.iter().chain(&texts) {
            let (one, other) = (names.of(text), names.of(text));
            assert_eq!(*one, **text);
            assert_eq!(Arc::ptr_eq(&one, &other), text.len() <= LONGEST);
        }
    }
}
