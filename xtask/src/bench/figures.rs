//! What criterion measured, read from the files that it leaves.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

/// One bench's result.
#[derive(Debug, PartialEq)]
pub(super) struct Figure {
    name: String,
    /// Of one iteration.
    nanoseconds: f64,
    elements: Option<f64>,
    bytes: Option<f64>,
}

impl Figure {
    /// From criterion's `benchmark.json` and `estimates.json`.
    fn parse(benchmark: &Value, estimates: &Value) -> Option<Self> {
        let amount = |paths: [&str; 2]| {
            let found = paths
                .iter()
                .find_map(|path| benchmark.get("throughput")?.pointer(path));
            found.and_then(Value::as_f64)
        };
        Some(Self {
            name: benchmark.get("full_id")?.as_str()?.to_owned(),
            nanoseconds: estimates.pointer("/median/point_estimate")?.as_f64()?,
            elements: amount(["/Elements", "/ElementsAndBytes/elements"]),
            bytes: amount(["/Bytes", "/ElementsAndBytes/bytes"]),
        })
    }

    pub(super) fn row(&self) -> String {
        let a_second = |amount: Option<f64>, unit: f64| {
            amount.map_or_else(String::new, |amount| {
                format!("{:.0}", amount / self.nanoseconds * 1e9 / unit)
            })
        };
        let (elements, mebibytes) = (
            a_second(self.elements, 1.0),
            a_second(self.bytes, f64::from(1 << 20)),
        );
        format!(
            "{:<48} {:>10} {elements:>12} {mebibytes:>10}",
            self.name,
            shown_time(self.nanoseconds)
        )
    }
}

fn shown_time(nanoseconds: f64) -> String {
    let (value, unit) = match nanoseconds {
        n if n < 1e3 => (n, "ns"),
        n if n < 1e6 => (n / 1e3, "µs"),
        n => (n / 1e6, "ms"),
    };
    format!("{value:.1} {unit}")
}

/// The results below criterion's directory that are not older than `start`, by name.
pub(super) fn core_figures(dir: &Path, start: SystemTime) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        dirs.extend(
            fs::read_dir(&dir)
                .into_iter()
                .flatten()
                .flatten()
                .map(|e| e.path())
                .filter(|p| p.is_dir()),
        );
        let fresh = |file: &PathBuf| {
            file.metadata()
                .and_then(|m| m.modified())
                .is_ok_and(|time| time >= start)
        };
        let read = |name: &str| {
            let file = Some(dir.join(name)).filter(fresh)?;
            serde_json::from_slice::<Value>(&fs::read(file).ok()?).ok()
        };
        if dir.ends_with("new")
            && let (Some(benchmark), Some(estimates)) = (read("benchmark.json"), read("estimates.json"))
        {
            figures.extend(Figure::parse(&benchmark, &estimates));
        }
    }
    figures.sort_by(|a, b| a.name.cmp(&b.name));
    figures
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Scenario: criterion's two files of a bench that counts bytes, and of one that counts elements and bytes.
    /// Guarantees: name, median, elements and MiB a second are what criterion measured.
    #[test]
    fn figures_come_from_criterions_files() {
        let estimates = json!({"median": {"point_estimate": 4000.0}, "mean": {"point_estimate": 9.0}});
        let row = |throughput: Value| {
            let benchmark = json!({"full_id": "resp/lpush", "throughput": throughput});
            let row = Figure::parse(&benchmark, &estimates).expect("a figure").row();
            row.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(row(json!({"Bytes": 4 << 19})), "resp/lpush 4.0 µs 500000");
        let both = json!({"ElementsAndBytes": {"elements": 4, "bytes": 2097}});
        assert_eq!(row(both), "resp/lpush 4.0 µs 1000000 500");
    }

    /// Scenario: a result of this run, and the base line that criterion keeps beside it.
    /// Guarantees: only the new one is taken, and none when it is older than this run.
    #[test]
    fn old_results_are_left_out() {
        let dir = tempfile::tempdir().expect("a directory");
        for kind in ["new", "base"] {
            let result = dir.path().join("resp").join(kind);
            fs::create_dir_all(&result).expect("a directory");
            fs::write(result.join("benchmark.json"), r#"{"full_id": "resp"}"#).expect("a file");
            fs::write(
                result.join("estimates.json"),
                r#"{"median": {"point_estimate": 1}}"#,
            )
            .expect("a file");
        }
        assert_eq!(core_figures(dir.path(), SystemTime::UNIX_EPOCH).len(), 1);
        let tomorrow = SystemTime::now() + std::time::Duration::from_hours(24);
        assert_eq!(core_figures(dir.path(), tomorrow), []);
    }
}
