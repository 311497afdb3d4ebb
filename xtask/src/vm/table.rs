//! What a guest printed, read into a row of the table for its kernel.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::matrix::{BACK_ENDS, BROKERS};

/// A kernel: what became of each part of its job.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) kernel: &'static str,
    pub(super) release: String,
    pub(super) boot: Duration,
    pub(super) whole: Duration,
    /// Why there is no more, or where to look.
    pub(super) error: Option<String>,
    /// What `celeryscope doctor` said.
    pub(super) doctor: Vec<String>,
    parts: BTreeMap<String, Part>,
    /// The part that goes on, and when it began.
    now: Option<(String, Duration)>,
}

/// What is known of one broker's test.
#[derive(Debug, Default)]
struct Part {
    /// Its exit code and time, once it has ended.
    ended: Option<(i32, Duration)>,
    /// What it said of each back end.
    told: BTreeMap<String, String>,
}

impl Row {
    pub(super) fn new(kernel: &'static str) -> Self {
        Self {
            kernel,
            release: kernel.to_owned(),
            boot: Duration::ZERO,
            whole: Duration::ZERO,
            error: None,
            doctor: Vec::new(),
            parts: BTreeMap::new(),
            now: None,
        }
    }

    /// Takes a line that was printed at `time`; says whether it is worth showing as it comes.
    pub(super) fn read(&mut self, line: &str, time: Duration) -> bool {
        if let Some(part) = line.strip_prefix("vm: begin ") {
            self.now = Some((part.to_owned(), time));
            self.parts.entry(part.to_owned()).or_default();
            return false;
        }
        let Some((part, began)) = &self.now else {
            return true;
        };
        let known = self.parts.entry(part.clone()).or_default();
        if let Some(code) = line.strip_prefix(&format!("vm: end {part} ")) {
            let code = code.parse().unwrap_or(-1);
            known.ended = Some((code, time.saturating_sub(*began)));
            self.now = None;
            return false;
        }
        if part == "doctor" {
            self.doctor.push(line.to_owned());
            return false;
        }
        // The test runner leaves the name of the test in front.
        if let Some((_, told)) = line.split_once("back end ")
            && let Some((name, told)) = told.split_once(": ")
            && (told.starts_with(OK) || told.starts_with("FAILED"))
        {
            known.told.insert(name.to_owned(), told.to_owned());
        }
        true
    }

    /// Whether every back end said "ok" and every comparison of them held.
    pub(super) fn is_green(&self) -> bool {
        BROKERS.iter().all(|broker| {
            self.equal(broker).starts_with(OK)
                && BACK_ENDS
                    .iter()
                    .all(|name| self.told(name, broker).starts_with(OK))
        })
    }

    fn told(&self, back_end: &str, broker: &str) -> &str {
        let told = self.parts.get(broker).and_then(|part| part.told.get(back_end));
        told.map_or("no word", String::as_str)
    }

    /// Whether the test ended well: whether all back ends gave the same spans.
    fn equal(&self, broker: &str) -> String {
        match self.parts.get(broker).and_then(|part| part.ended) {
            Some((0, time)) => format!("{OK} in {:.1} s", time.as_secs_f64()),
            Some((code, time)) => format!("FAILED after {:.1} s (exit code {code})", time.as_secs_f64()),
            None => "no word".to_owned(),
        }
    }
}

const OK: &str = "ok";
/// Longer cells are cut: the whole is in the log.
const WIDEST: usize = 40;

