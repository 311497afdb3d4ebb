//! Protocol 1 (`celery/app/amqp.py: as_task_v1`): everything is in the body.

use std::sync::Arc;

use serde::Deserialize;

use super::body::Count;
use super::message::{Rare, TaskMessage};

/// Reads a protocol 1 body; `None` when it is not one.
#[must_use]
pub fn read(json: &[u8]) -> Option<TaskMessage> {
    #[derive(Deserialize)]
    struct Legacy {
        task: String,
        id: String,
        #[serde(default)]
        args: Count,
        #[serde(default)]
        kwargs: Count,
        #[serde(default)]
        group: Option<String>,
        #[serde(default)]
        taskset: Option<String>,
        #[serde(default)]
        retries: Option<u32>,
        #[serde(default)]
        eta: Option<String>,
        #[serde(default)]
        expires: Option<String>,
    }
    let body: Legacy = serde_json::from_slice(json).ok()?;
    Some(TaskMessage {
        id: body.id.into(),
        name: body.task.into(),
        group: body.group.or(body.taskset).map(Arc::from),
        retries: body.retries.unwrap_or(0),
        rare: Rare {
            eta: body.eta.map(Arc::from),
            expires: body.expires.map(Arc::from),
            ..Rare::default()
        }
        .kept(),
        args_count: Some(body.args.0),
        kwargs_count: Some(body.kwargs.0),
        ..TaskMessage::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a protocol 1 body, and JSON that is none.
    /// Guarantees: id, name, retries and counts are read; anything without task and id is refused.
    #[test]
    fn protocol_1() {
        let message =
            read(br#"{"task": "t", "id": "1", "args": [1], "kwargs": {}, "retries": 2, "eta": null}"#)
                .unwrap();
        assert_eq!((&*message.id, &*message.name, message.retries), ("1", "t", 2));
        assert_eq!((message.args_count, message.kwargs_count), (Some(1), Some(0)));
        assert_eq!(read(br#"{"status": "SUCCESS"}"#), None);
        assert_eq!(read(br#"{"task": 1, "id": "1"}"#), None);
    }
}
