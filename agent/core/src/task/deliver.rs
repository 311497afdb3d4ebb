//! What the broker and the result backend tell about attempts.

use super::attempt::{Attempt, AttemptId, End, Server, Start, State, Timing};
use super::engine::{Engine, KEPT_PER_TASK};
use crate::celery::{ResultMeta, ResultState, TaskMessage};
use crate::pipeline::Output;
use crate::span::{host_of, ids};
use crate::stream::Call;
use crate::time::Mono;

impl Engine {
    pub(super) fn delivered(
        &mut self,
        server: Option<Server>,
        message: TaskMessage,
        destination: String,
        call: Call,
    ) {
        self.stats.deliveries += 1;
        let leader = self.processes.leader_of(call.pid);
        self.process(leader).consumes = true;
        let tag: Box<str> = Box::from(message.delivery_tag.as_str());
        // The pool's frame may have come first, where the delivery's record was late.
        let early = self.find(&message.id, |a| {
            a.leader == leader && !a.complete && a.message.retries == message.retries
        });
        let id = match early {
            Some(id) => id,
            None => self.begin(Attempt::new(TaskMessage::default(), leader), &message.id),
        };
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.message = message;
            attempt.complete = true;
            attempt.destination = destination;
            attempt.server = server;
            attempt.delivered = Some(call.exit);
        }
        if !tag.is_empty() {
            self.tags.insert((leader, tag), id);
        }
    }

    pub(super) fn acked(&mut self, tag: &str, call: Call) {
        let leader = self.processes.leader_of(call.pid);
        let Some(&id) = self.tags.get(&(leader, Box::from(tag))) else {
            self.stats.acks_unknown += 1;
            return;
        };
        let prefork = self.processes.get(leader).is_some_and(|proc| proc.prefork);
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        attempt.acked = Some(call.exit);
        let discarded = attempt.start.is_none() && attempt.stored.is_some();
        if attempt.end.is_some() || discarded {
            self.close(id);
        } else if attempt.start.is_none() {
            if !prefork {
                self.start(id, call.enter, Timing::Ack, None);
            }
            let patience = self.config.limits.run_wait;
            if prefork || self.attempts.get(&id).is_some_and(|a| a.message.ignore_result) {
                self.set_deadline(id, call.exit + patience);
            }
        }
    }

    /// Back in its queue: an attempt that never began was none.
    pub(super) fn requeued(&mut self, tag: &str, call: Call) {
        let leader = self.processes.leader_of(call.pid);
        self.stats.requeues += 1;
        let Some(&id) = self.tags.get(&(leader, Box::from(tag))) else {
            return;
        };
        // One that still runs (cold shutdown) has its end before it.
        if self
            .attempts
            .get(&id)
            .is_some_and(|a| a.start.is_none() || a.end.is_some())
        {
            self.close(id);
        }
    }

    pub(super) fn result(&mut self, task_id: &str, meta: ResultMeta, call: Call) {
        self.stats.results += 1;
        let leader = self.processes.leader_of(call.pid);
        let own = self
            .processes
            .get(call.pid)
            .and_then(|proc| proc.job)
            .map(|(_, id)| id);
        let by_job = own.filter(|id| self.attempts.get(id).is_some_and(|a| a.message.id == task_id));
        let Some(id) = by_job.or_else(|| self.told_by(task_id, meta.state, leader)) else {
            self.stats.results_unknown += 1;
            return;
        };
        let state = match meta.state {
            ResultState::Started => {
                self.start(id, call.enter, Timing::Result, Some((call.pid, call.tid)));
                return;
            }
            ResultState::Custom => return,
            ResultState::Success => State::Success,
            ResultState::Failure => State::Failure,
            ResultState::Retry => State::Retry,
            ResultState::Revoked => State::Revoked,
            ResultState::Ignored => State::Ignored,
            ResultState::Rejected => State::Rejected,
        };
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        if meta.exception.is_some() {
            attempt.exception = meta.exception;
        }
        // A child's own account comes with its READY frame.
        if by_job.is_none() {
            attempt.stored = Some(state);
            self.stored(id, leader, state, call);
        }
    }

    /// A final result that no frame of the pool goes with: of a task that ran where there are no pipes, or whose frames
    /// were lost, or that the main process disposed of.
    fn stored(&mut self, id: AttemptId, leader: u32, state: State, call: Call) {
        let prefork = self.processes.get(leader).is_some_and(|proc| proc.prefork);
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        if attempt.runner.is_some() && prefork {
            // It runs in a child, whose end is still to be seen; this says why it ends.
            return;
        }
        attempt.state = Some(state);
        attempt.end = Some(End {
            at: call.enter,
            timing: Timing::Result,
        });
        let acked = attempt.acked.is_some();
        let ran_here = !prefork && state != State::Revoked;
        if attempt.start.is_some() || call.pid != leader || ran_here {
            self.start_unseen(id, call);
        }
        if acked {
            self.close(id);
        } else {
            self.set_deadline(id, call.exit + self.config.limits.run_wait);
        }
    }

    /// An attempt shows by `call` that it has begun: by its early ack if there was one, else with its delivery.
    pub(super) fn start_unseen(&mut self, id: AttemptId, call: Call) {
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        attempt.runner.get_or_insert((call.pid, call.tid));
        let (at, timing) = match (attempt.acked, attempt.delivered) {
            (Some(acked), _) if acked < call.enter => (acked, Timing::Ack),
            (_, Some(delivered)) => (delivered, Timing::Estimate),
            _ => (call.enter, Timing::Estimate),
        };
        self.start(id, at, timing, None);
    }

    /// The attempt that a result is about, where no pool's frame says so: the oldest that is not over, because a retry is
    /// delivered while the attempt that asked for it still runs. That one has been published again; a `RETRY` without
    /// such a publish is about an attempt that was not seen.
    fn told_by(&self, task_id: &str, state: ResultState, leader: u32) -> Option<AttemptId> {
        let task = self.tasks.get(task_id)?;
        let fits = |attempt: &Attempt| {
            let again = Some(attempt.message.retries) < task.publishes.iter().map(|p| p.retries).max();
            attempt.leader == leader
                && (attempt.end.is_none() || attempt.state == Some(State::Lost))
                && (state != ResultState::Retry || again)
        };
        let mut ids = task.attempts.iter().copied();
        ids.find(|id| self.attempts.get(id).is_some_and(fits))
    }

    pub(super) fn consumer(&mut self, pid: u32) {
        let leader = self.processes.leader_of(pid);
        let proc = self.process(leader);
        if !std::mem::replace(&mut proc.reported, true) {
            self.say(Output::Worker { pid: leader });
        }
    }

    /// A new attempt of `task_id`.
    pub(super) fn begin(&mut self, attempt: Attempt, task_id: &str) -> AttemptId {
        let id = self.next_id();
        self.stats.attempts += 1;
        if let Some((old, evicted)) = self.attempts.insert(id, attempt) {
            self.stats.attempts_evicted += 1;
            self.put_run(old, evicted);
        }
        let attempts = &mut self.task(task_id).attempts;
        let full = if attempts.len() == KEPT_PER_TASK {
            Some(attempts.remove(0))
        } else {
            None
        };
        attempts.push(id);
        if let Some(old) = full {
            self.stats.attempts_evicted += 1;
            self.close(old);
        }
        self.set_deadline(id, self.now + self.config.limits.attempt_age);
        id
    }

    /// Sets an attempt's start, once: its span id depends on it.
    pub(super) fn start(&mut self, id: AttemptId, at: Mono, timing: Timing, runner: Option<(u32, u32)>) {
        let wall = self.clock.wall_of(at);
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        if runner.is_some() {
            attempt.runner = runner;
        }
        if attempt.start.is_some() {
            return;
        }
        let process = self.processes.identity(attempt.leader, attempt.leader);
        let host = host_of(&process);
        let message = &attempt.message;
        attempt.start = Some(Start {
            at,
            wall,
            timing,
            span_id: ids::run_span_id(&message.id, message.retries, host, wall),
            own_trace: ids::run_trace_id(&message.id, message.retries, host, wall),
        });
    }

    /// The youngest open attempt of a task that fits.
    pub(super) fn find(&self, task_id: &str, fits: impl Fn(&Attempt) -> bool) -> Option<AttemptId> {
        let task = self.tasks.get(task_id)?;
        task.attempts
            .iter()
            .rev()
            .copied()
            .find(|id| self.attempts.get(id).is_some_and(&fits))
    }
}
