//! The tables, and the one place where evidence meets them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use celeryscope_common::Record;
use smallvec::SmallVec;

use super::attempt::{Attempt, AttemptId};
use super::names::Names;
use super::process::Processes;
use super::publish::Publish;
use super::tags::Tag;
use super::timers::{Due, Timers};
use crate::bounded::Bounded;
use crate::broker::{BrokerEvent, Server};
use crate::celery::TaskMessage;
use crate::held::Held;
use crate::pipeline::{Config, Output};
use crate::span::build::{self, RunFacts};
use crate::span::{Link, Span, SpanId, TraceId, host_of};
use crate::stats::Stats;
use crate::time::{ClockPair, Mono};

/// What is remembered of a task id: its publishes and the attempts that are going on.
///
/// More than one of each are rare, and there is one of these for each task remembered.
#[derive(Debug, Default)]
pub(super) struct Task {
    /// Youngest last; at most [`KEPT_PER_TASK`].
    pub(super) publishes: SmallVec<[Known; 1]>,
    /// Attempts that are not put out yet; at most [`KEPT_PER_TASK`].
    pub(super) attempts: SmallVec<[AttemptId; 2]>,
}

/// A publish that was seen.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) name: Arc<str>,
    pub(super) retries: u32,
    pub(super) replacements: u32,
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) sent: Mono,
    /// The message's tag, where the sender gives it one (Redis).
    pub(super) tag: Arc<str>,
    /// The trace is a function of the task's own id.
    pub(super) is_root: bool,
}

impl Known {
    /// Is it the publish of this message of its task, or of a copy?
    pub(super) fn is_of(&self, message: &TaskMessage) -> bool {
        self.retries == message.retries
            && self.name == message.name
            && self.replacements == message.replacements
    }
}

/// Tasks remembered of one group: what a span can link to.
pub(super) const KEPT_PER_GROUP: usize = 128;

/// Publishes and attempts remembered of one task id (a broadcast has an attempt per worker, a retry a publish each).
pub(super) const KEPT_PER_TASK: usize = 64;

/// Longest task id, task name, delivery tag or group id. Celery's are a few dozen bytes.
const LONGEST_NAME: usize = 1024;

/// The task model.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(super) config: Arc<Config>,
    pub(super) clock: ClockPair,
    pub(super) now: Mono,
    pub(super) processes: Processes,
    pub(super) tasks: Bounded<Arc<str>, Task>,
    pub(super) attempts: Bounded<AttemptId, Box<Attempt>>,
    /// Over, and put out when their publish has had the time to be seen.
    pub(super) runs: Bounded<AttemptId, RunFacts>,
    /// Delivered and not yet put out, by worker and delivery tag.
    pub(super) tags: Bounded<(u32, Arc<str>), AttemptId>,
    /// Publish spans of the tasks of each group, for the links of a chord's callback.
    pub(super) groups: Bounded<Arc<str>, Vec<Link>>,
    /// Publishes that wait for the broker's answer, by number.
    pub(super) publishes: Bounded<u64, Box<Publish>>,
    /// Their numbers, by connection and token.
    pub(super) tokens: Bounded<(u64, u64), u64>,
    names: RefCell<Names>,
    pub(super) last_id: u64,
    /// Bytes behind the messages of attempts and publishes.
    pub(super) message_bytes: u64,
    pub(super) timers: Timers,
    pub(super) stats: Stats,
    out: VecDeque<Output>,
}

impl Engine {
    pub(crate) fn new(config: Arc<Config>) -> Self {
        let limits = &config.limits;
        Self {
            clock: ClockPair::default(),
            now: Mono::default(),
            processes: Processes::new(limits.processes),
            tasks: Bounded::new(limits.tasks),
            attempts: Bounded::new(limits.tasks),
            runs: Bounded::new(limits.tasks),
            tags: Bounded::new(limits.tasks),
            groups: Bounded::new(limits.groups),
            publishes: Bounded::new(limits.tasks),
            tokens: Bounded::new(limits.tasks),
            names: RefCell::default(),
            last_id: 0,
            message_bytes: 0,
            timers: Timers::default(),
            stats: Stats::default(),
            out: VecDeque::new(),
            config,
        }
    }

