//! What `--verbose` adds: each back end's attach plan, with what came of it here.

use serde::Serialize;

use crate::capture::attach::State;
use crate::capture::plan::{Backend, Need};

/// One hook of one back end.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    backend: &'static str,
    program: &'static str,
    hook: String,
    kernels: &'static str,
    need: &'static str,
    state: String,
}

/// The plans of all back ends; `used` is the one that was attached, if any, with the states of its rows.
pub(super) fn rows(used: Option<(Backend, &[State])>) -> Vec<Row> {
    Backend::ALL
        .into_iter()
        .flat_map(|backend| {
            let states = used.and_then(|(other, states)| (other == backend).then_some(states));
            backend.plan().iter().enumerate().map(move |(n, hook)| Row {
                backend: backend.name(),
                program: hook.program,
                hook: hook.at.to_string(),
                kernels: hook.kernels,
                need: match hook.need {
                    Need::Required => "required",
                    Need::Optional => "optional",
                    Need::OneOf(_) => "one of several",
                },
                state: match states.and_then(|states| states.get(n)) {
                    Some(State::Attached(target)) => format!("attached to {target}"),
                    Some(State::Absent) => "not in this kernel".to_owned(),
                    Some(State::Unused) | None => "not used".to_owned(),
                },
            })
        })
        .collect()
}

/// As text, in columns.
pub(super) fn to_table(rows: &[Row]) -> String {
    let heads = ["back end", "program", "hook", "kernels", "need", "here"];
    let cells = |row: &Row| {
        [
            row.backend.to_owned(),
            row.program.to_owned(),
            row.hook.clone(),
            row.kernels.to_owned(),
            row.need.to_owned(),
            row.state.clone(),
        ]
    };
    let lines: Vec<[String; 6]> = std::iter::once(heads.map(str::to_owned))
        .chain(rows.iter().map(cells))
        .collect();
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        let padded: Vec<String> = line
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text += padded.join("  ").trim_end();
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the tracepoint back end was attached, but for a hook that this kernel does not have.
    /// Guarantees: all plans are listed; only its rows say what came of them.
    #[test]
    fn each_hook_says_what_came_of_it() {
        let mut states = vec![State::Attached("a:b".to_owned()); Backend::Tracepoint.plan().len()];
        states[1] = State::Absent;
        let rows = rows(Some((Backend::Tracepoint, &states)));
        let all: usize = Backend::ALL.iter().map(|backend| backend.plan().len()).sum();
        assert_eq!(rows.len(), all);
        let table = to_table(&rows);
        let of = |backend: &str| {
            table
                .lines()
                .filter(|line| line.starts_with(backend))
                .collect::<Vec<_>>()
        };
        assert!(
            of("fentry").iter().all(|line| line.ends_with("not used")),
            "{table}"
        );
        assert!(of("tracepoint")[0].ends_with("attached to a:b"), "{table}");
        assert!(of("tracepoint")[1].ends_with("not in this kernel"), "{table}");
    }
}
