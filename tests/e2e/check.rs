//! Spans against the truth, and the agent's own account of what it lost.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use celeryscope_core::{Span, SpanKind};

use crate::rig::agent::Left;
use crate::rig::patience::patient;
use crate::rig::{Scene, report};
use crate::support::compare::{self, Expect, Report};
use crate::support::truth::Truth;

/// Lines of a report of differences that are worth reading in a test's output.
const MOST_LINES: usize = 60;

/// Those of them that are, and how many more there are.
pub(crate) fn some(lines: &[String]) -> String {
    let shown = lines.len().min(MOST_LINES);
    let mut text = lines[..shown].join("\n");
    if lines.len() > shown {
        text += &format!("\n… and {} more", lines.len() - shown);
    }
    text
}

/// For tests of fewer than 100 runs, where one late switch between processes is a percentile: everything but times is
/// held to the same.
pub(crate) fn few_runs() -> Expect {
    Expect {
        start_p95: patient(Duration::from_millis(50)),
        end_p95: patient(Duration::from_millis(50)),
        publish_after: patient(Duration::from_millis(50)),
        ..Expect::default()
    }
}

/// Everything equal to the truth and nothing lost, or a panic with the whole list of differences.
pub(crate) fn all_is_told(scene: &Scene, left: &Left, expect: &Expect) -> Report {
    why_not_all(scene, left, expect).unwrap_or_else(|why| panic!("{why}"))
}

/// The same where the failure is the caller's to tell.
pub(crate) fn why_not_all(scene: &Scene, left: &Left, expect: &Expect) -> Result<Report, String> {
    why_lossy(left)?;
    why_unequal(scene, left, expect)
}

/// Spans equal to the truth.
pub(crate) fn spans_equal(scene: &Scene, left: &Left, expect: &Expect) -> Report {
    why_unequal(scene, left, expect).unwrap_or_else(|why| panic!("{why}"))
}

/// Whether a span is of one of these tasks.
pub(crate) fn of_tasks(ids: &HashSet<String>) -> impl Fn(&Span) -> bool {
    |span| compare::text(span, "messaging.message.id").is_some_and(|id| ids.contains(id))
}

/// Asserts that no table of the kernel half was ever full.
pub(crate) fn nothing_was_full(log: &str) {
    let counters = counters(log);
    for full in ["conns_full", "fds_full", "procs_full", "calls_full", "slots_full"] {
        assert_eq!(counters[full], 0, "{full}");
    }
}

/// What was left of these tasks, and the spans of others.
pub(crate) fn only(left: Left, ids: &HashSet<String>) -> (Left, Vec<Span>) {
    let (spans, others) = left.spans.into_iter().partition(of_tasks(ids));
    (Left { spans, ..left }, others)
}

fn why_unequal(scene: &Scene, left: &Left, expect: &Expect) -> Result<Report, String> {
    let truth = scene.whole_truth();
    assert!(
        truth.publishes().next().is_some(),
        "nothing was published: the test tests nothing"
    );
    let spans = as_sent(&left.spans, &truth);
    let report = compare::compare(&spans, &truth, expect);
    let text = report.to_string();
    let path = scene.folder().join(format!("{}.report.txt", left.name));
    std::fs::write(&path, &text).expect("the report's file");
    if !report.is_clean() {
        let some: Vec<_> = text.lines().take(MOST_LINES).collect();
        return Err(format!("{}\n  … in full: {}", some.join("\n"), path.display()));
    }
    report::say(text.trim_end());
    Ok(report)
}

/// OTLP has no place for "the message said sampled" apart from "the span is sampled": taken from the truth, unproved here.
fn as_sent(spans: &[Span], truth: &Truth) -> Vec<Span> {
    let said: HashMap<(&str, i64), bool> = truth
        .publishes()
        .filter_map(|(task, publish)| {
            Some(((task.id.as_str(), publish.retries), publish.traceparent?.sampled))
        })
        .collect();
    let with_flag = |span: &Span| {
        let id = compare::text(span, "messaging.message.id").unwrap_or_default();
        let retries = compare::int(span, "celery.retry_count").unwrap_or_default();
        Span {
            sampled: said.get(&(id, retries)).copied(),
            ..span.clone()
        }
    };
    spans.iter().map(with_flag).collect()
}

/// No record was lost between kernel and agent, no span between agent and output.
pub(crate) fn nothing_lost(left: &Left) {
    why_lossy(left).unwrap_or_else(|why| panic!("{why}"));
}

fn why_lossy(left: &Left) -> Result<(), String> {
    let summary = summary(&left.log);
    let of = |kind: SpanKind| left.spans.iter().filter(|span| span.kind == kind).count() as u64;
    for (what, want) in [
        ("dropped", 0),
        ("failed", 0),
        ("lost_records", 0),
        ("publishes", of(SpanKind::Publish)),
        ("runs", of(SpanKind::Run)),
    ] {
        let got = summary.get(what);
        if got != Some(&want) {
            return Err(format!(
                "{what} in the agent's summary: want {want}, got {got:?}: {}",
                left.log
            ));
        }
    }
    Ok(())
}

/// The numbers of the agent's last line, `done publishes=… runs=… exported=… …`.
pub(crate) fn summary(log: &str) -> BTreeMap<String, u64> {
    let line = log.lines().rev().find_map(|line| line.strip_prefix("done "));
    let line = line.unwrap_or_else(|| panic!("no line `done …` at the agent's end: {log}"));
    let pair = |word: &str| {
        word.split_once('=')
            .and_then(|(key, n)| Some((key.to_owned(), n.parse().ok()?)))
    };
    line.split(' ').filter_map(pair).collect()
}

/// The counters that `--stats` prints at the end: `counter name=value  # meaning`.
pub(crate) fn counters(log: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (name, rest) = line.strip_prefix("counter ")?.split_once('=')?;
        Some((name.to_owned(), rest.split("  #").next()?.trim().parse().ok()?))
    };
    log.lines().filter_map(pair).collect()
}
