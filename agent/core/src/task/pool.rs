//! What the prefork pool's pipes and the process table tell about attempts: the best evidence there is.

use std::sync::Arc;
use std::time::Duration;

use celeryscope_common::{Kind, Record};

use super::attempt::{Attempt, AttemptId, State, Timing};
use super::engine::Engine;
use super::process::{Pool, Proc};
use crate::celery::{Rare, TaskMessage, TraceParent};
use crate::time::Mono;
use crate::wire::pool::{self, Outcome, PoolFrame};

/// How long a child's end waits for the main process to say why, or to give its job to another: it does so when it has reaped the
/// child. It is told of the end by a pipe, which the kernel closes a little before the child can be waited for; where it looks in
/// between it finds nobody, and looks again with a timer of 5 s (`celery/concurrency/asynpool.py`, `_event_process_exit`, `timers`).
const EXPLANATION: Duration = Duration::from_secs(7);

impl Engine {
    /// Takes a piece of a frame on a pool pipe, read or written by a pool child.
    pub(crate) fn pipe(&mut self, record: &Record<'_>) {
        let header = &record.header;
        // The first bytes tell all that is used.
        if header.at > 0 {
            return;
        }
        let Some(frame) = pool::parse(record.kind == Kind::PipeRead, record.payload) else {
            self.stats.pool_frames_unknown += 1;
            return;
        };
        self.stats.pool_frames += 1;
        let leader = self.processes.leader_of(header.pid);
        if self.process(leader).pool.replace(Pool::Prefork).is_none() {
            self.take_back_starts(leader, Mono(header.exit));
        }
        let (pid, tid) = (header.pid, header.tid);
        match frame {
            PoolFrame::Task(task) => self.assigned(pid, tid, leader, &task, Mono(header.exit)),
            PoolFrame::Ack { job } => {
                if let Some(id) = self.job(pid, job) {
                    // The child goes on as soon as the write returns.
                    self.accepted(id, (pid, tid), Mono(header.exit));
                }
            }
            PoolFrame::Ready { job, outcome } => {
                if let Some(id) = self.job(pid, job) {
                    self.process(pid).job = None;
                    self.ready(id, outcome, Mono(header.enter), Mono(header.exit));
                }
            }
            PoolFrame::Death => self.child_gone(pid, Mono(header.enter)),
            PoolFrame::Up => {}
        }
    }

    /// A worker's pool has proved to be prefork: what seemed to begin with its ack, and no child has, was disposed of by the
    /// main process, unless its frame comes yet.
    fn take_back_starts(&mut self, leader: u32, now: Mono) {
        let by_ack = |a: &Attempt| {
            let begun = a.began.is_some_and(|(_, timing)| timing == Timing::Ack);
            a.leader == leader && a.runner.is_none() && a.start.is_none() && a.end.is_none() && begun
        };
        for id in self.attempts_that(by_ack) {
            if let Some(attempt) = self.attempts.get_mut(&id) {
                attempt.began = None;
            }
            self.set_deadline(id, now + self.config.limits.run_wait);
        }
    }

    /// The attempts of which this is true, oldest first: a replay must say the same in the same order.
    fn attempts_that(&self, is_so: impl Fn(&Attempt) -> bool) -> Vec<AttemptId> {
        let those = self.attempts.iter().filter(|(_, attempt)| is_so(attempt));
        let mut ids: Vec<AttemptId> = those.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// The attempt behind a child's job number.
    fn job(&mut self, pid: u32, job: u32) -> Option<AttemptId> {
        let found = self
            .processes
            .get(pid)
            .and_then(|proc| proc.job)
            .filter(|(number, _)| *number == job);
        self.stats.pool_jobs_unknown += u64::from(found.is_none());
        found.map(|(_, id)| id)
    }

    fn assigned(&mut self, pid: u32, tid: u32, leader: u32, task: &pool::Task<'_>, at: Mono) {
        // A child has one job at a time: whatever it had before ended unseen.
        if let Some((_, old)) = self.process(pid).job.take() {
            self.close(old);
        }
        let retries = task.retries.unwrap_or(0);
        let fits = |a: &Attempt| {
            a.leader == leader
                && a.runner.is_none()
                && a.end.is_none()
                && a.message.retries == retries
                && *a.message.name == *task.name
        };
        // One id may be under way in several messages: the frame says which, and of equal ones the first came first.
        let same = |a: &Attempt| {
            fits(a)
                && task
                    .root_id
                    .is_none_or(|root| a.message.root_id.as_deref() == root)
                && task
                    .parent_id
                    .is_none_or(|parent| a.message.parent_id.as_deref() == parent)
                && a.message.group.as_deref() == task.group
        };
        let found = (self.oldest(task.id, same)).or_else(|| self.oldest(task.id, fits));
        let id = match found {
            Some(id) => id,
            None => self.begin_again(task, leader),
        };
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.runner = Some((pid, tid));
        }
        self.process(pid).job = Some((task.job, id));
        self.set_deadline(id, at + self.config.limits.attempt_age);
    }

    /// A job that fits no delivery: one of which the delivery was missed, or that the main process gives to a second child
    /// because the first died before it was heard to accept.
    fn begin_again(&mut self, task: &pool::Task<'_>, leader: u32) -> AttemptId {
        let retries = task.retries.unwrap_or(0);
        let given = |a: &Attempt| {
            a.leader == leader
                && a.complete
                && a.state == Some(State::Lost)
                && a.message.retries == retries
                && *a.message.name == *task.name
        };
        let first = self.find(task.id, given).and_then(|id| self.attempts.get(&id));
        let Some(first) = first else {
            self.stats.attempts_undelivered += 1;
            let message = message_of(task);
            let id = Arc::clone(&message.id);
            let attempt = Box::new(Attempt::new(message, Arc::default(), leader));
            return self.begin(attempt, &id);
        };
        let again = Box::new(Attempt {
            complete: true,
            server: first.server.clone(),
            delivered: first.delivered,
            ..Attempt::new(first.message.clone(), Arc::clone(&first.destination), leader)
        });
        let tag = (leader, Arc::clone(&first.message.delivery_tag));
        let id = Arc::clone(&first.message.id);
        let id = self.begin(again, &id);
        self.tags.insert(tag, id);
        id
    }