/// The table: for each kernel a line for each back end, one for the comparison, one for the time.
pub(super) fn show(rows: &[Row]) -> String {
    let mut lines = vec![cells("kernel", "back end", BROKERS.map(str::to_owned))];
    for row in rows {
        let mut first = row.release.as_str();
        for back_end in BACK_ENDS {
            let told = BROKERS.map(|broker| row.told(back_end, broker).to_owned());
            lines.push(cells(first, back_end, told));
            first = "";
        }
        lines.push(cells(
            "",
            "the same spans",
            BROKERS.map(|broker| row.equal(broker)),
        ));
        lines.push(cells(
            "",
            if row.is_green() { "ok" } else { "FAILED" },
            [
                format!("booted in {:.1} s", row.boot.as_secs_f64()),
                format!("{:.1} s in all", row.whole.as_secs_f64()),
                String::new(),
            ],
        ));
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in &lines {
        let padded: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", padded.join("  ").trim_end());
    }
    for row in rows {
        if let Some(error) = &row.error {
            let _ = writeln!(text, "{}: {error}", row.kernel);
        }
    }
    text
}

/// Of a line of the table.
type Cells = [String; BROKERS.len() + 2];

fn cells(kernel: &str, back_end: &str, results: [String; BROKERS.len()]) -> Cells {
    let [redis, rabbitmq, rediss] = results.map(|cell| cell.chars().take(WIDEST).collect());
    [kernel.to_owned(), back_end.to_owned(), redis, rabbitmq, rediss]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Row {
        let mut row = Row::new("6.1");
        for (line, seconds) in lines.iter().zip(0..) {
            row.read(line, Duration::from_secs(seconds));
        }
        row
    }

    const GOOD: [&str; 19] = [
        "vm: begin doctor",
        "fentry: there",
        "vm: end doctor 0",
        "vm: begin redis",
        "test backends::same_spans::redis ... back end fentry: ok in 4.5 s",
        "back end kprobe: ok in 4.6 s",
        "back end tracepoint: ok in 4.7 s",
        "test result: ok. 1 passed; 0 failed",
        "vm: end redis 0",
        "vm: begin rabbitmq",
        "test backends::same_spans::rabbitmq ... back end fentry: ok in 7.5 s",
        "back end kprobe: ok in 7.6 s",
        "back end tracepoint: ok in 7.7 s",
        "vm: end rabbitmq 0",
        "vm: begin rediss",
        "test backends::same_spans::rediss ... back end fentry: ok in 2.5 s",
        "back end kprobe: ok in 2.6 s",
        "back end tracepoint: ok in 2.7 s",
        "vm: end rediss 0",
    ];

    /// Scenario: a guest in which everything passed.
    /// Guarantees: the row is green, and the table has every back end's time and every test's.
    #[test]
    fn a_green_row() {
        let row = read(&GOOD);
        assert!(row.is_green(), "{row:?}");
        let table = show(&[row]);
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split("  ").collect()).collect();
        let cells = |line: usize| -> Vec<&str> {
            let cells = lines[line].iter().map(|cell| cell.trim());
            cells.filter(|cell| !cell.is_empty()).collect()
        };
        assert_eq!(
            cells(1),
            ["6.1", "fentry", "ok in 4.5 s", "ok in 7.5 s", "ok in 2.5 s"]
        );
        assert_eq!(
            cells(4),
            ["the same spans", "ok in 5.0 s", "ok in 4.0 s", "ok in 4.0 s"]
        );
        assert_eq!(cells(5), ["ok", "booted in 0.0 s", "0.0 s in all"]);
    }

    /// Scenario: one line less or another word in it: a back end that is not told of, one that failed, a comparison that
    /// failed, a guest that ended in the middle.
    /// Guarantees: none of them is green, and the table says what is wrong.
    #[test]
    fn rows_that_are_not_green() {
        let changed = |place: usize, line: &'static str| {
            let mut lines = GOOD;
            lines[place] = line;
            read(&lines)
        };
        let failures = [
            (changed(5, "back end"), "no word"),
            (changed(5, "back end kprobe: FAILED: refused"), "FAILED: refused"),
            (
                changed(8, "vm: end redis 101"),
                "FAILED after 5.0 s (exit code 101)",
            ),
            (read(&GOOD[..11]), "no word"),
        ];
        for (row, shown) in failures {
            assert!(!row.is_green(), "{row:?}");
            let table = show(&[row]);
            assert!(table.contains(shown) && table.contains("FAILED"), "{table}");
        }
    }

    /// Scenario: lines before, in and after the parts of a job.
    /// Guarantees: those of tests are shown as they come; the doctor's are kept for when something fails.
    #[test]
    fn lines_that_are_shown() {
        let mut row = Row::new("6.1");
        let shown: Vec<&str> = GOOD
            .into_iter()
            .filter(|line| row.read(line, Duration::ZERO))
            .collect();
        assert_eq!(shown.len(), 10);
        assert!(shown.iter().all(|line| !line.starts_with("vm: ")));
        assert_eq!(row.doctor, ["fentry: there"]);
    }
}
