//! How a run went, as attributes.

use std::sync::Arc;

use super::super::model::{Attributes, Value};
use super::super::semconv as names;
use super::RunFacts;
use super::attributes::{copy, flag, int, put, shared, word};
use crate::task::{Attempt, State};
use crate::text::Text;
use crate::time::Mono;

/// What only a run has.
pub(super) struct Outcome {
    state: Option<State>,
    ended: bool,
    /// In seconds.
    queue_time: Option<f64>,
    worker_name: Option<Arc<str>>,
    pool: Option<&'static str>,
    timing: Text,
    redelivered: bool,
    /// Process and thread, as far as they are known.
    runner: Option<(u32, Option<u32>)>,
    error: Option<Text>,
}

impl Outcome {
    pub(super) fn of(facts: &mut RunFacts, waiting_since: Option<Mono>) -> Self {
        let attempt = &facts.attempt;
        let waited = |since| {
            let start = attempt.start.as_ref()?;
            Some(start.at.since(since).as_secs_f64())
        };
        let runner = attempt.runner.map(|(pid, tid)| (pid, Some(tid)));
        Self {
            state: attempt.state,
            ended: attempt.end.is_some(),
            queue_time: waiting_since.and_then(waited),
            worker_name: facts.worker_name.take(),
            pool: facts.pool,
            timing: timing(attempt),
            redelivered: attempt.message.redelivered,
            // Which of the worker's threads is not known.
            runner: runner.or(attempt.began.map(|_| (attempt.leader, None))),
            error: error_type(attempt),
        }
    }

    /// Adds it to the attributes.
    pub(super) fn join(self, list: &mut Attributes) {
        word(list, names::STATE, self.state.map(State::as_str));
        if !self.ended {
            word(list, names::END, Some("unknown"));
        }
        if let Some(queue_time) = self.queue_time {
            put(list, names::QUEUE_TIME, || Value::Float(queue_time));
        }
        shared(list, names::HOSTNAME, self.worker_name);
        word(list, names::POOL, self.pool);
        copy(list, names::TIMING, &self.timing);
        flag(list, names::REDELIVERED, self.redelivered);
        if let Some((pid, tid)) = self.runner {
            int(list, names::PROCESS_PID, pid);
            if let Some(tid) = tid {
                int(list, names::THREAD_ID, tid);
            }
        }
        if let Some(error) = self.error {
            list.push((names::ERROR_TYPE, Value::Str(error)));
        }
    }
}

/// The evidence for start and end: one word where it is the same, else both.
fn timing(attempt: &Attempt) -> Text {
    let start = attempt.start.map(|start| start.timing);
    let end = attempt.end.map(|end| end.timing);
    match (start, end) {
        (Some(start), Some(end)) if start != end => format!("{},{}", start.as_str(), end.as_str()).into(),
        (Some(one), _) | (None, Some(one)) => one.as_str().into(),
        (None, None) => "ack".into(),
    }
}

fn error_type(attempt: &Attempt) -> Option<Text> {
    let class = attempt
        .exception
        .as_ref()
        .map(|exception| Text::from(exception.class.clone()));
    match attempt.state? {
        State::Failure => Some(class.unwrap_or("_OTHER".into())),
        State::Lost => Some(class.unwrap_or("billiard.exceptions.WorkerLostError".into())),
        _ => None,
    }
}
