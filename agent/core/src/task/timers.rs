//! What is due when.

use std::collections::BTreeSet;

use super::attempt::AttemptId;
use crate::time::Mono;

/// What is due at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Publish(u64),
    Attempt(AttemptId),
    Run(AttemptId),
}

/// All that is due, by time.
#[derive(Debug)]
pub(super) struct Timers {
    due: BTreeSet<(Mono, Due)>,
    /// Nothing is due before: time passes with every record, and a look at this is all that most take.
    soonest: Mono,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            due: BTreeSet::new(),
            soonest: Mono(u64::MAX),
        }
    }
}

impl Timers {
    pub(super) fn insert(&mut self, at: Mono, due: Due) {
        self.soonest = self.soonest.min(at);
        self.due.insert((at, due));
    }

    pub(super) fn remove(&mut self, at: Mono, due: Due) {
        self.due.remove(&(at, due));
    }

    /// Takes out the next that is due by `now`.
    pub(super) fn pop(&mut self, now: Mono) -> Option<(Mono, Due)> {
        if now < self.soonest {
            return None;
        }
        let first = self.due.first().copied();
        self.soonest = first.map_or(Mono(u64::MAX), |(at, _)| at);
        let first = first.filter(|(at, _)| *at <= now)?;
        self.due.remove(&first);
        Some(first)
    }

    pub(super) fn len(&self) -> usize {
        self.due.len()
    }

    pub(super) fn clear(&mut self) {
        self.due.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Scenario: timers that are set, taken back and waited for in any order, at the end of time too.
        /// Guarantees: what is due comes out as from a plain set, in the same order.
        #[test]
        fn due_in_order(steps in prop::collection::vec((0..3u8, 0..20u64, 0..5u64), 0..60)) {
            let (mut timers, mut plain) = (Timers::default(), BTreeSet::new());
            for (what, at, id) in steps {
                // The last of them is as late as can be.
                let (at, due) = (Mono(if at == 19 { u64::MAX } else { at }), Due::Attempt(id));
                match what {
                    0 => {
                        timers.insert(at, due);
                        plain.insert((at, due));
                    }
                    1 => {
                        timers.remove(at, due);
                        plain.remove(&(at, due));
                    }
                    _ => while let Some(first) = timers.pop(at) {
                        prop_assert!(first.0 <= at);
                        prop_assert_eq!(Some(first), plain.pop_first());
                    }
                }
                if what == 2 {
                    prop_assert!(plain.first().is_none_or(|(first, _)| *first > at));
                }
                prop_assert_eq!(timers.len(), plain.len());
            }
        }
    }
}
