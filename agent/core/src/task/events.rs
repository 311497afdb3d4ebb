//! What workers themselves tell of their tasks (`-E`): evidence where no pool pipe is to be had.

use super::attempt::{Attempt, State, Timing};
use super::engine::Engine;
use super::process::Pool;
use crate::celery::result::Exception;
use crate::celery::{EventKind, TaskEvent};
use crate::stream::Call;

impl Engine {
    pub(super) fn told(&mut self, events: &[TaskEvent], call: Call) {
        let leader = self.processes.leader_of(call.pid);
        self.process(leader).events = true;
        self.stats.task_events += events.len() as u64;
        // A pool's pipes tell the same, earlier and of the child itself.
        if self.processes.pool(leader) == Some(Pool::Prefork) {
            return;
        }
        for event in events {
            self.event(event, leader, call);
        }
    }

    fn event(&mut self, event: &TaskEvent, leader: u32, call: Call) {
        let at = self.clock.mono_of(event.at);
        // Events are buffered: usually the result was stored before, and the attempt waits for them.
        let started = event.kind == EventKind::Started;
        let open = |a: &Attempt| {
            let news = !started || a.began.is_none_or(|(_, timing)| timing > Timing::Event);
            a.leader == leader && a.end.is_none_or(|end| end.timing > Timing::Event) && news
        };
        let about = if started {
            self.oldest(&event.task_id, open)
        } else {
            self.told_by(&event.task_id, event.kind == EventKind::Retried, open)
        };
        let Some(id) = about else { return };
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        let state = match event.kind {
            EventKind::Started => {
                attempt.begins(at, Timing::Event);
                return;
            }
            EventKind::Succeeded => State::Success,
            EventKind::Failed => State::Failure,
            EventKind::Retried => State::Retry,
            EventKind::Revoked => State::Revoked,
            EventKind::Rejected => State::Rejected,
        };
        attempt.state.get_or_insert(state);
        if let (State::Failure, Some(class), None) = (state, &event.class, &attempt.exception) {
            attempt.exception = Some(Box::new(Exception {
                class: class.clone(),
                ..Exception::default()
            }));
        }
        if state != State::Revoked || attempt.began.is_some() {
            attempt.ends(at, Timing::Event);
        } else {
            attempt.stored = Some(state);
        }
        if attempt.acked.is_some() {
            self.complete(id, call.exit);
        } else {
            self.set_deadline(id, call.exit + self.config.limits.run_wait);
        }
    }
}