    fn accepted(&mut self, id: AttemptId, runner: (u32, u32), at: Mono) {
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.runner = Some(runner);
            attempt.begins(at, Timing::Pool);
        }
        self.set_deadline(id, at + self.config.limits.attempt_age);
    }

    fn ready(&mut self, id: AttemptId, outcome: Outcome<'_>, at: Mono, now: Mono) {
        let patience = self.config.limits.run_wait;
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        // Its main process took the message and is no more: nobody acks it, and the child will not be there for long.
        let leader = self.processes.get(attempt.leader);
        let orphan = attempt.delivered.is_some() && !leader.is_some_and(|proc| proc.consumes);
        attempt.ends(at, Timing::Pool);
        attempt.state = Some(match outcome {
            Outcome::Success => State::Success,
            Outcome::Raised {
                module: "celery.exceptions",
                class: "Retry",
            } => State::Retry,
            Outcome::Raised {
                module: "celery.exceptions",
                class: "Ignore",
            } => State::Ignored,
            Outcome::Raised {
                module: "celery.exceptions",
                class: "Reject",
            } => State::Rejected,
            Outcome::Raised { .. } => State::Failure,
        });
        if let (Outcome::Raised { module, class }, Some(State::Failure), None) =
            (outcome, attempt.state, &attempt.exception)
            && !class.is_empty()
        {
            let class = if module == "builtins" {
                class.to_owned()
            } else {
                format!("{module}.{class}")
            };
            attempt.exception = Some(Box::new(crate::celery::result::Exception {
                class,
                ..Default::default()
            }));
        }
        if attempt.acked.is_some() || orphan {
            self.close(id)
        } else {
            self.set_deadline(id, now + patience)
        }
    }

    /// A child says that it exits, or has: what it ran ends with it.
    fn child_gone(&mut self, pid: u32, at: Mono) {
        let Some((_, id)) = self.processes.get_mut(pid).and_then(|proc| proc.job.take()) else {
            return;
        };
        if let Some(attempt) = self.attempts.get_mut(&id) {
            if attempt.began.is_none() {
                // Taken from the pipe and not accepted: the main process gives it to another child or puts it back.
                attempt.runner = None;
                return;
            }
            attempt.ends(at, Timing::Pool);
            attempt.state = Some(State::Lost);
            // Its main process may be gone already, and nobody is left to say whose it was.
            attempt.owner = Some(self.processes.identity(attempt.leader, pid));
            self.set_deadline(id, self.now + EXPLANATION);
        }
    }

    /// `status` as `wait` gives it.
    pub(super) fn exited(&mut self, pid: u32, status: u64, at: Mono) {
        self.child_gone(pid, at);
        if self.processes.get(pid).is_some_and(|proc| proc.consumes) {
            self.worker_gone(pid, status, at);
        }
        self.processes.exit(pid);
    }

    fn worker_gone(&mut self, pid: u32, status: u64, at: Mono) {
        // Of a worker's main process: what it held unstarted goes to another worker, what ran in it is lost, and what a
        // child lost will not be explained any more. What a child still runs has its end before it, and what is in a child's
        // pipe the child reads and runs all the same.
        let prefork = self.processes.pool(pid) == Some(Pool::Prefork);
        // A worker that is told to end first ends its tasks. Where no end was ever seen, results are kept where nobody sees them, and
        // this one may have been long ago.
        let tells = status != 0 && self.processes.get(pid).is_some_and(Proc::tells_ends);
        let is_lost = |a: &Attempt| prefork || a.acked.is_none() || (tells && !a.message.ignore_result);
        let over = |a: &Attempt| {
            let in_child = a.runner.is_some_and(|(runner, _)| runner != pid);
            a.leader == pid && (!in_child || a.end.is_some())
        };
        for id in self.attempts_that(over) {
            if let Some(attempt) = self.attempts.get_mut(&id) {
                let told = attempt.state.is_some() || attempt.acked.is_some() || attempt.end.is_some();
                if prefork && attempt.began.is_none() && !told {
                    self.set_deadline(id, at + self.config.limits.run_wait);
                    continue;
                }
                if attempt.began.is_some() && attempt.end.is_none() && is_lost(attempt) {
                    attempt.ends(at, Timing::Pool);
                    attempt.state = Some(State::Lost);
                }
            }
            self.close(id);
        }
    }
}

/// What a TASK frame tells, where the message itself was not seen.
fn message_of(task: &pool::Task<'_>) -> TaskMessage {
    TaskMessage {
        id: Arc::from(task.id),
        name: Arc::from(task.name),
        root_id: task.root_id.flatten().map(Arc::from),
        parent_id: task.parent_id.flatten().map(Arc::from),
        group: task.group.map(Arc::from),
        retries: task.retries.unwrap_or(0),
        replacements: task.replacements.unwrap_or(0),
        rare: Rare {
            eta: task.eta.map(Arc::from),
            expires: task.expires.map(Arc::from),
            ..Rare::default()
        }
        .kept(),
        traceparent: task.traceparent.and_then(TraceParent::parse),
        ..TaskMessage::default()
    }
}

#[cfg(test)]
mod tests;
