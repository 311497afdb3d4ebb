//! Task events that a worker sends when started with `-E` (`celery/events/event.py`, `celery/worker/request.py`).
//!
//! Workers with an event loop buffer them and send lists (`task.multi`); the others send each by itself.

use std::borrow::Cow;

use serde::Deserialize;

use crate::time::Wall;

/// Events taken of one message; a worker buffers up to 24.
const MOST: usize = 1024;
/// Longest name of an exception's class, in bytes.
const CLASS: usize = 128;

/// What an event says of its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The pool has begun with it.
    Started,
    /// It returned.
    Succeeded,
    /// It raised.
    Failed,
    /// It asked to be run again.
    Retried,
    /// It was revoked or had expired.
    Revoked,
    /// It was rejected.
    Rejected,
}

/// One event of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskEvent {
    /// What happened.
    pub kind: EventKind,
    /// To which task.
    pub task_id: String,
    /// By the main process's wall clock.
    pub at: Wall,
    /// The class of the exception of one that failed, without its module.
    pub class: Option<String>,
}

/// Borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    uuid: Option<Text<'a>>,
    #[serde(default)]
    timestamp: Option<f64>,
    #[serde(borrow, default)]
    exception: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Events<'a> {
    #[serde(borrow)]
    List(Vec<Event<'a>>),
    One(Event<'a>),
}

/// The task events in a message's body; none where it holds others, or nothing of the kind.
#[must_use]
pub fn parse(json: &[u8]) -> Vec<TaskEvent> {
    let events = match serde_json::from_slice(json) {
        Ok(Events::List(list)) => list,
        Ok(Events::One(event)) => vec![event],
        Err(_) => return Vec::new(),
    };
    events.iter().take(MOST).filter_map(task_event).collect()
}

fn task_event(event: &Event<'_>) -> Option<TaskEvent> {
    let kind = match &*event.kind.0 {
        "task-started" => EventKind::Started,
        "task-succeeded" => EventKind::Succeeded,
        "task-failed" => EventKind::Failed,
        "task-retried" => EventKind::Retried,
        "task-revoked" => EventKind::Revoked,
        "task-rejected" => EventKind::Rejected,
        _ => return None,
    };
    // 2^53 ns are 104 days, so seconds and fraction are taken apart.
    let seconds = event.timestamp.filter(|t| (0.0..1e10).contains(t))?;
    let whole = seconds.trunc();
    let at = Wall((whole as u64).saturating_mul(1_000_000_000) + ((seconds - whole) * 1e9) as u64);
    Some(TaskEvent {
        kind,
        task_id: event.uuid.as_ref()?.0.clone().into_owned(),
        at,
        class: event.exception.as_ref().and_then(|repr| class_of(&repr.0)),
    })
}

/// The class in an exception's `repr()`, `ValueError('bad')`, unless it has one of its own making.
fn class_of(repr: &str) -> Option<String> {
    let (class, _) = repr.split_once('(')?;
    let name = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let fits = class.starts_with(|c: char| c.is_alphabetic() || c == '_') && class.chars().all(name);
    (fits && class.len() <= CLASS).then(|| class.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a list as `task.multi` has it, a single event, and what is neither.
    /// Guarantees: known task events with their times; everything else is passed over.
    #[test]
    fn lists_and_single_events() {
        let list = br#"[{"type": "task-received", "uuid": "a", "timestamp": 1.5},
            {"type": "task-started", "uuid": "a", "timestamp": 1795186965.25, "clock": 7},
            {"type": "task-failed", "uuid": "b", "timestamp": -1}]"#;
        let events = parse(list);
        assert_eq!(events.len(), 1);
        assert_eq!(
            (events[0].kind, events[0].task_id.as_str()),
            (EventKind::Started, "a")
        );
        assert_eq!(events[0].at, Wall(1_795_186_965_250_000_000));
        assert_eq!(
            parse(br#"{"type": "task-succeeded", "uuid": "c", "timestamp": 2}"#).len(),
            1
        );
        assert_eq!(events[0].class, None);
        assert_eq!(parse(br#"{"type": "worker-heartbeat"}"#), []);
        assert_eq!(parse(b"[1, 2"), []);
    }

    /// Scenario: failures by exceptions that Python shows as a call, in a form of their own, and with an endless name.
    /// Guarantees: only what is a name before a parenthesis is taken for the class.
    #[test]
    fn classes_of_exceptions() {
        let class = |repr: &str| {
            let event =
                format!(r#"{{"type": "task-failed", "uuid": "a", "timestamp": 1, "exception": {repr:?}}}"#);
            parse(event.as_bytes())[0].class.clone()
        };
        assert_eq!(class("ValueError('bad 1')").as_deref(), Some("ValueError"));
        assert_eq!(class("<Unpicklable (x)>"), None);
        assert_eq!(class("the disk (sda) is full"), None);
        assert_eq!(class("KeyError"), None);
        assert_eq!(class(&format!("{}()", "E".repeat(1000))), None);
    }
}
