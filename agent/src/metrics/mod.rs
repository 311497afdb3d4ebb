//! What the agent tells of itself: every number by name, unit and meaning, and the ways out of the program.
//!
//! The loop hands its numbers to a [`Board`] when somebody has asked for them, at most once a second; the HTTP endpoint
//! ([`Endpoint`]) and the OTLP exporter read only that. The lines at the end and on SIGUSR1 ([`summary`]) are made of the
//! same readings. docs/metrics.md lists them all; a test holds it to [`catalogue`].

mod board;
mod endpoint;
mod exposition;
pub(crate) mod own;
pub(crate) mod summary;

use celeryscope_core::{Area, Held, Metric, MetricKind, Stats};

use crate::{capture, export};

pub use board::Board;
pub use endpoint::{Bound, Endpoint};
pub use exposition::exposition;

/// A number, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Which.
    pub metric: &'static Metric,
    /// Of which output, where each has its own.
    pub output: Option<&'static str>,
    /// The number.
    pub value: u64,
}

impl Reading {
    /// One that there is but once.
    #[must_use]
    pub fn new(metric: &'static Metric, value: u64) -> Self {
        Self {
            metric,
            output: None,
            value,
        }
    }

    /// Its name on one line: `records`, `otlp_json_exported`.
    #[must_use]
    pub fn key(&self) -> String {
        match self.output {
            Some(output) => {
                let name = self.metric.name.trim_start_matches("export_");
                format!("{}_{name}", output.replace('-', "_"))
            }
            None => self.metric.name.to_owned(),
        }
    }

    /// It only grows.
    #[must_use]
    pub fn is_counter(&self) -> bool {
        self.metric.kind == MetricKind::Counter
    }
}

/// The core's counters and what it holds.
#[must_use]
pub fn of_core(stats: &Stats, held: &Held) -> Vec<Reading> {
    let counters = Stats::METRICS.iter().zip(stats.values());
    let gauges = Held::METRICS.iter().zip(held.values());
    counters
        .chain(gauges)
        .map(|(metric, value)| Reading::new(metric, value))
        .collect()
}

/// Every metric of `run`, by area.
#[must_use]
pub fn catalogue() -> Vec<&'static Metric> {
    let all = capture::counters::metrics()
        .chain(Stats::METRICS)
        .chain(Held::METRICS)
        .chain(export::METRICS)
        .chain(own::METRICS);
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|metric| metric.area);
    all
}

/// A metric's meaning as a sentence.
pub(crate) fn sentence(meaning: &str) -> String {
    let meaning = meaning.trim().trim_end_matches('.');
    let mut letters = meaning.chars();
    let first = letters
        .next()
        .map(|letter| letter.to_uppercase().to_string())
        .unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

/// One of the agent's own tables, written where it is used.
pub(crate) const fn metric(
    name: &'static str,
    meaning: &'static str,
    unit: &'static str,
    area: Area,
    kind: MetricKind,
) -> Metric {
    Metric {
        name,
        meaning,
        unit,
        area,
        kind,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    use super::*;

    /// Scenario: every metric's name, unit and meaning.
    /// Guarantees: names are unique and of letters that Prometheus and OpenTelemetry both take; units are UCUM's or in
    /// braces; what is counted in bytes says so in its name; there is always a meaning.
    #[test]
    fn names_are_sound() {
        let mut names = HashSet::new();
        for metric in catalogue() {
            let name = metric.name;
            assert!(names.insert(name), "{name} is there twice");
            assert!(
                name.starts_with(|c: char| c.is_ascii_lowercase())
                    && name
                        .chars()
                        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'),
                "{name}"
            );
            assert!(!name.ends_with("_total"), "{name}: the exposition adds that");
            let annotation = metric.unit.starts_with('{') && metric.unit.ends_with('}');
            assert!(
                annotation || ["By", "s"].contains(&metric.unit),
                "{name}: {}",
                metric.unit
            );
            assert_eq!(metric.unit == "By", name.contains("bytes"), "{name}");
            assert!(metric.meaning.len() > 5, "{name}");
        }
        assert!(names.len() > 100, "{}", names.len());
    }

    /// Scenario: docs/metrics.md beside the metrics of this program.
    /// Guarantees: its tables are these, row for row; the failure's message is the text to put there.
    #[test]
    fn the_documentation_is_true() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        let page = std::fs::read_to_string(page).unwrap();
        let mut want = String::new();
        for area in Area::ALL {
            want.push_str(&format!("### {}\n\n", area.as_str()));
            want.push_str("| name | kind | unit | meaning |\n|---|---|---|---|\n");
            for metric in catalogue().into_iter().filter(|metric| metric.area == area) {
                want.push_str(&row(metric));
            }
            want.push('\n');
        }
        let (_, tables) = page.split_once("<!-- from the code: -->\n\n").unwrap();
        assert!(
            tables.trim() == want.trim(),
            "docs/metrics.md should end so:\n\n{want}"
        );
    }

    fn row(metric: &Metric) -> String {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        let Metric { name, unit, .. } = metric;
        format!(
            "| `{name}` | {kind} | `{unit}` | {} |\n",
            sentence(metric.meaning)
        )
    }
}
