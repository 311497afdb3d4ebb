//! The whole core as one state machine: feed it records, take spans out.

use std::collections::VecDeque;

use celeryscope_common::Record;

use crate::limits::Limits;
use crate::span::{Relation, Span, SpanId, SpanKind, SpanStyle, TraceId};
use crate::stats::Stats;
use crate::time::Mono;

/// What the user chose.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Caps.
    pub limits: Limits,
    /// How runs refer to their publish.
    pub relation: Relation,
    /// Names of spans and attributes.
    pub style: SpanStyle,
    /// Put task arguments (cut) on spans.
    pub capture_args: bool,
}

/// What the first bytes of a connection proved it to be. The capture side acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not known yet: keep capturing.
    Unknown,
    /// A Celery program's connection: keep capturing.
    Celery,
    /// Something else: stop copying its bytes.
    Ignore,
}

/// What the core has to say.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// A span is complete.
    Span(Box<Span>),
    /// A connection's verdict changed.
    Verdict {
        /// The connection.
        conn: u64,
        /// What it is now.
        verdict: Verdict,
    },
    /// The process consumes tasks: its children's pool pipes should be watched.
    Worker {
        /// The worker's main process.
        pid: u32,
    },
}

/// The state machine.
#[derive(Debug, Default)]
pub struct Pipeline {
    config: Config,
    stats: Stats,
    now: Mono,
    out: VecDeque<Output>,
}

impl Pipeline {
    /// An empty state machine.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            ..Self::default()
        }
    }

    /// Takes one record. Time advances to the record's `exit`.
    pub fn feed(&mut self, record: &Record<'_>) {
        self.stats.records += 1;
        self.advance(Mono(record.header.exit));
    }

    /// Lets time pass: what waited long enough is put out. Time never goes back.
    pub fn advance(&mut self, now: Mono) {
        self.now = self.now.max(now);
    }

    /// The input has ended: everything held is put out with what is known.
    pub fn finish(&mut self) {}

    /// The next thing to say, if any.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// Counters so far.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What it was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }
}

/// The trace id that messages without a traceparent get: a function of Celery's root id alone (design §6).
#[must_use]
pub fn trace_id_of_root(_root_id: &str) -> TraceId {
    TraceId([1; 16])
}

/// A span with nothing in it but its identity, for tests of exporters.
#[doc(hidden)]
#[must_use]
pub fn blank_span(kind: SpanKind, name: &str) -> Span {
    Span {
        kind,
        trace_id: TraceId([1; 16]),
        span_id: SpanId([1; 8]),
        parent: None,
        trace_state: String::new(),
        sampled: None,
        name: name.to_owned(),
        start: crate::time::Wall(0),
        end: crate::time::Wall(0),
        status: crate::span::Status::Unset,
        attributes: Vec::new(),
        events: Vec::new(),
        links: Vec::new(),
        process: Default::default(),
    }
}
