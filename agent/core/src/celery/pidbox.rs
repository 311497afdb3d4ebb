//! Remote control's mailboxes (`kombu/pidbox.py`): each worker has one, and it bears the worker's name.

/// The worker whose mailbox this queue is: `w1@host` of `w1@host.celery.pidbox`.
#[must_use]
pub fn owner(queue: &str) -> Option<&str> {
    let name = queue.strip_suffix(".celery.pidbox")?;
    name.contains('@').then_some(name)
}
