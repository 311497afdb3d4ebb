//! What the replay tests share: recorded runs as records, what really happened in them, and the comparison of the two.
//!
//! [`truth`] and [`compare`] know nothing of the recordings: any test that has spans and Celery's own account of a
//! run can use them.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its part of these modules"
)]

pub mod compare;
pub mod fixture;
pub mod streams;
pub mod truth;

use std::collections::HashSet;

use celeryscope_core::common::{Kind, Record};
use celeryscope_core::{Config, Output, Pipeline, Span, Stats, Verdict};

use fixture::Owned;

/// What the core said about a list of records.
#[derive(Debug)]
pub struct Replay {
    /// Spans, in the order of their start.
    pub spans: Vec<Span>,
    /// Main processes of the workers it found.
    pub workers: HashSet<u32>,
    /// Counters at the end.
    pub stats: Stats,
}

/// Feeds `records` to a new pipeline the way the agent does: bytes of a connection that was judged to be of no
/// interest are no longer copied by the kernel half.
pub fn replay<'a>(records: impl IntoIterator<Item = &'a Owned>) -> Replay {
    replay_as(records, Config::default())
}

/// The same with options of the user's.
pub fn replay_as<'a>(records: impl IntoIterator<Item = &'a Owned>, config: Config) -> Replay {
    let mut pipeline = Pipeline::new(config);
    let mut spans = Vec::new();
    let mut workers = HashSet::new();
    let mut ignored = HashSet::new();
    let mut drain = |pipeline: &mut Pipeline, ignored: &mut HashSet<u64>| {
        while let Some(output) = pipeline.poll() {
            match output {
                Output::Span(span) => spans.push(*span),
                Output::Worker { pid } => _ = workers.insert(pid),
                Output::Verdict { conn, verdict } => {
                    if verdict == Verdict::Ignore {
                        ignored.insert(conn);
                    }
                }
            }
        }
    };
    for record in records {
        if matches!(record.kind, Kind::Send | Kind::Recv) && ignored.contains(&record.header.conn) {
            continue;
        }
        pipeline.feed(&Record::new(record.kind, record.header, &record.payload));
        drain(&mut pipeline, &mut ignored);
    }
    pipeline.finish();
    drain(&mut pipeline, &mut ignored);
    spans.sort_by_key(|span| (span.start, span.end, span.span_id));
    Replay {
        spans,
        workers,
        stats: pipeline.stats(),
    }
}
