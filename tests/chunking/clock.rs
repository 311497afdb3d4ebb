//! The wall clock is set while tasks are published and run.

use celeryscope_core::common::{Header, Kind};
use celeryscope_core::{Span, SpanKind};

use crate::loss::key;
use crate::support::fixture::{Fixture, Owned};
use crate::support::replay;

/// By how much it is set, in ns.
const STEPS: [i64; 3] = [3_600_000_000_000, -3_600_000_000_000, -40_000_000];

/// Scenario: in the middle of the longest run the wall clock is set an hour forward, an hour back, and 40 ms back.
/// Guarantees: the same spans; each lasts as long as it did, is where it was or off by what the clock was set by, and keeps its trace;
/// every parent that was among them is.
#[test]
fn a_step_of_the_clock_changes_no_duration() {
    for name in ["redis-retry", "redis-nested", "rabbitmq-retry", "rabbitmq-nested"] {
        let fixture = Fixture::load(name);
        let whole = replay(&fixture.records).spans;
        for by in STEPS {
            let got = replay(&stepped(&fixture.records, &whole, by)).spans;
            let what = format!("{name}, {by} ns");
            assert_eq!(got.len(), whole.len(), "{what}");
            let mut moved = 0;
            for was in &whole {
                let span = got.iter().find(|span| key(span) == key(was));
                let span = span.unwrap_or_else(|| panic!("{what}: {} is missing", was.name));
                let off = span.start.0.cast_signed() - was.start.0.cast_signed();
                assert_eq!(length(span), length(was), "{what}: {}", was.name);
                assert!([0, by].contains(&off), "{what}: {} is off by {off}", was.name);
                moved += usize::from(off != 0);
                assert_eq!(span.trace_id, was.trace_id, "{what}");
                let has_parent = |spans: &[Span], span: &Span| {
                    spans.iter().any(|other| span.parent == Some(other.span_id))
                };
                assert_eq!(
                    has_parent(&got, span),
                    has_parent(&whole, was),
                    "{what}: {}",
                    was.name
                );
            }
            assert!(
                moved > 0 && moved < whole.len(),
                "{what}: {moved} of {}",
                whole.len()
            );
        }
    }
}

fn length(span: &Span) -> u64 {
    span.end.0.saturating_sub(span.start.0)
}

/// The records of a run in whose middle the clock is set.
fn stepped(records: &[Owned], spans: &[Span], by: i64) -> Vec<Owned> {
    let clock = records.iter().find(|record| record.kind == Kind::Clock);
    let (mono, wall) = clock.map(|clock| (clock.header.exit, clock.header.conn)).unwrap();
    let longest = spans
        .iter()
        .filter(|span| span.kind == SpanKind::Run)
        .max_by_key(|span| length(span))
        .unwrap();
    let middle = longest.start.0 + length(longest) / 2 - wall + mono;
    let set = |at: u64, wall: u64| Owned {
        kind: Kind::Clock,
        header: Header {
            enter: at,
            exit: at,
            conn: wall.strict_add_signed(by),
            ..Header::default()
        },
        payload: Vec::new(),
    };
    let mut out: Vec<Owned> = Vec::new();
    for record in records {
        let late = record.header.exit > middle;
        if late && out.last().is_some_and(|last| last.header.exit <= middle) {
            out.push(set(middle, wall + (middle - mono)));
        }
        out.push(if late && record.kind == Kind::Clock {
            set(record.header.exit, record.header.conn)
        } else {
            record.clone()
        });
    }
    out
}
