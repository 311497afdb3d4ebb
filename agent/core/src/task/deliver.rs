//! What the broker and the result backend tell about attempts.

use std::sync::Arc;

use smallvec::SmallVec;

use super::attempt::{Attempt, AttemptId, State, Timing};
use super::engine::{Engine, KEPT_PER_TASK};
use super::process::Pool;
use super::tags::Tag;
use super::timers::Due;
use crate::broker::Server;
use crate::celery::{ResultMeta, ResultState, TaskMessage, datetime};
use crate::pipeline::Output;
use crate::stream::Call;
use crate::time::Mono;

impl Engine {
    pub(super) fn delivered(
        &mut self,
        server: Option<Server>,
        message: Box<TaskMessage>,
        destination: Arc<str>,
        call: Call,
    ) {
        self.stats.deliveries += 1;
        let leader = self.processes.leader_of(call.pid);
        self.process(leader).consumes = true;
        self.join_group(&message);
        let tag = Arc::clone(&message.delivery_tag);
        // The pool's frame may have come first, where the delivery's record was late.
        let early = self.find(&message.id, |a| {
            a.leader == leader && !a.complete && a.message.retries == message.retries
        });
        let Some(id) = early else {
            let task_id = Arc::clone(&message.id);
            let attempt = Box::new(Attempt {
                complete: true,
                server,
                delivered: Some(call.exit),
                ..Attempt::new(*message, destination, leader)
            });
            let id = self.begin(attempt, &task_id);
            return self.tag(leader, tag, id);
        };
        if let Some(attempt) = self.attempts.get_mut(&id) {
            attempt.message = *message;
            attempt.complete = true;
            attempt.destination = destination;
            attempt.server = server;
            attempt.delivered = Some(call.exit);
        }
        self.tag(leader, tag, id);
        self.weigh(id);
    }

    /// An attempt is under way at this worker under this delivery tag.
    fn tag(&mut self, leader: u32, tag: Arc<str>, id: AttemptId) {
        if !tag.is_empty() {
            self.tags.insert((leader, tag), id);
        }
    }

    pub(super) fn acked(&mut self, tag: &str, call: Call) {
        let leader = self.processes.leader_of(call.pid);
        let attempts = self.of_delivery(leader, tag);
        self.stats.acks_unknown += u64::from(attempts.is_empty());
        for id in attempts {
            self.ack_attempt(id, leader, call);
        }
    }

    /// The attempts at one delivery: more than one where it was given to a second child, its first having died too soon.
    /// The oldest first.
    fn of_delivery(&self, leader: u32, tag: &str) -> SmallVec<[AttemptId; 2]> {
        let Some(&last) = self.tags.get(&(leader, tag) as &dyn Tag) else {
            return SmallVec::new();
        };
        let same = |id: &AttemptId| {
            (self.attempts.get(id))
                .is_some_and(|a| *id != last && a.leader == leader && *a.message.delivery_tag == *tag)
        };
        let task = (self.attempts.get(&last)).and_then(|a| self.tasks.get(&*a.message.id));
        let earlier = task
            .into_iter()
            .flat_map(|task| task.attempts.iter().copied().filter(same));
        earlier.chain([last]).collect()
    }

    fn ack_attempt(&mut self, id: AttemptId, leader: u32, call: Call) {
        let pool = self.processes.pool(leader);
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        attempt.acked = Some(call.exit);
        if attempt.state == Some(State::Lost) {
            // The main process has yet to say why its child is gone.
            return;
        }
        let disposed_of = attempt.began.is_none() && attempt.stored.is_some();
        if attempt.end.is_some() || disposed_of {
            self.complete(id, call.exit);
            return;
        }
        let look_again = match pool {
            // Written when the main process has read the child's word, which counts for more where it was seen.
            Some(Pool::Prefork) => {
                if attempt.runner.is_some() {
                    attempt.begins(call.enter, Timing::Ack);
                }
                attempt.began.is_none()
            }
            // One task at a time in the loop that also writes acks: it is over.
            Some(Pool::Solo) => {
                attempt.ends(call.enter, Timing::Ack);
                self.begin_unseen(id, call);
                self.complete(id, call.exit);
                return;
            }
            // Early: the task was handed to a thread or greenlet.
            Some(Pool::Threads | Pool::Gevent | Pool::Eventlet) | None => {
                attempt.begins(call.enter, Timing::Ack);
                attempt.message.ignore_result
            }
        };
        if look_again {
            self.set_deadline(id, call.exit + self.config.limits.run_wait);
        }
    }

