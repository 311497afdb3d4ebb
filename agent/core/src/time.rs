//! Two clocks, kept apart by type.
//!
//! Everything inside the core is measured on the kernel's monotonic clock ([`Mono`]); spans leave on the wall clock
//! ([`Wall`]). The pair that joins them comes with the records.

use std::ops::{Add, Sub};
use std::time::Duration;

/// CLOCK_MONOTONIC, in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

/// The wall clock, in ns since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub u64);

impl Mono {
    /// Time since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Mono {
    type Output = Self;
    fn sub(self, d: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// What the wall clock showed at one monotonic instant.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockPair {
    /// The monotonic instant.
    pub mono: Mono,
    /// The wall clock then.
    pub wall: Wall,
}

impl ClockPair {
    /// The wall time of a monotonic instant.
    #[must_use]
    pub fn wall_of(&self, t: Mono) -> Wall {
        let shift = i128::from(self.wall.0) - i128::from(self.mono.0);
        Wall(u64::try_from((i128::from(t.0) + shift).max(0)).unwrap_or(u64::MAX))
    }

    /// The monotonic instant of a wall time.
    #[must_use]
    pub fn mono_of(&self, t: Wall) -> Mono {
        let shift = i128::from(self.mono.0) - i128::from(self.wall.0);
        Mono(u64::try_from((i128::from(t.0) + shift).max(0)).unwrap_or(u64::MAX))
    }
}
