//! A map that never holds more than its cap: the oldest entry makes room.
//!
//! Hashes are seeded anew for each map, since others choose the keys.

use std::borrow::Borrow;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use foldhash::fast::RandomState;

/// Map with insertion order and a cap. Replacing a key's value makes it the youngest.
#[derive(Debug)]
pub(crate) struct Bounded<K, V> {
    map: HashMap<K, (u64, V), RandomState>,
    /// Keys by age; an entry whose number is not the map's is stale and skipped.
    order: VecDeque<(u64, K)>,
    next: u64,
    cap: usize,
}

impl<K: Hash + Eq + Clone, V> Bounded<K, V> {
    pub(crate) fn new(cap: usize) -> Self {
        Self {
            map: HashMap::default(),
            order: VecDeque::new(),
            next: 0,
            cap: cap.max(1),
        }
    }

    /// Inserts, and returns the entry that had to go (never the one just inserted).
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        let evicted = self.make_room(&key);
        let number = self.enlist(&key);
        self.map.insert(key, (number, value));
        evicted
    }

    /// The key's value, made if there is none, and the entry that had to go for it.
    pub(crate) fn get_or_insert_with(
        &mut self,
        key: K,
        make: impl FnOnce() -> V,
    ) -> (&mut V, Option<(K, V)>) {
        let evicted = self.make_room(&key);
        self.drop_stale();
        // The key is hashed once: most of the time it is there, and there is room.
        let value = match self.map.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                self.next += 1;
                self.order.push_back((self.next, place.key().clone()));
                place.insert((self.next, make()))
            }
        };
        (&mut value.1, evicted)
    }

    fn make_room(&mut self, key: &K) -> Option<(K, V)> {
        if self.map.len() < self.cap || self.map.contains_key(key) {
            return None;
        }
        self.pop_oldest()
    }

    /// Puts the key at the young end of the order; gives its number there.
    fn enlist(&mut self, key: &K) -> u64 {
        self.drop_stale();
        self.next += 1;
        self.order.push_back((self.next, key.clone()));
        self.next
    }

    /// Drops stale keys once they outnumber the live ones, so that the cost stays constant per insert.
    fn drop_stale(&mut self) {
        if self.order.len() > 2 * self.map.len() + 32 {
            let map = &self.map;
            self.order
                .retain(|(number, key)| map.get(key).is_some_and(|(n, _)| n == number));
        }
    }

    /// Whether the next new key's entry costs another's.
    pub(crate) fn is_full(&self) -> bool {
        self.map.len() >= self.cap
    }

    /// Removes the oldest entry of which this is true.
    pub(crate) fn pop_oldest_that(&mut self, is_so: impl Fn(&V) -> bool) -> Option<(K, V)> {
        let fits = |(number, key): &&(u64, K)| {
            let entry = self.map.get(key).filter(|(n, _)| n == number);
            entry.is_some_and(|(_, value)| is_so(value))
        };
        let key = self.order.iter().find(fits).map(|(_, key)| key.clone())?;
        let value = self.remove(&key)?;
        Some((key, value))
    }

    /// Removes the oldest entry.
    pub(crate) fn pop_oldest(&mut self) -> Option<(K, V)> {
        while let Some((number, key)) = self.order.pop_front() {
            if let Entry::Occupied(entry) = self.map.entry(key)
                && entry.get().0 == number
            {
                let (key, (_, value)) = entry.remove_entry();
                return Some((key, value));
            }
        }
        None
    }

    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.map.get(key).map(|(_, value)| value)
    }

    pub(crate) fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.map.get_mut(key).map(|(_, value)| value)
    }

    pub(crate) fn contains<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.map.contains_key(key)
    }

    pub(crate) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.map.remove(key).map(|(_, value)| value)
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Entries in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.map.iter().map(|(key, (_, value))| (key, value))
    }

    /// Entries in no order.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.map.iter_mut().map(|(key, (_, value))| (key, value))
    }

    /// Keys, oldest first.
    pub(crate) fn keys_by_age(&self) -> Vec<K> {
        let live = |(number, key): &&(u64, K)| self.map.get(key).is_some_and(|(n, _)| n == number);
        self.order
            .iter()
            .filter(live)
            .map(|(_, key)| key.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a full map, of which the oldest that fits a description has to go.
    /// Guarantees: that one goes, stale order entries of its key notwithstanding; where none fits, none.
    #[test]
    fn evicts_the_oldest_that_fits() {
        let mut map = Bounded::new(3);
        for (key, value) in [("a", 2), ("b", 1), ("c", 2), ("b", 2), ("d", 2)] {
            map.insert(key, value);
        }
        assert!(map.is_full());
        assert_eq!(map.pop_oldest_that(|value| *value == 1), None);
        assert_eq!(map.pop_oldest_that(|value| *value == 2), Some(("c", 2)));
        assert_eq!(map.keys_by_age(), ["b", "d"]);
    }

    /// Scenario: inserts beyond the cap, with removals and replacements in between.
    /// Guarantees: the oldest goes, a replaced key counts as young, stale order entries don't pile up.
    #[test]
    fn evicts_the_oldest() {
        let mut map = Bounded::new(2);
        assert_eq!(map.insert("a", 1), None);
        assert_eq!(map.insert("b", 2), None);
        assert_eq!(map.insert("a", 3), None);
        assert_eq!(map.insert("c", 4), Some(("b", 2)));
        assert_eq!(map.remove("a"), Some(3));
        assert_eq!(map.keys_by_age(), ["c"]);
        for _ in 0..1000 {
            map.insert("d", 0);
        }
        assert!(map.order.len() < 64, "{}", map.order.len());
        assert_eq!(map.len(), 2);
    }
}
