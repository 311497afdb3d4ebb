//! One span against what it should say.

use std::fmt::{self, Write};
use std::time::Duration;

use celeryscope_core::{Span, SpanKind, Status, Value};

use super::super::truth::{Happening, Run, Task};

/// What is wrong with one span.
pub(super) struct Check<'a> {
    pub(super) whose: String,
    pub(super) span: &'a Span,
    pub(super) problems: Vec<[String; 3]>,
}

impl<'a> Check<'a> {
    pub(super) fn new(whose: &str, span: &'a Span) -> Self {
        Self {
            whose: whose.to_owned(),
            span,
            problems: Vec::new(),
        }
    }

    pub(super) fn that(&mut self, holds: bool, detail: impl FnOnce() -> String) {
        if !holds {
            self.problems
                .push(["wrong".to_owned(), self.whose.clone(), detail()]);
        }
    }

    pub(super) fn same<T: PartialEq + fmt::Debug>(&mut self, what: &str, got: T, want: T) {
        self.that(got == want, || format!("{what}: want {want:?}, got {got:?}"));
    }

    pub(super) fn attribute(&mut self, key: &str, want: impl Into<Value>) {
        let (got, want) = (self.span.attribute(key), want.into());
        self.that(got == Some(&want), || {
            format!("{key}: want {}, got {}", shown(Some(&want)), shown(got))
        });
    }

    pub(super) fn optional(&mut self, key: &str, want: Option<&str>) {
        match want {
            Some(want) => self.attribute(key, want.to_owned()),
            None => {
                let got = self.span.attribute(key);
                self.that(got.is_none(), || format!("{key}: want none, got {}", shown(got)));
            }
        }
    }
}

pub(super) fn shown(value: Option<&Value>) -> String {
    let mut out = String::new();
    let written = match value {
        None => write!(out, "none"),
        Some(Value::Str(text)) => write!(out, "{text:?}"),
        Some(Value::Int(n)) => write!(out, "{n}"),
        Some(Value::Float(n)) => write!(out, "{n}"),
        Some(Value::Bool(b)) => write!(out, "{b}"),
    };
    written.expect("a String takes any text");
    out
}

/// A text attribute.
pub fn text<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    match span.attribute(key) {
        Some(Value::Str(text)) => Some(text),
        _ => None,
    }
}

/// A whole-number attribute.
pub fn int(span: &Span, key: &str) -> Option<i64> {
    match span.attribute(key) {
        Some(Value::Int(n)) => Some(*n),
        _ => None,
    }
}

pub(super) fn label(kind: &str, id: &str, retries: i64, name: &str) -> String {
    format!("{kind:7} {} #{retries} {name}", id.get(..8).unwrap_or(id))
}

/// The same for a span.
pub fn span_label(span: &Span) -> String {
    let kind = match span.kind {
        SpanKind::Publish => "publish",
        SpanKind::Run => "run",
    };
    label(
        kind,
        text(span, "messaging.message.id").unwrap_or("-"),
        int(span, "celery.retry_count").unwrap_or(-1),
        text(span, "celery.task_name").unwrap_or(&span.name),
    )
}

pub(super) fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// How far a time in ns is from one in s.
pub(super) fn off(ns: u64, truth: f64) -> Duration {
    Duration::from_nanos(ns.abs_diff((truth * 1e9) as u64))
}

/// Seconds since 1970 of `2026-11-20T15:01:40.175904+00:00`.
pub(super) fn rfc3339(text: &str) -> Option<f64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    // Days since 1970 in the proleptic Gregorian calendar, years counted from March.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 - 719_468;
    let clock = number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
    let fraction: String = text
        .get(19..)?
        .chars()
        .take_while(|c| *c == '.' || c.is_ascii_digit())
        .collect();
    let fraction = if fraction.is_empty() {
        0.0
    } else {
        format!("0{fraction}").parse().ok()?
    };
    Some((days * 86_400 + clock) as f64 + fraction)
}

/// The states that fit: what Celery said, or what stopped it in mid-run. Why a process was stopped is told by results alone.
pub(super) fn states<'a>(task: &Task, run: &'a Run, results: bool) -> Vec<&'a str> {
    let told = |ev: &str| task.other.iter().any(|other| other.ev == ev);
    match &run.state {
        Some(state) => vec![state],
        None if !results => vec!["LOST"],
        None if told("revoked") => vec!["REVOKED"],
        None if run.end.is_none() && told("failure") => vec!["LOST", "FAILURE"],
        None if told("failure") => vec!["FAILURE"],
        None => vec!["LOST"],
    }
}

/// Status and error of a run with this state.
pub(super) fn outcome(check: &mut Check<'_>, state: &str, task: &Task, run: &Run, results: bool) {
    let span = check.span;
    let failed = matches!(state, "FAILURE" | "LOST");
    let fits = match state {
        "SUCCESS" => span.status == Status::Ok,
        _ if failed => matches!(span.status, Status::Error(_)),
        _ => span.status == Status::Unset,
    };
    check.that(fits, || {
        format!("status {:?} does not fit state {state}", span.status)
    });
    let error = text(span, "error.type");
    let exceptions = span
        .events
        .iter()
        .filter(|event| event.name == "exception")
        .count();
    if !failed {
        check.that(error.is_none() && exceptions == 0, || {
            format!("error.type {error:?} without a failure")
        });
        return;
    }
    // Celery tells a failure once: where the pool gave the job of a killed child to the next one, it is the last one's.
    let by_another = |failure: &Happening| {
        let since = |later: &Run| later.start > run.start && failure.t.is_some_and(|t| later.start < t);
        task.runs.iter().any(since)
    };
    let told = task
        .other
        .iter()
        .rev()
        .filter(|other| !by_another(other))
        .find_map(|other| other.exception.as_deref());
    let class = told
        .or(run.retval.as_deref())
        .and_then(|text| text.split('(').next());
    let want = class.filter(|_| state == "FAILURE").unwrap_or_default();
    check.that(error.is_some_and(|error| error.ends_with(want)), || {
        format!("error.type: want {want}, got {error:?}")
    });
    // Of a run that was lost and is made again nothing is stored.
    let wanted = if state == "FAILURE" || (told.is_some() && results) {
        1..=1
    } else {
        0..=1
    };
    check.that(wanted.contains(&exceptions), || {
        format!("exception events: want {wanted:?}, got {exceptions}")
    });
}
