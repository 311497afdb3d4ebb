//! Spans of two agents that watched the same: where they say different things.
//!
//! Each span becomes a name and a list of facts. The id of a run is a hash of its start in ns, which each agent reads for itself:
//! a run is known by its task, retries and attempt, and whatever names a run by its span id (parents, links) by that instead.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Display};
use std::time::Duration;

use celeryscope_core::{Span, SpanId, SpanKind, Status, Value};

use crate::support::compare::{Expect, int, text};

/// Where a value of time stands among the attributes.
const QUEUE_TIME: &str = "celery.queue_time";
/// What a run says of how well it was seen.
const SEEN: [&str; 2] = ["celery.timing", "celery.end"];
/// What hangs on that.
const TIMES: [&str; 3] = ["start", "end", QUEUE_TIME];

/// How much of what one agent says the other has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// All of it, and nothing else.
    TheSame,
    /// Nothing else: it did not watch all the time. A run that it came amid may be vaguer, where it says so.
    NothingElse,
}

/// The differences, one line each; none when `got` agrees with `want`.
pub(crate) fn differences(want: &[Span], got: &[Span], says: Says, expect: &Expect) -> Vec<String> {
    let (want, got) = (facts(want, expect), facts(got, expect));
    let mut found = Vec::new();
    for (name, facts) in &got {
        let Some(known) = want.get(name) else {
            found.push(format!("{name}: there is none"));
            continue;
        };
        let vague = says == Says::NothingElse && seen_otherwise(known, facts);
        let hangs_on_it = |what: &str| SEEN.contains(&what) || TIMES.contains(&what);
        for (what, fact) in facts.iter().filter(|(what, _)| !(vague && hangs_on_it(what))) {
            match known.get(what) {
                Some(known) if known.agrees(fact) => {}
                Some(known) => found.push(format!("{name}: {what}: {fact} instead of {known}")),
                None => found.push(format!("{name}: {what}: {fact} instead of nothing")),
            }
        }
        if says == Says::TheSame {
            let missing = known.iter().filter(|(what, _)| !facts.contains_key(*what));
            found.extend(missing.map(|(what, known)| format!("{name}: {what}: nothing instead of {known}")));
        }
    }
    if says == Says::TheSame {
        let missing = want.keys().filter(|name| !got.contains_key(*name));
        found.extend(missing.map(|name| format!("{name}: missing")));
    }
    found
}

fn seen_otherwise(known: &Facts, facts: &Facts) -> bool {
    SEEN.iter()
        .any(|what| match (known.get(*what), facts.get(*what)) {
            (Some(known), Some(fact)) => !known.agrees(fact),
            (known, fact) => known.is_some() || fact.is_some(),
        })
}

/// What a span says, by name.
type Facts = BTreeMap<String, Fact>;

/// One thing of it.
enum Fact {
    Said(String),
    /// In ns, and how near another has to be.
    Time(u64, Duration),
}

impl Fact {
    fn agrees(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Said(mine), Self::Said(theirs)) => mine == theirs,
            (Self::Time(mine, near), Self::Time(theirs, _)) => {
                Duration::from_nanos(mine.abs_diff(*theirs)) <= *near
            }
            _ => false,
        }
    }
}

impl Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(what) => f.write_str(what),
            Self::Time(ns, _) => write!(f, "{}.{:09} s", ns / 1_000_000_000, ns % 1_000_000_000),
        }
    }
}

/// What each span says, under a name that every agent would give it.
fn facts(spans: &[Span], expect: &Expect) -> BTreeMap<String, Facts> {
    let mut in_order: Vec<&Span> = spans.iter().collect();
    in_order.sort_by_key(|span| (span.start, span.end));
    let mut seen = HashMap::new();
    let mut runs = HashMap::new();
    let named: Vec<(String, &Span)> = in_order
        .into_iter()
        .map(|span| {
            let name = name(span);
            let attempt: &mut u32 = seen.entry(name.clone()).or_default();
            *attempt += 1;
            let name = format!("{name} ({attempt})");
            if span.kind == SpanKind::Run {
                runs.insert(span.span_id, name.clone());
            }
            (name, span)
        })
        .collect();
    let of = |(name, span)| (name, says(span, &runs, expect));
    named.into_iter().map(of).collect()
}

/// All but the attempt: that is the place among spans of the same name.
fn name(span: &Span) -> String {
    let id = text(span, "celery.task_id").unwrap_or("-");
    let retries = int(span, "celery.retry_count").unwrap_or(-1);
    let own = match span.kind {
        SpanKind::Publish => span.span_id.to_string(),
        SpanKind::Run => "a run".to_owned(),
    };
    format!("{} {id} #{retries}, {own} in trace {}", span.name, span.trace_id)
}

fn says(span: &Span, runs: &HashMap<SpanId, String>, expect: &Expect) -> Facts {
    // All other ids are the same for all agents.
    let other = |id: &SpanId| runs.get(id).cloned().unwrap_or_else(|| id.to_string());
    let end = |ns| Fact::Time(ns, expect.end_p95);
    let mut facts = BTreeMap::from([
        ("start".to_owned(), Fact::Time(span.start.0, expect.start_p95)),
        ("end".to_owned(), end(span.end.0)),
    ]);
    let mut say = |what: String, said: String| facts.insert(what, Fact::Said(said));
    if span.status != Status::Unset {
        say("status".to_owned(), format!("{:?}", span.status));
    }
    say("trace state".to_owned(), span.trace_state.to_string());
    if let Some(parent) = &span.parent {
        say("parent".to_owned(), other(parent));
    }
    for link in &span.links {
        say(
            format!("link to {}", other(&link.span_id)),
            link.trace_id.to_string(),
        );
    }
    for (key, value) in &span.process.resource {
        say(format!("resource {key}"), value.clone());
    }
    for (key, value) in span.attributes.iter().filter(|(key, _)| *key != QUEUE_TIME) {
        say((*key).to_owned(), format!("{value:?}"));
    }
    if let Some(Value::Float(seconds)) = span.attribute(QUEUE_TIME) {
        let ns = (seconds * 1e9) as u64;
        let near = expect.start_p95 + expect.publish_after;
        facts.insert(QUEUE_TIME.to_owned(), Fact::Time(ns, near));
    }
    for event in &span.events {
        let before = |n: &usize| facts.contains_key(&format!("event {} {n}", event.name));
        let nth = (1..).take_while(before).count() + 1;
        let what = format!("event {} {nth}", event.name);
        facts.insert(format!("{what} at"), end(event.at.0));
        facts.insert(what, Fact::Said(format!("{:?}", event.attributes)));
    }
    facts
}
