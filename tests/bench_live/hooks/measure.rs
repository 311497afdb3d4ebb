//! Batches of calls between two readings of the kernel's statistics.
//!
//! Every process of the host runs the same hooks, and would be counted with us. Batches are short, so that most have
//! nobody else in them: only those count in which each hook ran once a call or not at all. Of these the median is taken,
//! because interrupts and a hypervisor that takes the processor away end up in a program's time as well.

use super::programs::Programs;

/// Calls between two readings. What they move fits into any socket's buffer and any pipe's.
pub(super) const BATCH: usize = 32;

/// Two calls that undo each other, made a batch of each at a time.
pub(super) trait Pair {
    /// Their names.
    fn names(&self) -> [&'static str; 2];

    /// The first.
    fn forth(&mut self);

    /// The second.
    fn back(&mut self);

    /// What has to be done, unmeasured, between a batch of the first and one of the second.
    fn turn(&mut self) {}

    /// The same after one of the second.
    fn rest(&mut self) {}
}

/// What a call costs in one situation under one back end.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) back_end: &'static str,
    pub(super) situation: &'static str,
    pub(super) call: &'static str,
    /// Calls that were made with nobody else counted.
    pub(super) events: usize,
    /// Programs that ran for each call, and their ns.
    pub(super) hooks: Vec<(String, f64)>,
    /// ns of all of them together.
    pub(super) sum: f64,
}

/// Makes calls and notes what they cost.
#[derive(Debug)]
pub(super) struct Meter {
    programs: Programs,
    back_end: &'static str,
    batches: usize,
    measured: Vec<Measured>,
}

impl Meter {
    pub(super) fn new(programs: Programs, back_end: &'static str, calls: usize) -> Self {
        Self {
            programs,
            back_end,
            batches: calls.div_ceil(BATCH),
            measured: Vec::new(),
        }
    }

    /// Makes both calls of a pair, as often as the meter was told.
    pub(super) fn pair(&mut self, situation: &'static str, pair: &mut dyn Pair) {
        let [mut forth, mut back] = [Vec::new(), Vec::new()];
        for _ in 0..self.batches {
            forth.extend(self.batch(&mut || pair.forth()));
            pair.turn();
            back.extend(self.batch(&mut || pair.back()));
            pair.rest();
        }
        for (call, batches) in pair.names().into_iter().zip([forth, back]) {
            self.note(situation, call, &batches);
        }
    }

    /// What was measured, in order.
    pub(super) fn measured(self) -> Vec<Measured> {
        self.measured
    }

    /// The ns of a call in each program (none where it did not run), or nothing where somebody else ran one.
    fn batch(&self, call: &mut dyn FnMut()) -> Option<Vec<Option<f64>>> {
        let before = self.programs.read();
        for _ in 0..BATCH {
            call();
        }
        let after = self.programs.read();
        let of_one = |runs: u64, nanoseconds: u64| match usize::try_from(runs) {
            Ok(0) => Some(None),
            Ok(BATCH) => Some(Some(nanoseconds as f64 / BATCH as f64)),
            _ => None,
        };
        before
            .iter()
            .zip(&after)
            .map(|(before, after)| of_one(after.runs - before.runs, after.nanoseconds - before.nanoseconds))
            .collect()
    }

    fn note(&mut self, situation: &'static str, call: &'static str, batches: &[Vec<Option<f64>>]) {
        let hooks = self.programs.names().enumerate().filter_map(|(place, name)| {
            let times: Vec<f64> = batches.iter().filter_map(|batch| batch[place]).collect();
            // One that now and then ran as often by accident is none of the call's.
            (times.len() * 2 > batches.len()).then(|| (name.to_owned(), median(times)))
        });
        let hooks: Vec<_> = hooks.collect();
        if hooks.is_empty() {
            return;
        }
        let sums = batches.iter().map(|batch| batch.iter().flatten().sum()).collect();
        self.measured.push(Measured {
            back_end: self.back_end,
            situation,
            call,
            events: batches.len() * BATCH,
            hooks,
            sum: median(sums),
        });
    }
}

fn median(values: Vec<f64>) -> f64 {
    crate::rig::report::Spread::of(values).median
}
