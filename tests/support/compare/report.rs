//! What a comparison found, as a table.

use std::fmt::{self, Display};
use std::time::Duration;

/// Where spans and truth differ.
#[derive(Debug, Default)]
pub struct Report {
    pub(super) scenario: String,
    pub(super) counts: String,
    pub(super) problems: Vec<[String; 3]>,
    pub(super) starts: Vec<Duration>,
    pub(super) ends: Vec<Duration>,
}

impl Report {
    /// Prints the report; panics with it when there is a problem.
    pub fn check(&self) {
        assert!(self.problems.is_empty(), "\n{self}");
        println!("{self}");
    }

    /// Adds a finding of the test's own.
    pub fn problem(&mut self, what: &str, whose: impl Into<String>, detail: impl Into<String>) {
        self.problems.push([what.to_owned(), whose.into(), detail.into()]);
    }

    /// How far starts of runs are from the truth.
    pub fn starts(&self) -> &[Duration] {
        &self.starts
    }

    /// How far ends of runs are from the truth.
    pub fn ends(&self) -> &[Duration] {
        &self.ends
    }

    /// Whether spans and truth agree.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {}; {} problems",
            self.scenario,
            self.counts,
            self.problems.len()
        )?;
        for (what, errors) in [("start", &self.starts), ("end", &self.ends)] {
            writeln!(
                f,
                "  run {what:5} off by ms: median {:7.3}  p95 {:7.3}  max {:7.3}",
                ms(quantile(errors, 50)),
                ms(quantile(errors, 95)),
                ms(quantile(errors, 100))
            )?;
        }
        let width = |i: usize| self.problems.iter().map(|row| row[i].len()).max().unwrap_or(0);
        let (first, second) = (width(0), width(1));
        for [what, whose, detail] in &self.problems {
            writeln!(f, "  {what:first$}  {whose:second$}  {detail}")?;
        }
        Ok(())
    }
}

/// Milliseconds.
pub(super) fn ms(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}

/// The smallest value that `percent` of all are not above.
pub fn quantile(values: &[Duration], percent: usize) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort();
    let rank = (values.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}
