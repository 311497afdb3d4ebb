//! A pipeline that is fed a recorded run and repetitions of its window, and what came out of it.

use std::hint::black_box;

use celeryscope_core::common::Record;
use celeryscope_core::{Output, Pipeline, SpanKind};

use crate::repeat::Repeats;
use crate::ring::Ring;
use crate::support::fixture::Owned;

/// Endings of the names of counters that stand for something amiss.
const AMISS: [&str; 20] = [
    "_cut",
    "_degraded",
    "_dropped",
    "_errors",
    "_evicted",
    "_forgotten",
    "_gaps",
    "_ignored",
    "_losses",
    "_lost",
    "_malformed",
    "_overlap_bytes",
    "_rejected",
    "_shed",
    "_skipped_bytes",
    "_truncated",
    "_unanswered",
    "_undelivered",
    "_unknown",
    "_unpaired",
];
/// The same of runs.
const AMISS_OF_RUNS: [&str; 2] = ["attempts_unstarted", "runs_without_end"];

/// A pipeline in the middle of a worker's life.
pub(crate) struct Player {
    pipeline: Pipeline,
    publishes: u64,
    runs: u64,
}

impl Player {
    /// Fed with the run as it was recorded.
    pub(crate) fn after(before: &[Owned]) -> Self {
        let mut player = Self {
            pipeline: Pipeline::default(),
            publishes: 0,
            runs: 0,
        };
        for record in before {
            player.feed(&Record::new(record.kind, record.header, &record.payload));
        }
        player
    }

    /// Feeds these records.
    pub(crate) fn play(&mut self, records: &Ring) {
        for record in records.records() {
            self.feed(&record);
        }
    }

    /// Feeds the next repetitions, until there are this many tasks in them.
    pub(crate) fn repeat(&mut self, repeats: &mut Repeats, tasks: u64) {
        for _ in 0..tasks / repeats.tasks() {
            repeats.next(|record| self.feed(&record));
        }
    }

    fn feed(&mut self, record: &Record<'_>) {
        self.pipeline.feed(record);
        while let Some(output) = self.pipeline.poll() {
            if let Output::Span(span) = &output {
                match span.kind {
                    SpanKind::Publish => self.publishes += 1,
                    SpanKind::Run => self.runs += 1,
                }
            }
            black_box(output);
        }
    }

    /// Holds the pipeline to it that each of so many tasks became two spans, and that nothing was amiss on the way.
    pub(crate) fn check(&self, tasks: u64) {
        assert_eq!((self.publishes, self.runs), (tasks, tasks), "publishes and runs");
        let known = self.pipeline.config().limits.tasks as u64;
        for (name, meaning, value) in self.pipeline.stats().iter() {
            let expected = match name {
                // Ids are known until newer ones need their place.
                "tasks_evicted" => tasks.saturating_sub(known),
                _ => 0,
            };
            if AMISS.iter().any(|ending| name.ends_with(ending)) || AMISS_OF_RUNS.contains(&name) {
                assert_eq!(value, expected, "{name}: {meaning}");
            }
        }
    }
}
