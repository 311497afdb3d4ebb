//! The two clocks, read as a pair.

use std::time::{SystemTime, UNIX_EPOCH};

use celeryscope_common::{Header, Kind, Record};

/// How long a pair holds, in ns.
const HOLDS: u64 = 5_000_000_000;
/// The wall clock was set when its distance from the monotonic one moved by more than this, in ns.
const STEP: u64 = 1_000_000;
/// Reads this far apart, in ns, belong together; others had something come between them and are made again …
const TOGETHER: u64 = 50_000;
/// … so many times at most.
const TRIES: usize = 8;

/// CLOCK_MONOTONIC in ns.
#[must_use]
pub(super) fn monotonic() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

fn wall() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// The monotonic and the wall clock at one instant: of some readings (monotonic, wall, monotonic) the closest.
fn pair(mut read: impl FnMut() -> (u64, u64, u64)) -> (u64, u64) {
    let apart = |(before, _, after): &(u64, u64, u64)| after - before;
    let mut closest = read();
    for _ in 1..TRIES {
        if apart(&closest) <= TOGETHER {
            break;
        }
        let again = read();
        if apart(&again) < apart(&closest) {
            closest = again;
        }
    }
    let (before, wall, after) = closest;
    (before + (after - before) / 2, wall)
}

/// Says when the core must be told the time anew.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    told: Option<(u64, u64)>,
}

impl Clocks {
    /// A Clock record, when the last is old or the wall clock was set.
    pub(super) fn tick(&mut self) -> Option<Record<'static>> {
        let (mono, wall) = pair(|| (monotonic(), wall(), monotonic()));
        self.due(mono, wall).then(|| {
            let header = Header {
                enter: mono,
                exit: mono,
                conn: wall,
                ..Header::default()
            };
            Record::new(Kind::Clock, header, &[])
        })
    }

    fn due(&mut self, mono: u64, wall: u64) -> bool {
        let due = self.told.is_none_or(|(told_mono, told_wall)| {
            mono - told_mono >= HOLDS || wall.abs_diff(told_wall).abs_diff(mono - told_mono) > STEP
        });
        if due {
            self.told = Some((mono, wall));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: another program runs for 3 ms between the reads of a pair, once, then every time.
    /// Guarantees: the pair is read again; of those that are all torn the closest is taken, and the agent goes on.
    #[test]
    fn torn_pairs_are_read_again() {
        let mut readings = [(0, 3_000_500, 3_001_000), (3_002_000, 3_002_500, 3_003_000)].into_iter();
        assert_eq!(pair(|| readings.next().unwrap()), (3_002_500, 3_002_500));
        let mut tries = 0;
        let torn = || {
            tries += 1;
            (0, 0, if tries == 5 { 100_000 } else { 3_000_000 })
        };
        assert_eq!(pair(torn), (50_000, 0));
        assert_eq!(tries, TRIES);
    }

    /// Scenario: time passes; the wall clock is slewed a little, then set forward, then back.
    /// Guarantees: a pair at the start, after five seconds, and at each step; not for the slew.
    #[test]
    fn pairs_when_due() {
        let mut clocks = Clocks::default();
        let ms = 1_000_000;
        assert!(clocks.due(0, 10_000 * ms));
        assert!(!clocks.due(20 * ms, 10_020 * ms));
        assert!(!clocks.due(40 * ms, 10_040 * ms + ms / 2));
        assert!(clocks.due(5_000 * ms, 15_000 * ms));
        assert!(clocks.due(5_020 * ms, 15_030 * ms));
        assert!(clocks.due(5_040 * ms, 9_000 * ms));
        assert!(!clocks.due(5_060 * ms, 9_020 * ms));
    }
}
