//! Prometheus' text format, version 0.0.4:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>.

use std::fmt::Write as _;

use celeryscope_core::{Area, MetricKind};

use super::own::in_seconds;
use super::{Reading, sentence};

/// The content type that goes with it.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All readings, those of one metric together, each metric with its meaning and type before it.
#[must_use]
pub fn exposition(readings: &[Reading]) -> String {
    let mut text = String::new();
    for (at, reading) in readings.iter().enumerate() {
        let metric = reading.metric;
        let same = |other: &&Reading| other.metric.name == metric.name;
        if readings[..at].iter().any(|earlier| same(&earlier)) {
            continue;
        }
        let name = name(reading);
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        // A String takes whatever is written to it.
        let _ = writeln!(text, "# HELP {name} {}", escaped(&sentence(metric.meaning)));
        let _ = writeln!(text, "# TYPE {name} {kind}");
        for reading in readings[at..].iter().filter(same) {
            let label = reading.output.map_or_else(String::new, |output| {
                format!("{{output=\"{}\"}}", escaped(output).replace('"', "\\\""))
            });
            let _ = match in_seconds(reading) {
                Some(seconds) => writeln!(text, "{name}{label} {seconds}"),
                None => writeln!(text, "{name}{label} {}", reading.value),
            };
        }
    }
    text
}

/// Ours have a prefix; those of the process are named as by Prometheus' own clients.
fn name(reading: &Reading) -> String {
    let prefix = if reading.metric.area == Area::Agent {
        ""
    } else {
        "celeryscope_"
    };
    let suffix = if reading.is_counter() { "_total" } else { "" };
    format!("{prefix}{}{suffix}", reading.metric.name)
}

/// A help text may hold anything but a bare backslash or line end.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use celeryscope_core::Metric;

    use super::*;
    use crate::metrics::own::Usage;
    use crate::metrics::{metric, of_core};

    static COUNTER: Metric = metric(
        "export_accepted",
        "a back\\slash and\na line",
        "{span}",
        Area::Export,
        MetricKind::Counter,
    );
    static GAUGE: Metric = metric("held", "held", "{thing}", Area::Tasks, MetricKind::Gauge);

    /// Scenario: a counter of two outputs with another metric between them, a help text with what must be escaped.
    /// Guarantees: one HELP and one TYPE for each name, all its samples behind them; counters end in `_total`.
    #[test]
    fn the_format() {
        let of = |output, value| Reading {
            output: Some(output),
            ..Reading::new(&COUNTER, value)
        };
        let text = exposition(&[of("otlp", 7), Reading::new(&GAUGE, 3), of("tree", u64::MAX)]);
        let want = "\
# HELP celeryscope_export_accepted_total A back\\\\slash and\\na line.
# TYPE celeryscope_export_accepted_total counter
celeryscope_export_accepted_total{output=\"otlp\"} 7
celeryscope_export_accepted_total{output=\"tree\"} 18446744073709551615
# HELP celeryscope_held Held.
# TYPE celeryscope_held gauge
celeryscope_held 3
";
        assert_eq!(text, want);
    }

    /// Scenario: everything that the core and the process tell.
    /// Guarantees: every line is a comment or a name of allowed letters and a number; each name has its type before it.
    #[test]
    fn every_line_is_sound() {
        let mut readings = of_core(&Default::default(), &Default::default());
        readings.extend(
            Usage {
                resident: 5,
                cpu: 1_250,
            }
            .readings(),
        );
        let text = exposition(&readings);
        let mut typed = std::collections::HashSet::new();
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# TYPE ") {
                let (name, _) = comment.split_once(' ').unwrap();
                assert!(typed.insert(name), "{name} is typed twice");
            } else if !line.starts_with("# HELP ") {
                let (name, value) = line.split_once(' ').unwrap();
                assert!(typed.contains(name), "{name} has no type");
                assert!(
                    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
                    "{name}"
                );
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(text.contains("\nprocess_cpu_seconds_total 1.25\n"), "{text}");
        assert!(text.contains("\nprocess_resident_memory_bytes 5\n"), "{text}");
    }
}
