//! How an attempt leaves the tables: as a span, or, when it never was one, without.

use std::sync::Arc;
use std::time::Duration;

use super::attempt::{Attempt, AttemptId, State};
use super::engine::{Engine, Known, Task};
use super::process::Pool;
use super::tags::Tag;
use super::timers::Due;
use crate::celery::{TaskMessage, datetime};
use crate::span::build::{self, RunFacts};
use crate::span::{Process, SpanId, TraceId, host_of};
use crate::time::Mono;

/// How much later than a message's arrival its publish may be told of.
const PUBLISH_LATE: Duration = Duration::from_millis(250);

/// When a message was sent, its span and, where it is sure to be the same, its trace.
type Published = (Mono, (SpanId, Option<TraceId>));

impl Engine {
    /// An attempt's timer has gone off.
    pub(super) fn attempt_due(&mut self, id: AttemptId, at: Mono) {
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        if attempt.deadline <= at {
            self.close(id);
        } else {
            attempt.timer = attempt.deadline;
            let deadline = attempt.deadline;
            self.timers.insert(deadline, Due::Attempt(id));
        }
    }

    /// Puts an attempt out with what is known and forgets it.
    pub(super) fn close(&mut self, id: AttemptId) {
        if let Some(attempt) = self.attempts.remove(&id) {
            self.put_run(id, attempt);
        }
    }

    /// Puts out an attempt that is no longer in the table.
    pub(super) fn put_run(&mut self, id: AttemptId, mut attempt: Box<Attempt>) {
        self.timers.remove(attempt.timer, Due::Attempt(id));
        self.message_bytes = self.message_bytes.saturating_sub(attempt.weight);
        let published = self.forget(id, &attempt);
        if attempt.state == Some(State::Lost) {
            explain(&mut attempt);
        }
        // Delivered, and neither begun nor disposed of: it went elsewhere and was no attempt here.
        if attempt.began.is_none() && attempt.state.is_none() && attempt.acked.is_none() {
            self.stats.attempts_unstarted += 1;
            return;
        }
        let leader = attempt.leader;
        // A child outlives its main process, and remembers whose it was.
        let runner = attempt.runner.map_or(leader, |(pid, _)| pid);
        let process = match attempt.owner.take() {
            Some(owner) => owner,
            None => self.processes.identity(leader, runner),
        };
        attempt.settle_start(&self.clock, host_of(&process));
        let facts = RunFacts {
            worker_name: self
                .processes
                .worker_name(leader)
                .or_else(|| named_at_start(&process)),
            // Only prefork runs tasks in other processes: known of a worker that is gone, too.
            pool: (self.processes.pool(leader))
                .or_else(|| (runner != leader).then_some(Pool::Prefork))
                .map(Pool::as_str),
            process,
            clock: self.clock,
            now: self.now,
            attempt,
        };
        let came = facts.attempt.delivered.or(facts.attempt.began.map(|(at, _)| at));
        let due = came.map_or(self.now, |came| came + PUBLISH_LATE);
        if published.is_some() || due <= self.now {
            self.put_span(facts, published);
        } else {
            self.wait_for_publish(id, due, facts);
        }
    }

    /// A process that is moved aside while it sends may be told of later than a quick run of what it sent.
    fn wait_for_publish(&mut self, id: AttemptId, due: Mono, mut facts: RunFacts) {
        facts.attempt.deadline = due;
        self.message_bytes = self.message_bytes.saturating_add(facts.attempt.weight);
        self.timers.insert(due, Due::Run(id));
        if let Some((old, evicted)) = self.runs.insert(id, facts) {
            self.evict_run(old, evicted);
        }
    }

    /// Puts out a run that had to make room.
    pub(super) fn evict_run(&mut self, id: AttemptId, facts: RunFacts) {
        self.stats.runs_evicted += 1;
        self.put_waiting(id, facts);
    }

    /// A run has waited for its publish for long enough.
    pub(super) fn run_due(&mut self, id: AttemptId) {
        if let Some(facts) = self.runs.remove(&id) {
            self.put_waiting(id, facts);
        }
    }

    fn put_waiting(&mut self, id: AttemptId, facts: RunFacts) {
        self.timers.remove(facts.attempt.deadline, Due::Run(id));
        self.message_bytes = self.message_bytes.saturating_sub(facts.attempt.weight);
        let message = &facts.attempt.message;
        let task = self.tasks.get(&*message.id);
        let published = task.and_then(|task| published_at(task, message));
        self.put_span(facts, published);
    }

    fn put_span(&mut self, facts: RunFacts, published: Option<Published>) {
        let eta = facts.attempt.message.rare().eta.as_deref();
        let eta = eta.and_then(datetime::parse).map(|t| facts.clock.mono_of(t));
        self.stats.runs += 1;
        self.stats.runs_without_end += u64::from(facts.attempt.end.is_none());
        let (sent, publish) = published.unzip();
        let span = build::run(facts, sent.max(eta), publish, &self.config);
        self.put(span);
    }

    /// Nothing refers to it any more. Tells of its publish, as long as its task is at hand.
    fn forget(&mut self, id: AttemptId, attempt: &Attempt) -> Option<Published> {
        let mut published = None;
        if let Some(task) = self.tasks.get_mut(&*attempt.message.id) {
            task.attempts.retain(|other| *other != id);
            published = published_at(task, &attempt.message);
        }
        let tag: &dyn Tag = &(attempt.leader, &*attempt.message.delivery_tag);
        if self.tags.get(tag) == Some(&id) {
            self.tags.remove(tag);
        }
        if let Some((runner, _)) = attempt.runner
            && let Some(proc) = self.processes.get_mut(runner)
            && proc.job.is_some_and(|(_, job)| job == id)
        {
            proc.job = None;
        }
        published
    }
}

/// When this very message of a task was sent, if that was seen, and the span of that.
fn published_at(task: &Task, message: &TaskMessage) -> Option<Published> {
    let of = |p: &&Known| p.is_of(message);
    task.publishes.iter().rev().find(of).map(|p| {
        let trace_id = (p.is_root && build::is_root(message)).then_some(p.trace_id);
        (p.sent, (p.span_id, trace_id))
    })
}

/// The worker's name as its command line has it (`-n name@host`).
fn named_at_start(process: &Process) -> Option<Arc<str>> {
    let (_, name) = process
        .resource
        .iter()
        .find(|(key, _)| key == "service.instance.id")?;
    name.contains('@').then(|| Arc::from(name.as_str()))
}

/// A child went away in mid-run; what the main process stored then says whether that was meant.
fn explain(attempt: &mut Attempt) {
    let worker_lost = attempt
        .exception
        .as_ref()
        .is_some_and(|exception| exception.class.ends_with("WorkerLostError"));
    match attempt.stored {
        Some(State::Revoked) => attempt.state = Some(State::Revoked),
        Some(State::Failure) if !worker_lost => attempt.state = Some(State::Failure),
        _ => {}
    }
}
