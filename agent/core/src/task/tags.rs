//! Looking up a delivery by worker and delivery tag without a copy of the tag.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A worker's main process and a delivery tag, as a table keeps them or as somebody asks.
pub(super) trait Tag {
    fn parts(&self) -> (u32, &str);
}

impl Tag for (u32, Arc<str>) {
    fn parts(&self) -> (u32, &str) {
        (self.0, &self.1)
    }
}

impl Tag for (u32, &str) {
    fn parts(&self) -> (u32, &str) {
        *self
    }
}

impl<'a> Borrow<dyn Tag + 'a> for (u32, Arc<str>) {
    fn borrow(&self) -> &(dyn Tag + 'a) {
        self
    }
}

impl Hash for dyn Tag + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl PartialEq for dyn Tag + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn Tag + '_ {}
