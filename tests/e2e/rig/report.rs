//! Lines and tables that a passing test shows too.

use std::io::Write;

/// Writes a line past the test runner's capture: skips and measurements are meant to be seen.
pub(crate) fn say(line: &str) {
    // Nobody reads it when stderr is closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes a table with aligned columns.
pub(crate) fn table(title: &str, head: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells
            .chain(head.get(column).map(|cell| cell.chars().count()))
            .max()
            .unwrap_or(0)
    };
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.enumerate();
        let padded: Vec<String> = cells
            .map(|(column, cell)| format!("{cell:<w$}", w = width(column)))
            .collect();
        format!("  {}", padded.join("  ").trim_end())
    };
    let mut text = format!("{title}\n{}", line(&mut head.iter().copied()));
    for row in rows {
        text += "\n";
        text += &line(&mut row.iter().map(String::as_str));
    }
    say(&text);
}

/// The smallest, median, 95th percentile and greatest of some values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) count: usize,
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) p95: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one value; percentiles by nearest rank.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "no values to speak of");
        values.sort_by(f64::total_cmp);
        let rank = |share: f64| values[((values.len() as f64 * share).ceil() as usize).max(1) - 1];
        Self {
            count: values.len(),
            min: values[0],
            median: rank(0.5),
            p95: rank(0.95),
            max: rank(1.0),
        }
    }
}
