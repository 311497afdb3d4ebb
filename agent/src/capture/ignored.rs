//! The connections that the kernel half was told not to copy, as many as its map holds.

use std::collections::{BTreeMap, HashMap};

/// Entries of the map `IGNORED`.
const LIMIT: usize = 16_384;

/// The list, by age.
#[derive(Debug, Default)]
pub(super) struct Ignored {
    numbers: HashMap<u64, u64>,
    by_age: BTreeMap<u64, u64>,
    next: u64,
    /// Connections that had to make room: of most of them the end was not heard.
    pub(super) evicted: u64,
}

/// What came of a connection that is to be ignored.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It was there already.
    Known,
    /// It is new.
    New,
    /// It is new, and this one had to make room for it.
    Instead(u64),
}

impl Ignored {
    pub(super) const LIMIT: usize = LIMIT;

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn insert(&mut self, conn: u64) -> Added {
        if self.numbers.contains_key(&conn) {
            return Added::Known;
        }
        let oldest = if self.numbers.len() >= LIMIT {
            self.by_age.pop_first().map(|(_, oldest)| oldest)
        } else {
            None
        };
        self.next += 1;
        self.numbers.insert(conn, self.next);
        self.by_age.insert(self.next, conn);
        match oldest {
            Some(oldest) => {
                self.numbers.remove(&oldest);
                self.evicted += 1;
                Added::Instead(oldest)
            }
            None => Added::New,
        }
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, conn: u64) -> bool {
        let number = self.numbers.remove(&conn);
        number.is_some_and(|number| self.by_age.remove(&number).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: one connection more than the map holds; some are removed, some come twice.
    /// Guarantees: the oldest makes room and is counted; the list never exceeds the map.
    #[test]
    fn the_oldest_makes_room() {
        let mut ignored = Ignored::default();
        for conn in 0..LIMIT as u64 {
            assert_eq!(ignored.insert(conn), Added::New);
        }
        assert_eq!(ignored.insert(7), Added::Known);
        assert_eq!(ignored.insert(1 << 40), Added::Instead(0));
        assert!(!ignored.remove(0));
        assert!(ignored.remove(1));
        assert_eq!(ignored.insert(2 << 40), Added::New);
        assert_eq!(ignored.insert(3 << 40), Added::Instead(2));
        assert_eq!(
            (ignored.len(), ignored.evicted, ignored.by_age.len()),
            (LIMIT, 2, LIMIT)
        );
    }
}
