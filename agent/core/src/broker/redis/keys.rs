//! Names of kombu's keys and channels.

use std::sync::Arc;

use crate::celery::content::Share;
use crate::celery::result::KEY_PREFIX;
use crate::celery::{TaskMessage, pidbox};

/// Separates a queue from its priority step, and the parts of a binding (`kombu/transport/redis.py: Channel.sep`).
const SEPARATOR: &[u8] = b"\x06\x16";

/// Where in a name a mark is. Most stand in front, where no search is needed.
fn find(name: &[u8], mark: &[u8]) -> Option<usize> {
    if name.starts_with(mark) {
        return Some(0);
    }
    memchr::memmem::find(name, mark)
}

fn has(name: &[u8], mark: &[u8]) -> bool {
    find(name, mark).is_some()
}

/// The id in the key of a stored result, whatever prefix the user has put before it.
pub(super) fn result_id(key: &[u8]) -> Option<String> {
    let at = find(key, KEY_PREFIX)?;
    let id = std::str::from_utf8(key.get(at + KEY_PREFIX.len()..)?).ok()?;
    (!id.is_empty() && id.len() <= 255).then(|| id.to_owned())
}

/// The queue that a list stands for: without its priority step and, where the message tells it apart, without the
/// transport's `global_keyprefix`.
pub(super) fn queue(key: &[u8], message: &TaskMessage, share: Share<'_>) -> Arc<str> {
    // With the default exchange the routing key is the queue's own name.
    let plain = message.exchange.is_empty() || message.exchange == message.routing_key;
    let plain = plain && !message.routing_key.is_empty();
    let end = memchr::memchr(SEPARATOR[0], key).and_then(|from| {
        let rest = key.get(from..)?;
        memchr::memmem::find(rest, SEPARATOR).map(|at| from + at)
    });
    let name = key.get(..end.unwrap_or(key.len())).unwrap_or(key);
    let name = String::from_utf8_lossy(name);
    if plain && name.ends_with(&*message.routing_key) {
        return Arc::clone(&message.routing_key);
    }
    share(&name)
}

/// The exchange of a fanout channel `[prefix]/<db>.<exchange>[/<routing key>]`.
pub(super) fn exchange(channel: &[u8], share: Share<'_>) -> Option<Arc<str>> {
    let slash = memchr::memchr(b'/', channel)?;
    let rest = std::str::from_utf8(channel.get(slash + 1..)?).ok()?;
    let (db, name) = rest.split_once('.')?;
    if db.is_empty() || !db.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(share(name.split('/').next().unwrap_or(name)))
}

/// The worker whose mailbox is bound by this member of a binding set: routing key, pattern and queue
/// (`kombu/transport/redis.py: Channel._queue_bind`).
pub(super) fn mailbox(member: &[u8]) -> Option<String> {
    let at = memchr::memmem::rfind(member, SEPARATOR)? + SEPARATOR.len();
    let queue = std::str::from_utf8(member.get(at..)?).ok()?;
    pidbox::owner(queue).map(str::to_owned)
}

/// The group of the key that holds the parts of a chord's header (`celery/backends/base.py: get_key_for_group`).
pub(super) fn chord_parts(key: &[u8]) -> Option<String> {
    const PREFIX: &[u8] = b"celery-taskset-meta-";
    let at = find(key, PREFIX)?;
    let group = key.get(at + PREFIX.len()..)?.strip_suffix(b".j")?;
    Some(std::str::from_utf8(group).ok()?.to_owned())
}

/// What a channel's messages are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    /// Events of a worker about itself or its tasks: they name the worker.
    Events,
    /// Other events and remote control: no tasks.
    Control,
    /// Notice of a stored result.
    Result,
    /// Maybe a fanout exchange with tasks.
    Other,
}

pub(super) fn channel(name: &[u8]) -> Channel {
    if has(name, KEY_PREFIX) {
        Channel::Result
    } else if has(name, b".celeryev/worker.") || (has(name, b".celeryev/task.") && !has(name, b"/task.sent"))
    {
        Channel::Events
    } else if has(name, b".celeryev") || has(name, b"celery.pidbox") {
        Channel::Control
    } else {
        Channel::Other
    }
}

/// A list that only kombu polls: a priority step of a queue, or a reply queue of remote control.
pub(super) fn is_kombu_queue(key: &[u8]) -> bool {
    [SEPARATOR, b".reply.celery.pidbox"]
        .iter()
        .any(|mark| has(key, mark))
}

/// A key that only Celery and kombu use.
pub(super) fn is_celery(key: &[u8]) -> bool {
    const MARKS: [&[u8]; 6] = [
        KEY_PREFIX,
        b"celery-taskset-meta-",
        b"_kombu.",
        b"unacked",
        b"celery.pidbox",
        b"celeryev",
    ];
    // Most stand in front.
    MARKS.iter().any(|mark| key.starts_with(mark)) || MARKS.iter().any(|mark| has(key, mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(key: &[u8], message: &TaskMessage) -> Arc<str> {
        super::queue(key, message, &|text| text.into())
    }

    fn exchange(channel: &[u8]) -> Option<Arc<str>> {
        super::exchange(channel, &|text| text.into())
    }

    fn message(exchange: &str, routing_key: &str) -> TaskMessage {
        TaskMessage {
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            ..TaskMessage::default()
        }
    }

    /// Scenario: lists with a priority step, with a key prefix, and of a direct exchange whose key is no queue.
    /// Guarantees: the queue's own name.
    #[test]
    fn queues() {
        assert_eq!(*queue(b"celery", &message("", "celery")), *"celery");
        assert_eq!(*queue(b"celery\x06\x163", &message("", "celery")), *"celery");
        assert_eq!(*queue(b"shop:celery\x06\x169", &message("", "celery")), *"celery");
        assert_eq!(*queue(b"orders", &message("shop", "order.new")), *"orders");
    }

    /// Scenario: channels as kombu makes them, and others.
    /// Guarantees: the exchange's name, or none.
    #[test]
    fn exchanges() {
        assert_eq!(exchange(b"/0.bcast/celery").as_deref(), Some("bcast"));
        assert_eq!(exchange(b"shop:/12.bcast").as_deref(), Some("bcast"));
        assert_eq!(exchange(b"news"), None);
        assert_eq!(exchange(b"/x.y"), None);
    }

    /// Scenario: result keys with and without the user's prefix.
    /// Guarantees: the id alone; nothing for other keys.
    #[test]
    fn result_ids() {
        assert_eq!(result_id(b"celery-task-meta-abc").as_deref(), Some("abc"));
        assert_eq!(result_id(b"res:celery-task-meta-abc").as_deref(), Some("abc"));
        assert_eq!(result_id(b"celery-task-meta-"), None);
        assert_eq!(result_id(b"other"), None);
    }
}
