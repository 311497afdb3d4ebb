//! The numbers for people, on standard error: all of them line by line, or in a few lines those that are not zero.

use std::fmt::Write as _;

use celeryscope_core::Area;

use super::{Reading, sentence};

/// Columns that a line of the short form may have.
const WIDTH: usize = 110;

/// Every reading on a line of its own, by area: `counter name=value  # meaning`.
pub(crate) fn full(readings: &[Reading]) -> String {
    let mut text = String::new();
    for area in Area::ALL {
        let mut of_area = readings
            .iter()
            .filter(|reading| reading.metric.area == area)
            .peekable();
        if of_area.peek().is_some() {
            // A String takes whatever is written to it.
            let _ = writeln!(text, "# {}", area.as_str());
        }
        for reading in of_area {
            let kind = if reading.is_counter() { "counter" } else { "gauge" };
            let meaning = sentence(reading.metric.meaning);
            let _ = writeln!(text, "{kind} {}={}  # {meaning}", reading.key(), reading.value);
        }
    }
    text
}

/// The counters that are not zero, by area.
pub(crate) fn short(readings: &[Reading]) -> String {
    let mut text = String::new();
    for area in Area::ALL {
        let counted = readings
            .iter()
            .filter(|reading| reading.metric.area == area && reading.is_counter() && reading.value > 0);
        let words: Vec<_> = counted
            .map(|reading| format!("{}={}", reading.key(), reading.value))
            .collect();
        let mut line = format!("{:<8}", area.as_str());
        for word in &words {
            if line.len() + 1 + word.len() > WIDTH {
                let _ = writeln!(text, "{line}");
                line = " ".repeat(8);
            }
            line.push(' ');
            line.push_str(word);
        }
        if !words.is_empty() {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use celeryscope_core::{Held, Stats};

    use super::*;
    use crate::metrics::of_core;

    /// Scenario: a few counters and gauges that are not zero, in both forms.
    /// Guarantees: the short form has the counters alone, by area, without zeros; the full one has everything, a line
    /// each.
    #[test]
    fn both_forms() {
        let stats = Stats {
            records: 5,
            connections: 2,
            runs: 1,
            ..Stats::default()
        };
        let held = Held {
            attempts_held: 9,
            ..Held::default()
        };
        let readings = of_core(&stats, &held);
        assert_eq!(
            short(&readings),
            "capture  records=5\nstreams  connections=2\ntasks    runs=1\n"
        );
        let full = full(&readings);
        assert!(full.starts_with("# capture\ncounter records=5  # Records fed to the core.\n"));
        assert!(full.contains("\ngauge attempts_held=9  # Attempts under way.\n"));
        assert_eq!(full.lines().count(), readings.len() + 3);
    }

    /// Scenario: more counters of one area than a line holds.
    /// Guarantees: lines are broken between counters and stay within the width.
    #[test]
    fn long_lines_are_broken() {
        let stats = Stats::METRICS
            .iter()
            .map(|metric| Reading::new(metric, 123_456_789))
            .collect::<Vec<_>>();
        let text = short(&stats);
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert_eq!(text.matches('=').count(), stats.len());
    }
}