    /// Back in its queue: an attempt that never began was none.
    pub(super) fn requeued(&mut self, tag: &str, call: Call) {
        let leader = self.processes.leader_of(call.pid);
        let attempts = self.of_delivery(leader, tag);
        self.stats.requeues += u64::from(!attempts.is_empty());
        // One that still runs (cold shutdown, connection lost), or that a child has been given, has its end before it. The others must not be there any more when the message
        // comes back: kombu gives it the same tag.
        let over = |a: &Attempt| (a.began.is_none() && a.runner.is_none()) || a.end.is_some();
        for id in attempts {
            if self.attempts.get(&id).is_some_and(|a| over(a)) {
                self.close(id);
            }
        }
    }

    pub(super) fn result(&mut self, task_id: &str, meta: ResultMeta, first: Mono, call: Call) {
        self.stats.results += 1;
        let leader = self.processes.leader_of(call.pid);
        let own = self.processes.get(call.pid).and_then(|proc| proc.job);
        let by_job = own
            .map(|(_, id)| id)
            .filter(|id| self.attempts.get(id).is_some_and(|a| *a.message.id == *task_id));
        let Some(id) = by_job.or_else(|| self.stored_by(task_id, meta.state, leader, call)) else {
            self.stats.results_unknown += 1;
            return;
        };
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        let state = match meta.state {
            ResultState::Started => {
                attempt.runner = Some((call.pid, call.tid));
                attempt.begins(first, Timing::Result);
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
        if meta.exception.is_some() {
            attempt.exception = meta.exception.map(Box::new);
        }
        // A child's own account comes with its READY frame.
        if by_job.is_none() {
            attempt.stored = Some(state);
        }
        attempt.weigh(&mut self.message_bytes);
        self.limit_messages();
        if by_job.is_none() {
            self.stored(id, leader, state, call);
        }
    }

    /// A final result that no frame of the pool goes with: of a task that ran where there are no pipes, or whose frames
    /// were lost, or that the main process disposed of.
    fn stored(&mut self, id: AttemptId, leader: u32, state: State, call: Call) {
        let prefork = self.processes.pool(leader) == Some(Pool::Prefork);
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        if attempt.runner.is_some() && prefork {
            // It runs in a child, whose end is still to be seen; this says why it ends.
            return;
        }
        attempt.state = Some(state);
        attempt.ends(call.enter, Timing::Result);
        let ran_here = !prefork && state != State::Revoked;
        let acked = attempt.acked.is_some();
        if attempt.began.is_some() || call.pid != leader || ran_here {
            self.begin_unseen(id, call);
        }
        if ran_here {
            let evicted = self.process(leader).ended(call.tid, call.enter);
            self.stats.threads_evicted += u64::from(evicted);
        }
        if acked {
            self.complete(id, call.exit);
        } else {
            self.set_deadline(id, call.exit + self.config.limits.run_wait);
        }
    }

    /// An attempt shows by `call` that it has begun: by its early ack if there was one, else with its delivery or, where
    /// that is later, when it was due, or when the thread that runs it had ended what it ran before.
    pub(super) fn begin_unseen(&mut self, id: AttemptId, call: Call) {
        let clock = self.clock;
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        attempt.runner.get_or_insert((call.pid, call.tid));
        let delivered = attempt.delivered.unwrap_or(call.enter);
        let eta = attempt.message.rare().eta.as_deref().and_then(datetime::parse);
        let due = eta.map_or(delivered, |eta| delivered.max(clock.mono_of(eta)));
        // Greenlets of one thread run at the same time.
        let idle = self
            .processes
            .get(attempt.leader)
            .filter(|proc| matches!(proc.pool, Some(Pool::Solo | Pool::Threads)))
            .map_or(due, |proc| due.max(proc.idle_since(call.tid)));
        attempt.begins(idle.min(call.enter), Timing::Estimate);
    }

    /// End and ack are known. Workers that send events have more to say of tasks that no pipe shows.
    pub(super) fn complete(&mut self, id: AttemptId, now: Mono) {
        let Some(attempt) = self.attempts.get(&id) else {
            return;
        };
        let (end, leader) = (attempt.end, attempt.leader);
        if let (Some(end), Some((_, tid))) = (end, attempt.runner)
            && let Some(proc) = self.processes.get_mut(leader)
            && proc.pool == Some(Pool::Solo)
            && proc.idle_since(tid) < end.at
        {
            self.stats.threads_evicted += u64::from(proc.ended(tid, end.at));
        }
        let events = self
            .processes
            .get(leader)
            .is_some_and(|proc| proc.events && proc.pool != Some(Pool::Prefork));
        if events && end.is_some_and(|end| end.timing > Timing::Event) {
            self.set_deadline(id, now + self.config.limits.run_wait);
        } else {
            self.close(id);
        }
    }

    /// The attempt that a result of this call is about, where no pool's frame says so.
    fn stored_by(&self, task_id: &str, state: ResultState, leader: u32, call: Call) -> Option<AttemptId> {
        let threads = self.processes.pool(leader) == Some(Pool::Threads);
        let lost = |attempt: &Attempt| attempt.state == Some(State::Lost) && attempt.stored.is_none();
        // A thread stores the results of what it ran.
        let elsewhere = |attempt: &Attempt| threads && attempt.runner.is_some_and(|(_, tid)| tid != call.tid);
        let id = self.told_by(task_id, state == ResultState::Retry, |attempt| {
            attempt.leader == leader && (attempt.end.is_none() || lost(attempt)) && !elsewhere(attempt)
        })?;
        let told = self.attempts.get(&id)?;
        if !lost(told) {
            return Some(id);
        }
        // The pool hands a job on when a child dies before its ACK frame is read; the failure stored in the end is of the
        // last child that had the job.
        self.find(task_id, |attempt| {
            lost(attempt)
                && attempt.leader == leader
                && attempt.message.delivery_tag == told.message.delivery_tag
        })
    }

    /// The attempt of those open that something told of the task is about: the oldest. A retry may be delivered, and over,
    /// while the attempt that asked for it still has to say so: that one has been published again, and no other asked for a
    /// retry.
    pub(super) fn told_by(
        &self,
        task_id: &str,
        retry: bool,
        open: impl Fn(&Attempt) -> bool,
    ) -> Option<AttemptId> {
        let published = self.tasks.get(task_id)?.publishes.iter().map(|p| p.retries).max();
        let retried = |attempt: &Attempt| Some(attempt.message.retries) < published;
        let fitting = self.oldest(task_id, |attempt| open(attempt) && retried(attempt) == retry);
        // `Task.retry(throw=False)` publishes, and the task goes on.
        fitting.or_else(|| self.oldest(task_id, |attempt| open(attempt) && !retry))
    }

    /// The oldest open attempt of a task that fits.
    pub(super) fn oldest(&self, task_id: &str, fits: impl Fn(&Attempt) -> bool) -> Option<AttemptId> {
        let mut ids = self.tasks.get(task_id)?.attempts.iter().copied();
        ids.find(|id| self.attempts.get(id).is_some_and(|attempt| fits(attempt)))
    }

    pub(super) fn consumer(&mut self, pid: u32) {
        let leader = self.processes.leader_of(pid);
        let proc = self.process(leader);
        if !std::mem::replace(&mut proc.reported, true) {
            self.say(Output::Worker { pid: leader });
        }
    }

    /// A new attempt of `task_id`.
    pub(super) fn begin(&mut self, mut attempt: Box<Attempt>, task_id: &Arc<str>) -> AttemptId {
        let id = self.next_id();
        self.stats.attempts += 1;
        attempt.deadline = self.now + self.config.limits.attempt_age;
        if attempt.deadline < attempt.timer {
            attempt.timer = attempt.deadline;
            self.timers.insert(attempt.timer, Due::Attempt(id));
        }
        attempt.weigh(&mut self.message_bytes);
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
        self.limit_messages();
        id
    }

    /// The youngest open attempt of a task that fits.
    pub(super) fn find(&self, task_id: &str, fits: impl Fn(&Attempt) -> bool) -> Option<AttemptId> {
        let task = self.tasks.get(task_id)?;
        task.attempts
            .iter()
            .rev()
            .copied()
            .find(|id| self.attempts.get(id).is_some_and(|attempt| fits(attempt)))
    }
}
