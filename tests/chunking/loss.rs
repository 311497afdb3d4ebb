//! What the loss of one record may do to the spans of a run: cost or change those it had a part in, no others.

use std::collections::{BTreeMap, HashMap, HashSet};

use celeryscope_core::common::Kind;
use celeryscope_core::{Span, SpanKind};

use crate::pieces::Broker;
use crate::support::Replay;
use crate::support::compare::{int, span_label, text};
use crate::support::fixture::Owned;
use crate::{rabbitmq, redis};

/// A whole run, to be compared with the same run without one of its records.
pub(crate) struct Loss<'a> {
    records: &'a [Owned],
    whole: &'a Replay,
    /// Tasks that the loss of each record of a connection may touch.
    touched: Vec<HashSet<&'a str>>,
}

impl<'a> Loss<'a> {
    pub(crate) fn new(records: &'a [Owned], whole: &'a Replay, broker: Broker) -> Self {
        assert!(!whole.spans.is_empty(), "the whole run has no spans");
        let ids: HashSet<&str> = whole
            .spans
            .iter()
            .filter_map(|span| text(span, "messaging.message.id"))
            .collect();
        let touched = match broker {
            Broker::Redis => redis::touched(records, &ids),
            Broker::RabbitMq => rabbitmq::touched(records, &ids),
        };
        Self {
            records,
            whole,
            touched,
        }
    }

    /// What is wrong with `after`, the run without record `lost`.
    pub(crate) fn judge(&self, after: &Replay, lost: usize) -> Vec<String> {
        let record = &self.records[lost];
        let bytes = String::from_utf8_lossy(&record.payload[..record.payload.len().min(40)]).into_owned();
        let what = format!(
            "  without {lost}, a {:?} of {} ({bytes:?}):",
            record.kind, record.header.pid
        );
        let mut faults = Vec::new();
        let mut known = BTreeMap::<_, Vec<&Span>>::new();
        for span in &self.whole.spans {
            known.entry(key(span)).or_default().push(span);
        }
        let excused = self.excused(lost);
        // Its own events are where a worker says its name.
        let nameless = contains(&record.payload, b"celeryev") && contains(&record.payload, b"worker.");
        for span in &after.spans {
            let candidates = known.entry(key(span)).or_default();
            if let Some(at) = candidates.iter().position(|whole| *whole == span) {
                candidates.remove(at);
            } else if let Some(whole) = candidates.pop() {
                let same = nameless && without_name(whole) == without_name(span);
                if !(same || excused(span) || excused(whole)) {
                    faults.push(format!(
                        "{what} {} changed: {}",
                        span_label(span),
                        differences(whole, span)
                    ));
                }
            } else {
                faults.push(format!("{what} {} is made up", span_label(span)));
            }
        }
        for span in known.into_values().flatten().filter(|span| !excused(span)) {
            faults.push(format!("{what} {} is gone", span_label(span)));
        }
        if matches!(record.kind, Kind::Send | Kind::Recv) && self.revealed(lost) {
            let before: HashMap<_, _> = self.whole.stats.iter().map(|(name, _, n)| (name, n)).collect();
            let grown = after
                .stats
                .iter()
                .any(|(name, _, n)| !matches!(name, "records" | "spans") && n > before[name]);
            if !grown {
                faults.push(format!("{what} no counter tells of it"));
            }
        }
        faults
    }

    /// Whether later bytes of the same direction show that some are missing.
    fn revealed(&self, lost: usize) -> bool {
        let record = &self.records[lost];
        self.records[lost + 1..]
            .iter()
            .any(|later| later.kind == record.kind && later.header.conn == record.header.conn)
    }

    /// The spans that the loss may change or cost.
    fn excused(&self, lost: usize) -> impl Fn(&Span) -> bool {
        let record = &self.records[lost];
        let mut tasks = HashSet::new();
        let mut pids = HashSet::new();
        match record.kind {
            Kind::Open | Kind::Close | Kind::Send | Kind::Recv | Kind::Idle => {
                tasks.extend(self.touched[lost].iter().copied());
            }
            Kind::Fork => _ = pids.insert(record.header.conn as i64),
            _ => _ = pids.insert(i64::from(record.header.pid)),
        }
        let everything = record.kind == Kind::Clock;
        move |span: &Span| {
            everything
                || text(span, "messaging.message.id").is_some_and(|id| tasks.contains(id))
                || text(span, "celery.parent_id").is_some_and(|id| tasks.contains(id))
                || int(span, "process.pid").is_some_and(|pid| pids.contains(&pid))
                || pids.contains(&i64::from(span.process.pid))
        }
    }
}

pub(crate) fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

/// The span without the worker's name.
fn without_name(span: &Span) -> Span {
    let mut span = span.clone();
    span.attributes.retain(|(key, _)| *key != "celery.hostname");
    span
}

/// The fields in which two spans differ.
pub(crate) fn differences(a: &Span, b: &Span) -> String {
    let mut out = Vec::new();
    if (a.start, a.end) != (b.start, b.end) {
        out.push(format!(
            "times {:?} to {:?}, were {:?} to {:?}",
            b.start, b.end, a.start, a.end
        ));
    }
    if (a.trace_id, a.span_id, a.parent) != (b.trace_id, b.span_id, b.parent) {
        let ids = |span: &Span| format!("{} {} < {:?}", span.trace_id, span.span_id, span.parent);
        out.push(format!("ids {}, were {}", ids(b), ids(a)));
    }
    let gone = a
        .attributes
        .iter()
        .filter(|pair| !b.attributes.contains(pair))
        .map(|pair| format!("-{pair:?}"));
    let new = b
        .attributes
        .iter()
        .filter(|pair| !a.attributes.contains(pair))
        .map(|pair| format!("+{pair:?}"));
    out.extend(gone.chain(new));
    for (what, same) in [
        ("status", a.status == b.status),
        ("events", a.events == b.events),
        ("links", a.links == b.links),
        ("process", a.process == b.process),
    ] {
        if !same {
            out.push(format!("other {what}"));
        }
    }
    out.join(", ")
}

/// What a span is about.
pub(crate) fn key(span: &Span) -> (bool, String, i64, String) {
    (
        span.kind == SpanKind::Run,
        text(span, "messaging.message.id").unwrap_or_default().to_owned(),
        int(span, "celery.retry_count").unwrap_or(-1),
        span.name.to_string(),
    )
}

/// Everything that has the form of a UUID.
pub(crate) fn uuids(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.windows(36).filter(|window| {
        window.iter().enumerate().all(|(i, byte)| match i {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
    })
}

/// The tasks named in `bytes`.
pub(crate) fn named<'a>(bytes: &[u8], ids: &HashSet<&'a str>) -> HashSet<&'a str> {
    uuids(bytes)
        .filter_map(|uuid| ids.get(std::str::from_utf8(uuid).ok()?).copied())
        .collect()
}
