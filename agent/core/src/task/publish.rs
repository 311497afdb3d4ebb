//! Publishes: who sent a message, in which trace, under which parent.

use std::sync::Arc;

use super::attempt::{Attempt, AttemptId};
use super::engine::{Engine, KEPT_PER_TASK, Known};
use super::timers::Due;
use crate::broker::Server;
use crate::celery::TaskMessage;
use crate::span::build::{self, PublishFacts};
use crate::span::{Link, Relation, SpanId, TraceId, ids};
use crate::stream::Call;
use crate::time::Mono;

/// A publish that waits for the broker's answer.
#[derive(Debug)]
pub(super) struct Publish {
    facts: PublishFacts,
    key: (u64, u64),
    due: Mono,
    weight: u64,
}

impl Engine {
    pub(super) fn published(
        &mut self,
        key: (u64, u64),
        server: Option<Server>,
        message: Box<TaskMessage>,
        destination: Arc<str>,
        first: Mono,
        call: Call,
    ) {
        if self.is_a_copy(&message) {
            self.stats.publishes_copied += 1;
            return;
        }
        self.stats.publishes += 1;
        let running = self.running_for(call.pid, &message);
        if let Some(id) = running {
            self.begin_unseen(id, Call { enter: first, ..call });
            self.settle_start(id);
        }
        let (trace_id, span_id) = (build::trace_of(&message), build::publish_of(&message));
        let (parent, mut links) = self.parent_of_publish(&message, trace_id, running);
        self.link_chord(call.pid, &message, running, &mut links);
        self.join_group(&message);
        let known = Known {
            name: message.name.clone(),
            retries: message.retries,
            replacements: message.replacements,
            trace_id,
            span_id,
            sent: call.enter,
            tag: Arc::clone(&message.delivery_tag),
            is_root: build::is_root(&message),
        };
        let task = self.task(&message.id);
        let full = task.publishes.len() == KEPT_PER_TASK;
        if full {
            task.publishes.remove(0);
        }
        task.publishes.push(known);
        self.stats.publishes_forgotten += u64::from(full);
        let weight = message.weight();
        let leader = self.processes.leader_of(call.pid);
        let process = self.processes.identity(leader, call.pid);
        let id = self.next_id();
        let due = call.exit + self.config.limits.publish_wait;
        self.timers.insert(due, Due::Publish(id));
        self.tokens.insert(key, id);
        // Put together where it stays.
        let publish = Box::new(Publish {
            facts: PublishFacts {
                trace_id,
                span_id,
                message,
                destination,
                server,
                parent,
                links,
                start: self.clock.wall_of(first),
                first,
                call,
                process,
            },
            key,
            due,
            weight,
        });
        self.message_bytes = self.message_bytes.saturating_add(weight);
        if let Some((old, publish)) = self.publishes.insert(id, publish) {
            self.evict_publish(old, *publish);
        }
        self.limit_messages();
    }

    /// Is it what was sent last of this task, in a further queue? A direct or topic exchange of Redis puts one message, with one tag, into all
    /// that are bound to it (`kombu/transport/virtual/exchange.py`).
    fn is_a_copy(&self, message: &TaskMessage) -> bool {
        let last = self
            .tasks
            .get(&*message.id)
            .and_then(|task| task.publishes.last());
        last.is_some_and(|last| {
            !message.delivery_tag.is_empty() && last.tag == message.delivery_tag && last.is_of(message)
        })
    }

    /// Puts out a publish that had to make room.
    pub(super) fn evict_publish(&mut self, id: u64, publish: Publish) {
        self.stats.publishes_evicted += 1;
        self.tokens.remove(&publish.key);
        self.put_publish(id, publish, None);
    }

    pub(super) fn publish_ended(&mut self, key: (u64, u64), answered: Option<Mono>) {
        let Some(id) = self.tokens.remove(&key) else {
            return;
        };
        if let Some(publish) = self.publishes.remove(&id) {
            self.put_publish(id, *publish, answered);
        }
    }

    pub(super) fn publish_due(&mut self, id: u64) {
        if let Some(publish) = self.publishes.remove(&id) {
            self.tokens.remove(&publish.key);
            self.put_publish(id, *publish, None);
        }
    }

    fn put_publish(&mut self, id: u64, publish: Publish, answered: Option<Mono>) {
        self.timers.remove(publish.due, Due::Publish(id));
        self.message_bytes = self.message_bytes.saturating_sub(publish.weight);
        self.stats.publishes_unanswered += u64::from(answered.is_none());
        let span = build::publish(publish.facts, answered, &self.config);
        self.put(span);
    }

