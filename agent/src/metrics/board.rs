//! Between the loop and whoever wants to know how it does: the last numbers, and whether it turns.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Reading;

/// Numbers are not taken more often: each time is a look into the kernel half's maps, and keeps the kernel from running
/// probes on one processor for as long as it lasts.
const FRESH: Duration = Duration::from_secs(1);
/// A loop that has not turned for so long is stuck.
const STALE: Duration = Duration::from_secs(10);
/// Attaching may take so long before the loop first turns.
const START: Duration = Duration::from_secs(60);

/// The board.
#[derive(Debug)]
pub struct Board {
    began: Instant,
    /// When the loop last turned, in ms since the beginning; 0 before it first does.
    beat: AtomicU64,
    attached: AtomicBool,
    wanted: AtomicBool,
    numbers: watch::Sender<Numbers>,
}

/// The last numbers that were taken.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// When; `None` before the first time.
    pub taken: Option<Instant>,
    /// The numbers.
    pub readings: Vec<Reading>,
}

impl Numbers {
    fn fresh(&self) -> bool {
        self.taken.is_some_and(|taken| taken.elapsed() < FRESH)
    }
}

impl Default for Board {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            beat: AtomicU64::new(0),
            attached: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            numbers: watch::Sender::new(Numbers::default()),
        }
    }
}

impl Board {
    /// The loop has turned: takes its numbers if they are wanted, and those there are not fresh.
    pub fn turn(&self, take: impl FnOnce() -> Vec<Reading>) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.beat.store(now.max(1), Relaxed);
        if self.wanted.load(Relaxed) && !self.numbers.borrow().fresh() {
            self.wanted.store(false, Relaxed);
            self.put(take());
        }
    }

    /// Puts up numbers, whether or not they are wanted.
    pub fn put(&self, readings: Vec<Reading>) {
        self.numbers.send_replace(Numbers {
            taken: Some(Instant::now()),
            readings,
        });
    }

    /// Capture has been attached, or has ended.
    pub fn attached(&self, attached: bool) {
        self.attached.store(attached, Relaxed);
    }

    /// Capture is attached.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.attached.load(Relaxed)
    }

    /// For how long the loop has been stuck; `None` while it turns, or has yet to begin.
    #[must_use]
    pub fn stuck(&self) -> Option<Duration> {
        self.stuck_at(self.began.elapsed())
    }

    fn stuck_at(&self, now: Duration) -> Option<Duration> {
        let beat = Duration::from_millis(self.beat.load(Relaxed));
        let patience = if beat.is_zero() { START } else { STALE };
        let still = now.saturating_sub(beat);
        (still > patience).then_some(still)
    }

    /// Numbers that are fresh, or, where the loop does not give any within `patience`, the last ones.
    pub async fn recent(&self, patience: Duration) -> Numbers {
        let mut numbers = self.numbers.subscribe();
        if !numbers.borrow_and_update().fresh() {
            self.wanted.store(true, Relaxed);
            let _ = tokio::time::timeout(patience, numbers.changed()).await;
        }
        numbers.borrow().clone()
    }

    /// The same for a thread that may wait.
    pub fn recent_blocking(&self, patience: Duration) -> Numbers {
        let end = Instant::now() + patience;
        while !self.numbers.borrow().fresh() && Instant::now() < end {
            self.wanted.store(true, Relaxed);
            thread::sleep(Duration::from_millis(10));
        }
        self.numbers.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use celeryscope_core::Stats;

    use super::*;

    fn reading(value: u64) -> Vec<Reading> {
        vec![Reading::new(&Stats::METRICS[0], value)]
    }

    /// Scenario: turns of the loop with nobody asking, somebody asking, and somebody asking again at once.
    /// Guarantees: numbers are taken only when they are asked for, and not twice within a second.
    #[test]
    fn taken_on_request() {
        let board = Board::default();
        let mut taken = 0;
        let mut turn = |board: &Board| {
            board.turn(|| {
                taken += 1;
                reading(taken)
            });
            taken
        };
        assert_eq!(turn(&board), 0);
        assert!(board.recent_blocking(Duration::ZERO).readings.is_empty());
        board.wanted.store(true, Relaxed);
        assert_eq!(turn(&board), 1);
        assert_eq!(board.recent_blocking(Duration::from_secs(9)).readings[0].value, 1);
        board.wanted.store(true, Relaxed);
        assert_eq!(turn(&board), 1, "a second look within a second");
    }

    /// Scenario: a loop that has not begun, one that turns, one that stands still for longer and longer.
    /// Guarantees: a slow start is no fault, a loop that stands still for more than ten seconds is.
    #[test]
    fn standing_still() {
        let board = Board::default();
        let at = Duration::from_secs;
        assert_eq!(board.stuck_at(at(50)), None);
        assert_eq!(board.stuck_at(at(61)), Some(at(61)));
        board.beat.store(5_000, Relaxed);
        assert_eq!(board.stuck_at(at(14)), None);
        assert_eq!(board.stuck_at(at(16)), Some(at(11)));
    }
}
