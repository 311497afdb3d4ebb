//! What the agent's own process uses, from /proc.

use std::path::Path;

use celeryscope_core::{Area, Metric, MetricKind};

use super::{Reading, metric};

/// Names under which Prometheus' own clients tell the same, without their prefix.
pub(crate) static METRICS: &[Metric] = &[
    metric(
        "process_resident_memory_bytes",
        "Memory of the agent that is in use.",
        "By",
        Area::Agent,
        MetricKind::Gauge,
    ),
    metric(
        "process_cpu_seconds",
        "Processor time of the agent, in user and kernel mode.",
        "s",
        Area::Agent,
        MetricKind::Counter,
    ),
];

/// What the process uses. CPU time is in milliseconds here, to be whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Bytes.
    pub(crate) resident: u64,
    /// Milliseconds.
    pub(crate) cpu: u64,
}

impl Usage {
    /// Of this process, now; zeros where /proc does not tell.
    pub(crate) fn now() -> Self {
        Self::read(Path::new("/proc/self")).unwrap_or_default()
    }

    fn read(process: &Path) -> Option<Self> {
        let number = |fields: &[&str], at: usize| fields.get(at)?.parse::<u64>().ok();
        let memory = std::fs::read_to_string(process.join("statm")).ok()?;
        let pages = number(&memory.split_ascii_whitespace().collect::<Vec<_>>(), 1)?;
        let stat = std::fs::read_to_string(process.join("stat")).ok()?;
        // proc(5): fields are counted from behind the name, which may hold anything.
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<_> = fields.split_ascii_whitespace().collect();
        let ticks = number(&fields, 11)?.checked_add(number(&fields, 12)?)?;
        Some(Self {
            resident: pages.checked_mul(rustix::param::page_size() as u64)?,
            cpu: ticks.checked_mul(1000)? / rustix::param::clock_ticks_per_second().max(1),
        })
    }

    /// As readings; the value of `process_cpu_seconds` is in milliseconds.
    pub(crate) fn readings(self) -> impl Iterator<Item = Reading> {
        METRICS
            .iter()
            .zip([self.resident, self.cpu])
            .map(|(metric, value)| Reading::new(metric, value))
    }
}

/// A reading as the unit says: all are whole but those in seconds, which are kept in milliseconds.
pub(crate) fn in_seconds(reading: &Reading) -> Option<f64> {
    (reading.metric.unit == "s").then(|| reading.value as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a process whose name holds spaces and parentheses, and this very process.
    /// Guarantees: the fields are those of proc(5); this process uses some memory.
    #[test]
    fn read_from_proc() {
        let folder = std::env::temp_dir().join(format!("celeryscope-own-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("statm"), "500 3 2 1 0 1 0\n").unwrap();
        let stat = "7 (a) S (b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 9 1 2\n";
        std::fs::write(folder.join("stat"), stat).unwrap();
        let usage = Usage::read(&folder).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(usage.resident, 3 * rustix::param::page_size() as u64);
        assert_eq!(usage.cpu, 300_000 / rustix::param::clock_ticks_per_second());
        assert!(Usage::now().resident > 100_000);
    }
}