    /// What is held now, of tasks and processes.
    pub(crate) fn held(&self) -> Held {
        let limits = &self.config.limits;
        let (processes, forks) = self.processes.held();
        Held {
            attempts_held: self.attempts.len() as u64,
            attempts_limit: limits.tasks as u64,
            runs_held: self.runs.len() as u64,
            runs_limit: limits.tasks as u64,
            publishes_held: self.publishes.len() as u64,
            publishes_limit: limits.tasks as u64,
            message_bytes_held: self.message_bytes,
            message_bytes_limit: limits.message_bytes,
            tasks_held: self.tasks.len() as u64,
            tasks_limit: limits.tasks as u64,
            groups_held: self.groups.len() as u64,
            groups_limit: limits.groups as u64,
            processes_held: processes as u64,
            processes_limit: limits.processes as u64,
            forks_held: forks as u64,
            timers_held: self.timers.len() as u64,
            ..Held::default()
        }
    }

    /// Whether a message with this delivery tag is known to be at this process's worker.
    pub(crate) fn knows_tag(&self, pid: u32, tag: &str) -> bool {
        let tag: &dyn Tag = &(self.processes.leader_of(pid), tag);
        self.tags.contains(tag)
    }

    /// The text, shared with the messages that had it before.
    pub(crate) fn share(&self, text: &str) -> Arc<str> {
        self.names.borrow_mut().of(text)
    }

    /// Takes what a broker connection to `server` told.
    pub(crate) fn broker(&mut self, conn: u64, server: Option<&Server>, event: BrokerEvent) {
        match event {
            BrokerEvent::Publish {
                token,
                message,
                destination,
                first,
                call,
            } if self.believable(&message) => {
                self.published((conn, token), server.cloned(), message, destination, first, call);
            }
            BrokerEvent::Answered { token, at } => self.publish_ended((conn, token), Some(at)),
            BrokerEvent::Unanswered { token } => self.publish_ended((conn, token), None),
            BrokerEvent::Delivered {
                message,
                destination,
                call,
            } if self.believable(&message) => {
                self.delivered(server.cloned(), message, destination, call);
            }
            BrokerEvent::Publish { .. } | BrokerEvent::Delivered { .. } => {}
            BrokerEvent::Acked { tag, call } => self.acked(&tag, call),
            BrokerEvent::Requeued { tag, call } => self.requeued(&tag, call),
            BrokerEvent::Result {
                task_id,
                meta,
                first,
                call,
            } => self.result(&task_id, *meta, first, call),
            BrokerEvent::Told { events, call } => self.told(&events, call),
            BrokerEvent::ChordComplete { group, call } => {
                self.process(call.pid).chord = Some(group);
            }
            BrokerEvent::Consumer { call } => self.consumer(call.pid),
            BrokerEvent::WorkerName { name, call } => {
                let leader = self.processes.leader_of(call.pid);
                self.process(leader).worker_name = Some(Arc::from(name));
            }
        }
    }

    /// Takes a record about a process.
    pub(crate) fn process_record(&mut self, record: &Record<'_>) {
        use celeryscope_common::Kind;
        let pid = record.header.pid;
        match record.kind {
            Kind::Process => self.stats.processes_evicted += u64::from(self.processes.describe(record)),
            Kind::Fork => {
                if let Ok(child) = u32::try_from(record.header.conn) {
                    self.stats.forks_evicted += u64::from(self.processes.fork(pid, child));
                }
            }
            Kind::Exec => self.processes.exec(pid),
            Kind::Exit => self.exited(pid, record.header.conn, Mono(record.header.exit)),
            _ => {}
        }
    }

    /// Sets the pair of clocks by which spans get their wall times.
    pub(crate) fn set_clock(&mut self, pair: ClockPair) {
        self.clock = pair;
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, now: Mono) {
        self.now = self.now.max(now);
        while let Some((at, due)) = self.timers.pop(self.now) {
            match due {
                Due::Publish(id) => self.publish_due(id),
                Due::Attempt(id) => self.attempt_due(id, at),
                Due::Run(id) => self.run_due(id),
            }
        }
    }

