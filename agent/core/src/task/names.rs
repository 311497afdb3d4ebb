//! What many messages say alike (their task's name, their queue, their sender) is kept once.

use std::sync::Arc;

use crate::bounded::Bounded;
use crate::celery::TaskMessage;

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
    /// Lets a message, and where it goes, share what others said before.
    pub(super) fn share(&mut self, message: &mut TaskMessage, destination: &mut Arc<str>) {
        let always = [
            destination,
            &mut message.name,
            &mut message.exchange,
            &mut message.routing_key,
        ];
        let optional = [&mut message.origin, &mut message.reply_to];
        for text in always.into_iter().chain(optional.into_iter().flatten()) {
            self.one(text);
        }
    }

    fn one(&mut self, text: &mut Arc<str>) {
        if text.is_empty() || text.len() > LONGEST {
            return;
        }
        match self.0.get(&**text) {
            Some(known) => text.clone_from(known),
            None => drop(self.0.insert(Arc::clone(text), Arc::clone(text))),
        }
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
        let mut told = |name: &str| {
            let mut message = TaskMessage {
                name: name.into(),
                origin: Some("gen1@host".into()),
                ..TaskMessage::default()
            };
            let mut queue = Arc::from("celery");
            names.share(&mut message, &mut queue);
            (message, queue)
        };
        let (one, other) = (told("app.add"), told("app.add"));
        assert!(Arc::ptr_eq(&one.0.name, &other.0.name) && Arc::ptr_eq(&one.1, &other.1));
        assert!(Arc::ptr_eq(
            one.0.origin.as_ref().unwrap(),
            other.0.origin.as_ref().unwrap()
        ));
        for n in 0..2 * KEPT {
            told(&n.to_string());
        }
        assert_eq!(names.0.len(), KEPT);
    }
}
