//! The window again and again, as if the programs had gone on: other tasks, later, further on in the same streams.

use celeryscope_core::common::Record;

use crate::ring::Ring;
use crate::support::fixture::Owned;
use crate::window::{ID, Window};

/// Digits of an id that say which repetition it is of.
const DIGITS: usize = 12;

/// What is different in each repetition. `at` is a place in the payload.
pub(crate) enum Change {
    /// An id, from here on.
    Id(usize),
    /// The number of a delivery on its channel (AMQP).
    Delivery { at: usize, number: u64, step: u64 },
    /// The number of a job of the pool.
    Job { at: usize, number: u32, step: u32 },
}

/// A record of the window.
pub(crate) struct Piece {
    pub(crate) record: Owned,
    /// Which stream it moves on.
    stream: Option<usize>,
    pub(crate) changes: Vec<Change>,
}

impl Piece {
    pub(crate) fn new(record: Owned, stream: Option<usize>) -> Self {
        Self {
            record,
            stream,
            changes: Vec::new(),
        }
    }

    /// Writes what this repetition has of its own over the last one's.
    fn change(&mut self, round: u64) {
        let payload = &mut self.record.payload;
        for change in &self.changes {
            match *change {
                Change::Id(at) => {
                    let digits = payload[at + ID - DIGITS..at + ID].iter_mut().rev();
                    let mut rest = round;
                    for digit in digits {
                        *digit = b"0123456789abcdef"[(rest & 0xf) as usize];
                        rest >>= 4;
                    }
                }
                Change::Delivery { at, number, step } => {
                    payload[at..at + 8].copy_from_slice(&(number + round * step).to_be_bytes());
                }
                Change::Job { at, number, step } => {
                    let job = number + round as u32 * step;
                    payload[at..at + 4].copy_from_slice(&job.to_le_bytes());
                }
            }
        }
    }
}

/// Makes one repetition after the other, without end, in the same buffers.
pub(crate) struct Repeats {
    window: Window,
    /// How often the window was repeated.
    round: u64,
}

impl Repeats {
    pub(crate) fn new(window: Window) -> Self {
        Self { window, round: 0 }
    }

    /// The run as it was recorded: what the first repetition goes on from.
    pub(crate) fn before(&self) -> &[Owned] {
        &self.window.before
    }

    /// Tasks in a repetition.
    pub(crate) fn tasks(&self) -> u64 {
        self.window.tasks
    }

    /// Tasks up to here, those of the recorded run too.
    pub(crate) fn so_far(&self) -> u64 {
        (1 + self.round) * self.tasks()
    }

    /// The next repetition, record by record.
    pub(crate) fn next(&mut self, mut put: impl FnMut(Record<'_>)) {
        self.round += 1;
        let Window {
            pieces,
            offsets,
            span,
            ..
        } = &mut self.window;
        for piece in pieces {
            piece.change(self.round);
            let mut header = piece.record.header;
            header.enter += self.round * *span;
            header.exit += self.round * *span;
            if let Some(offset) = piece.stream.and_then(|stream| offsets.get_mut(stream)) {
                header.start = *offset;
                *offset += u64::from(header.total);
            }
            put(Record::new(piece.record.kind, header, &piece.record.payload));
        }
    }

    /// The next repetitions until there are this many tasks in them.
    pub(crate) fn prepared(&mut self, tasks: u64) -> Ring {
        let mut ring = Ring::default();
        for _ in 0..tasks / self.tasks() {
            self.next(|record| ring.push(&record));
        }
        ring
    }
}
