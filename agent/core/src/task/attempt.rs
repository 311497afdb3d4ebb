//! One attempt at running a task: what is known of it so far.

use std::sync::Arc;

use crate::broker::Server;
use crate::celery::TaskMessage;
use crate::celery::result::Exception;
use crate::span::{Process, SpanId, TraceId, ids};
use crate::time::{ClockPair, Mono, Wall};

/// Number of an attempt; never used twice.
pub(super) type AttemptId = u64;

/// How an attempt ended (design §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Success,
    Failure,
    Retry,
    Revoked,
    Rejected,
    Ignored,
    /// Its process went away while it ran.
    Lost,
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Success => "SUCCESS",
            Self::Failure => "FAILURE",
            Self::Retry => "RETRY",
            Self::Revoked => "REVOKED",
            Self::Rejected => "REJECTED",
            Self::Ignored => "IGNORED",
            Self::Lost => "LOST",
        }
    }
}

/// Where a time comes from, best first (design §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timing {
    Pool,
    Event,
    Result,
    Ack,
    Estimate,
}

impl Timing {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Event => "event",
            Self::Result => "result",
            Self::Ack => "ack",
            Self::Estimate => "estimate",
        }
    }
}

/// When and where an attempt began; fixed once known, since its span id is made of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub(crate) at: Mono,
    pub(crate) wall: Wall,
    pub(crate) timing: Timing,
    pub(crate) span_id: SpanId,
    /// The trace it opens when runs only link to their publish.
    pub(crate) own_trace: TraceId,
}

/// When and how an attempt ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) at: Mono,
    pub(crate) timing: Timing,
}

/// An attempt.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) message: TaskMessage,
    /// The message itself was seen, not only what the pool's frame tells of it.
    pub(crate) complete: bool,
    pub(crate) destination: Arc<str>,
    pub(crate) server: Option<Server>,
    /// The worker's main process.
    pub(crate) leader: u32,
    /// The pool child (or process) and thread that runs it.
    pub(crate) runner: Option<(u32, u32)>,
    pub(crate) delivered: Option<Mono>,
    /// The best evidence of its beginning so far.
    pub(crate) began: Option<(Mono, Timing)>,
    /// Its beginning, once it may no longer change.
    pub(crate) start: Option<Start>,
    pub(crate) end: Option<End>,
    pub(crate) state: Option<State>,
    /// What the main process stored about it, which explains an end that the child could not.
    pub(crate) stored: Option<State>,
    pub(crate) exception: Option<Box<Exception>>,
    pub(crate) acked: Option<Mono>,
    /// Whose it was, where the process that ran it is gone.
    pub(crate) owner: Option<Arc<Process>>,
    /// When it is looked at again.
    pub(crate) deadline: Mono,
    /// The timer that is set for it, not after that.
    pub(super) timer: Mono,
    /// Bytes of memory behind it, when they were last counted.
    pub(super) weight: u64,
}

impl Attempt {
    #[inline]
    pub(super) fn new(message: TaskMessage, destination: Arc<str>, leader: u32) -> Self {
        Self {
            message,
            complete: false,
            destination,
            server: None,
            leader,
            runner: None,
            delivered: None,
            began: None,
            start: None,
            end: None,
            state: None,
            stored: None,
            exception: None,
            acked: None,
            owner: None,
            deadline: Mono(u64::MAX),
            timer: Mono(u64::MAX),
            weight: 0,
        }
    }
}

impl Attempt {
    /// Counts the bytes of memory behind it, nearly, and mends a sum that they are part of.
    pub(super) fn weigh(&mut self, sum: &mut u64) {
        let exception = self.exception.as_ref().map_or(0, |exception| exception.weight());
        *sum = sum.saturating_sub(self.weight);
        self.weight = self.message.weight().saturating_add(exception);
        *sum = sum.saturating_add(self.weight);
    }

    /// Takes evidence of its beginning, unless there is better.
    pub(super) fn begins(&mut self, at: Mono, timing: Timing) {
        if self.start.is_none() && self.began.is_none_or(|(_, known)| timing < known) {
            self.began = Some((at, timing));
        }
    }

    /// Takes evidence of its end, unless there is better.
    pub(super) fn ends(&mut self, at: Mono, timing: Timing) {
        if self.end.is_none_or(|known| timing < known.timing) {
            self.end = Some(End { at, timing });
        }
    }

    /// Settles when it began, since a span id is about to depend on it.
    pub(super) fn settle_start(&mut self, clock: &ClockPair, host: &str) -> Option<&Start> {
        if let (None, Some((at, timing))) = (&self.start, self.began) {
            let (wall, message) = (clock.wall_of(at), &self.message);
            let (span_id, own_trace) = ids::run_ids(&message.id, message.retries, host, wall);
            self.start = Some(Start {
                at,
                wall,
                timing,
                span_id,
                own_trace,
            });
        }
        self.start.as_ref()
    }
}

impl Start {
    /// The wall time of a monotonic instant of this attempt: counted from its start, so that durations are true even if
    /// the wall clock was set meanwhile.
    pub(crate) fn wall_of(&self, at: Mono) -> Wall {
        if at >= self.at {
            Wall(self.wall.0.saturating_add(at.0 - self.at.0))
        } else {
            Wall(self.wall.0.saturating_sub(self.at.0 - at.0))
        }
    }
}