    /// Links a chord's callback to all tasks of its header: whose run happens to send it is an accident of timing.
    fn link_chord(
        &mut self,
        pid: u32,
        message: &TaskMessage,
        running: Option<AttemptId>,
        links: &mut Vec<Link>,
    ) {
        let sender = running.and_then(|id| self.attempts.get(&id));
        // Where the result backend cannot count, a task polls, and sends either itself again or the callback.
        let polled = sender
            .filter(|sender| sender.message.id != message.id)
            .and_then(|sender| sender.message.rare().unlocks.as_deref());
        let fetched = self.processes.get_mut(pid).and_then(|proc| proc.chord.take());
        let Some(group) = fetched.as_deref().or(polled) else {
            return;
        };
        // Protocol 1 names no parent.
        let child = |sender: &Attempt| {
            message.root_id.is_none()
                || message.parent_id.as_ref() == Some(&sender.message.id)
                || (fetched.is_some() && in_one_workflow(message, &sender.message))
        };
        if sender.is_some_and(|sender| child(sender)) {
            links.extend(self.groups.get(group).into_iter().flatten());
        }
    }

    /// The attempt during which `pid` sent this message: of the task that the message names as its parent, or of the
    /// message's own id (a retry, a replacement).
    fn running_for(&self, pid: u32, message: &TaskMessage) -> Option<AttemptId> {
        // Protocol 1 names no parent; in a pool child there is but one that it can be.
        let nameless = message.root_id.is_none();
        let wanted = |id: &str| nameless || *id == *message.id || message.parent_id.as_deref() == Some(id);
        if let Some(proc) = self.processes.get(pid)
            && let Some((_, id)) = proc.job
        {
            let attempt = self.attempts.get(&id)?;
            // Before 5.7 the callback of a chord within a chain names the chain's task before the chord.
            let callback = proc.chord.is_some() && in_one_workflow(message, &attempt.message);
            return (attempt.began.is_some() && (callback || wanted(&attempt.message.id))).then_some(id);
        }
        // Threads and greenlets: no job is tied to the process, but the task says who it is.
        let leader = self.processes.leader_of(pid);
        let open = |task_id: &str, before: u32| {
            self.find(task_id, |a| {
                a.leader == leader && a.end.is_none() && a.message.retries < before
            })
        };
        open(&message.id, message.retries).or_else(|| open(message.parent_id.as_deref()?, u32::MAX))
    }

    /// Parent and links of a publish (design §6).
    fn parent_of_publish(
        &self,
        message: &TaskMessage,
        trace_id: TraceId,
        running: Option<AttemptId>,
    ) -> (Option<SpanId>, Vec<Link>) {
        let mut links = Vec::new();
        let running = running.and_then(|id| self.attempts.get(&id));
        let again = running.filter(|run| run.message.id == message.id);
        // Nobody renewed the context: it came through the retry as it was.
        let stale = again.is_some_and(|run| run.message.traceparent == message.traceparent);
        let mut parent = message
            .traceparent
            .filter(|_| !stale)
            .map(|context| context.span_id);
        if let (None, Some(run)) = (parent, running)
            && let Some(start) = &run.start
        {
            let run_trace = match self.config.relation {
                Relation::Parent => build::trace_of(&run.message),
                Relation::Link => start.own_trace,
            };
            if run_trace == trace_id {
                parent = Some(start.span_id);
            } else {
                // A parent must be in the same trace.
                links.push(Link {
                    trace_id: run_trace,
                    span_id: start.span_id,
                });
            }
        }
        if message.retries > 0 {
            let first = self
                .tasks
                .get(&*message.id)
                .and_then(|t| t.publishes.first())
                .filter(|p| p.retries == 0);
            let (name, replacements) = first.map_or((&*message.name, message.replacements), |p| {
                (&*p.name, p.replacements)
            });
            // A tracer in the worker gives each retry a context of its own.
            let sender = again
                .filter(|run| run.message.retries == 0)
                .map(|run| build::trace_of(&run.message));
            links.push(Link {
                trace_id: first.map(|p| p.trace_id).or(sender).unwrap_or(trace_id),
                span_id: ids::publish_span_id(&message.id, 0, name, replacements),
            });
        }
        (parent, links)
    }
}

/// Have both come of the same first task?
fn in_one_workflow(message: &TaskMessage, other: &TaskMessage) -> bool {
    message.root_id.is_some() && message.root_id == other.root_id
}
