//! What a broker connection tells about tasks.

use std::sync::Arc;

use crate::celery::result::Exception;
use crate::celery::{ResultMeta, TaskEvent, TaskMessage};
use crate::stream::Call;
use crate::time::Mono;

/// Something that happened to a task on a broker or result connection. `call` is the system call that moved its last
/// byte.
#[derive(Clone, Debug, PartialEq)]
pub enum BrokerEvent {
    /// A task message was sent. [`Self::Answered`] or [`Self::Unanswered`] with the same token follows.
    Publish {
        /// Names this publish; never used twice on one connection.
        token: u64,
        /// The message.
        message: Box<TaskMessage>,
        /// Queue (or exchange of a broadcast).
        destination: Arc<str>,
        /// When the call that moved the first byte began.
        first: Mono,
        /// The call that moved the last.
        call: Call,
    },
    /// The broker answered a publish.
    Answered {
        /// Which.
        token: u64,
        /// When the answer had been read.
        at: Mono,
    },
    /// No answer to a publish will be seen any more.
    Unanswered {
        /// Which.
        token: u64,
    },
    /// A task message was received.
    Delivered {
        /// The message.
        message: Box<TaskMessage>,
        /// Queue (or exchange of a broadcast).
        destination: Arc<str>,
        /// Of the delivery.
        call: Call,
    },
    /// A delivered message was acknowledged, or rejected without requeue.
    Acked {
        /// Its delivery tag.
        tag: Arc<str>,
        /// Of the ack.
        call: Call,
    },
    /// A delivered message was put back into its queue.
    Requeued {
        /// Its delivery tag.
        tag: Arc<str>,
        /// Of the requeue.
        call: Call,
    },
    /// A result was stored or sent.
    Result {
        /// The task's id.
        task_id: String,
        /// What it says.
        meta: Box<ResultMeta>,
        /// When the program turned to it: the first bytes of the command, or what it had to do before it on this
        /// connection (opening it, looking at what is stored).
        first: Mono,
        /// Of the write.
        call: Call,
    },
    /// A worker tells of tasks (`-E`).
    Told {
        /// What it tells.
        events: Vec<TaskEvent>,
        /// Of the message.
        call: Call,
    },
    /// The parts of a chord's header are complete and were fetched: what is published next is its callback.
    ChordComplete {
        /// The header's group id.
        group: String,
        /// Of the command that fetches them.
        call: Call,
    },
    /// The process consumes tasks.
    Consumer {
        /// Of the command that shows it.
        call: Call,
    },
    /// The process is a worker of this name (`w1@host`).
    WorkerName {
        /// The name.
        name: String,
        /// Of the message that shows it.
        call: Call,
    },
}

impl BrokerEvent {
    /// Bytes of memory behind it, nearly.
    pub(crate) fn weight(&self) -> u64 {
        let more = match self {
            Self::Publish { message, .. } | Self::Delivered { message, .. } => message.weight(),
            Self::Result { meta, .. } => meta.exception.as_ref().map_or(0, Exception::weight),
            _ => 0,
        };
        more.saturating_add(size_of::<Self>() as u64)
    }
}