    /// The input has ended: everything that can be put out is.
    pub(crate) fn finish(&mut self) {
        for id in self.publishes.keys_by_age() {
            self.publish_due(id);
        }
        for id in self.attempts.keys_by_age() {
            self.close(id);
        }
        for id in self.runs.keys_by_age() {
            self.run_due(id);
        }
        self.timers.clear();
    }

    pub(crate) fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The process's entry, made if there is none.
    pub(super) fn process(&mut self, pid: u32) -> &mut super::process::Proc {
        let (proc, evicted) = self.processes.entry(pid);
        self.stats.processes_evicted += u64::from(evicted);
        proc
    }

    pub(super) fn task(&mut self, id: &Arc<str>) -> &mut Task {
        let (task, evicted) = self.tasks.get_or_insert_with(Arc::clone(id), Task::default);
        self.stats.tasks_evicted += u64::from(evicted.is_some());
        task
    }

    /// Settles when an attempt began: another span is about to name it.
    pub(super) fn settle_start(&mut self, id: AttemptId) {
        if let Some(attempt) = self.attempts.get_mut(&id) {
            let process = self.processes.identity(attempt.leader, attempt.leader);
            attempt.settle_start(&self.clock, host_of(&process));
        }
    }

    /// Remembers a message as one of its group.
    pub(super) fn join_group(&mut self, message: &TaskMessage) {
        let Some(group) = &message.group else { return };
        let link = Link {
            trace_id: build::trace_of(message),
            span_id: build::publish_of(message),
        };
        let (links, evicted) = self.groups.get_or_insert_with(Arc::clone(group), Vec::new);
        self.stats.groups_evicted += u64::from(evicted.is_some());
        if links.contains(&link) {
            return;
        }
        if links.len() < KEPT_PER_GROUP {
            links.push(link);
        } else {
            self.stats.group_links_dropped += 1;
        }
    }

    /// Whether a message's names are of a length that can be remembered by the thousand. Counted where not.
    fn believable(&mut self, message: &TaskMessage) -> bool {
        let texts = [&message.id, &message.name, &message.delivery_tag];
        let group = message.group.as_ref().map_or(0, |group| group.len());
        let believable = group <= LONGEST_NAME && texts.iter().all(|text| text.len() <= LONGEST_NAME);
        self.stats.messages_malformed += u64::from(!believable);
        believable
    }

    /// An attempt's message has changed: weighs it, and makes room where all weigh too much.
    pub(super) fn weigh(&mut self, id: AttemptId) {
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.weigh(&mut self.message_bytes);
            self.limit_messages();
        }
    }

    /// Runs that are over first, then publishes: all that they lose is the time of their publish, or of the broker's answer.
    /// Of the others the youngest stays: it is being dealt with.
    pub(super) fn limit_messages(&mut self) {
        while self.message_bytes > self.config.limits.message_bytes {
            if let Some((old, facts)) = self.runs.pop_oldest() {
                self.evict_run(old, facts);
            } else if self.publishes.len() > 1 {
                if let Some((old, publish)) = self.publishes.pop_oldest() {
                    self.evict_publish(old, *publish);
                }
            } else if self.attempts.len() > 1 {
                if let Some((old, attempt)) = self.attempts.pop_oldest() {
                    self.stats.attempts_evicted += 1;
                    self.put_run(old, attempt);
                }
            } else {
                return;
            }
        }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Sets when an attempt is looked at again.
    pub(super) fn set_deadline(&mut self, id: AttemptId, at: Mono) {
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        attempt.deadline = at;
        // A timer that goes off too early is set anew then: nearly all attempts are over before.
        if at < attempt.timer {
            self.timers.remove(attempt.timer, Due::Attempt(id));
            attempt.timer = at;
            self.timers.insert(at, Due::Attempt(id));
        }
    }

    pub(super) fn put(&mut self, span: Box<Span>) {
        self.stats.spans += 1;
        self.out.push_back(Output::Span(span));
    }

    pub(crate) fn say(&mut self, output: Output) {
        self.out.push_back(output);
    }
}
