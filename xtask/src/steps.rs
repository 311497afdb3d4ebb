//! What `cargo xtask test` reports: steps, how long each took and what came of it, and how many tests that were.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::process::Interrupted;

/// What libtest's closing lines add up to.
#[derive(Default, PartialEq, Eq, Debug)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl Tally {
    pub(crate) fn of(lines: &[String]) -> Self {
        let mut tally = Self::default();
        for line in lines {
            let words: Vec<&str> = line.split([' ', ';']).collect();
            for pair in words.windows(2) {
                let [count, what] = pair else { continue };
                let Ok(count) = count.parse::<u64>() else { continue };
                match *what {
                    "passed" => tally.passed += count,
                    "failed" => tally.failed += count,
                    "ignored" => tally.ignored += count,
                    _ => {}
                }
            }
        }
        tally
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} ignored",
            self.passed, self.failed, self.ignored
        )
    }
}

/// The steps so far: name, time, and what came of it.
#[derive(Default)]
pub(crate) struct Steps(Vec<(&'static str, Duration, Result<String>)>);

impl Steps {
    pub(crate) fn run(&mut self, name: &'static str, step: impl FnOnce() -> Result<String>) {
        // Who stops one step wants no other.
        let stopped =
            |(_, _, result): &(_, _, Result<_>)| result.as_ref().is_err_and(anyhow::Error::is::<Interrupted>);
        if self.0.iter().any(stopped) {
            return;
        }
        println!("\n==> {name}");
        let start = Instant::now();
        let result = step();
        if let Err(error) = &result {
            eprintln!("error: {error:#}");
        }
        self.0.push((name, start.elapsed(), result));
    }

    pub(crate) fn stop_on_failure(&mut self) -> Result<()> {
        if self.0.iter().any(|(_, _, result)| result.is_err()) {
            return std::mem::take(self).finish();
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<()> {
        println!("\n{:<20} {:>8}  result", "step", "seconds");
        let mut failed = Vec::new();
        for (name, time, result) in &self.0 {
            let shown = match result {
                Ok(detail) if detail.is_empty() => "ok".to_owned(),
                Ok(detail) => format!("ok: {detail}"),
                Err(error) => {
                    failed.push(*name);
                    format!("FAILED: {}", error.to_string().lines().next().unwrap_or_default())
                }
            };
            println!("{name:<20} {:>8.1}  {shown}", time.as_secs_f64());
        }
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the closing lines of three test binaries, one of them with a failure.
    /// Guarantees: passed, failed and ignored are added up; times and filtered tests are not mistaken for them.
    #[test]
    fn closing_lines_are_added_up() {
        let lines = [
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.02s",
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s",
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ];
        let tally = Tally::of(&lines.map(str::to_owned));
        assert_eq!(
            tally,
            Tally {
                passed: 17,
                failed: 2,
                ignored: 1
            }
        );
    }
}
