//! Cuts, losses and noise: the same bytes in other pieces are the same spans; bytes that are lost cost spans, and are
//! counted, but never make one up.

mod clock;
mod loss;
mod order;
mod pieces;
mod rabbitmq;
mod redis;
#[path = "../support/mod.rs"]
mod support;

use celeryscope_core::common::{Header, Kind, flags};
use celeryscope_core::{Span, SpanKind, Value};
use loss::{Loss, differences, key};
use pieces::{Broker, Random, noisy, split, stranger, transfers};
use support::compare::span_label;
use support::fixture::{Fixture, Owned, late};
use support::{Replay, replay};

/// Scenario: every send and receive is cut in two at its first byte, then at its second, and so on to the longest.
/// Guarantees: wherever the cut is, the spans are those of the uncut run, to the nanosecond.
#[test]
fn a_cut_at_every_byte_changes_nothing() {
    for name in ["redis-resp2-chain", "rabbitmq-chain"] {
        let fixture = Fixture::load(name);
        let whole = replay(&fixture.records);
        let longest = transfers(&fixture.records)
            .map(|(_, record)| record.payload.len())
            .max();
        for at in 1..longest.unwrap_or(0) {
            same(
                &whole,
                &split(&fixture.records, |_, len| vec![at.min(len)]),
                &format!("{name} cut at {at}"),
            );
        }
    }
}

/// Scenario: single bytes, and many cuts at random places, over every kind of traffic that was recorded.
/// Guarantees: the spans are those of the uncut run.
#[test]
fn random_cuts_change_nothing() {
    let mut random = Random(0x5eed);
    for name in [
        "redis-bigbody",
        "redis-broadcast",
        "redis-chord",
        "redis-events",
        "redis-failure",
        "redis-limits",
        "redis-otel",
        "redis-revoke",
        "redis-warm-shutdown",
        "rabbitmq-bigbody",
        "rabbitmq-broadcast",
        "rabbitmq-chord",
        "rabbitmq-failure",
        "rabbitmq-otel",
        "rabbitmq-revoke",
        "rabbitmq-warm-shutdown",
    ] {
        let fixture = Fixture::load(name);
        let whole = replay(&fixture.records);
        if !name.ends_with("-bigbody") {
            same(
                &whole,
                &split(&fixture.records, |_, len| (1..len).collect()),
                &format!("{name} in single bytes"),
            );
        }
        for round in 0..10 {
            let cuts = split(&fixture.records, |_, len| {
                (0..random.below(8)).map(|_| random.below(len)).collect()
            });
            same(&whole, &cuts, &format!("{name}, round {round}"));
        }
    }
}

/// Scenario: each record of a recording is lost in turn.
/// Guarantees: no panic; nothing is made up; a span that differs belongs to a task of the lost record's exchange or of
/// the next one on its connection, or to its process; a lost send or receive that later bytes reveal is counted.
#[test]
fn a_lost_record_costs_only_what_it_carried() {
    let mut all = Vec::new();
    for name in [
        "redis-bigbody",
        "redis-broadcast",
        "redis-chain",
        "redis-headers",
        "redis-limits",
        "redis-resp2-chain",
        "redis-retry",
        "redis-revoke",
        "redis-warm-shutdown",
        "rabbitmq-bigbody",
        "rabbitmq-broadcast",
        "rabbitmq-chain",
        "rabbitmq-eta",
        "rabbitmq-headers",
        "rabbitmq-retry",
        "rabbitmq-revoke",
        "rabbitmq-warm-shutdown",
    ] {
        let fixture = Fixture::load(name);
        let whole = replay(&fixture.records);
        let loss = Loss::new(&fixture.records, &whole, Broker::of(name));
        let mut faults: Vec<String> = Vec::new();
        for lost in 0..fixture.records.len() {
            let rest = fixture.records.iter().enumerate().filter(|(i, _)| *i != lost);
            faults.extend(loss.judge(&replay(rest.map(|(_, record)| record)), lost));
        }
        all.extend(faults.into_iter().map(|fault| format!("{name} {fault}")));
    }
    assert!(all.is_empty(), "{} faults\n{}", all.len(), all.join("\n"));
}

/// Scenario: the agent starts at any point of a recording, while tasks are published, held and run.
/// Guarantees: no panic; nothing is made up; what it tells of a task agrees with the whole run.
#[test]
fn an_agent_that_comes_in_the_middle_makes_nothing_up() {
    let mut faults = Vec::new();
    for name in [
        "redis-retry",
        "redis-revoke",
        "redis-warm-shutdown",
        "redis-acks-late",
        "rabbitmq-retry",
        "rabbitmq-revoke",
        "rabbitmq-warm-shutdown",
        "rabbitmq-acks-late",
    ] {
        let fixture = Fixture::load(name);
        let whole = replay(&fixture.records);
        for from in 1..fixture.records.len() {
            let mut known: Vec<&Span> = whole.spans.iter().collect();
            for span in &replay(&late(&fixture.records, from)).spans {
                let what = format!("{name} from {from}: {}", span_label(span));
                let Some(at) = known.iter().position(|whole| key(whole) == key(span)) else {
                    faults.push(format!("{what} is made up"));
                    continue;
                };
                let whole = known.swap_remove(at);
                let agrees = |(name, value): &(&str, Value)| {
                    EVIDENCE.contains(name) || whole.attribute(name) == Some(value)
                };
                if span.trace_id != whole.trace_id || !span.attributes.iter().all(agrees) {
                    faults.push(format!("{what} differs: {}", differences(whole, span)));
                }
            }
        }
    }
    assert!(
        faults.is_empty(),
        "{} faults\n{}",
        faults.len(),
        faults.join("\n")
    );
}

/// Scenario: every connection is one of TLS: sealed bytes pass both ways, of which a few are told, then it turns out to speak TLS.
/// Guarantees: the spans are those of the plain run, as if the sealed bytes had never been told.
#[test]
fn what_is_inside_tls_is_what_counts() {
    let mut random = Random(0x715);
    for name in ["redis-chain", "redis-retry", "rabbitmq-chain", "rabbitmq-retry"] {
        let fixture = Fixture::load(name);
        let whole = replay(&fixture.records);
        let mut records = Vec::new();
        for record in &fixture.records {
            records.push(record.clone());
            if record.kind != Kind::Open {
                continue;
            }
            for kind in [Kind::Send, Kind::Recv] {
                let payload = random.bytes(517);
                let header = Header {
                    total: payload.len() as u32,
                    flags: flags::LAST,
                    ..record.header
                };
                records.push(Owned {
                    kind,
                    header,
                    payload,
                });
            }
            records.push(Owned {
                kind: Kind::Tls,
                payload: Vec::new(),
                ..record.clone()
            });
        }
        same(&whole, &records, name);
        let tls = replay(&records).stats.connections_tls;
        assert_eq!(tls, whole.stats.connections, "{name}");
    }
}

/// Scenario: programs that publish are moved aside while they send, so that all they do is told of 100 ms late: what they sent has
/// arrived, been run and been acked by then.
/// Guarantees: the spans are those of the run as it was, queue times included.
#[test]
fn a_publish_that_is_told_late_counts() {
    for name in [
        "redis-simple",
        "redis-headers",
        "rabbitmq-simple",
        "rabbitmq-headers",
    ] {
        let fixture = Fixture::load(name);
        let whole = replay(&fixture.records);
        let pids = |kind: SpanKind| -> Vec<Value> {
            let of_kind = whole.spans.iter().filter(|span| span.kind == kind);
            of_kind
                .filter_map(|span| span.attribute("process.pid"))
                .cloned()
                .collect()
        };
        let (senders, runners) = (pids(SpanKind::Publish), pids(SpanKind::Run));
        let is_late = |record: &Owned| {
            let pid = Value::Int(record.header.pid.into());
            senders.contains(&pid) && !runners.contains(&pid)
        };
        let mut records = fixture.records.clone();
        records.sort_by_key(|record| record.header.exit + if is_late(record) { 100_000_000 } else { 0 });
        assert!(records.iter().any(is_late), "{name}");
        let by_label = |mut spans: Vec<Span>| {
            spans.sort_by_key(span_label);
            spans
        };
        assert_eq!(by_label(replay(&records).spans), by_label(whole.spans), "{name}");
    }
}

/// Attributes that depend on what was seen.
const EVIDENCE: [&str; 3] = ["celery.timing", "celery.queue_time", "messaging.destination.name"];

/// Scenario: connections of other programs, full of random bytes, half commands and huge lengths, among the recorded ones.
/// Guarantees: not one field of a span changes.
#[test]
fn noise_on_another_connection_changes_nothing() {
    let mut random = Random(0xbad);
    for name in [
        "redis-simple",
        "redis-chord",
        "redis-retry",
        "redis-broadcast",
        "rabbitmq-simple",
        "rabbitmq-chord",
        "rabbitmq-retry",
        "rabbitmq-broadcast",
    ] {
        let fixture = Fixture::load(name);
        let whole = replay(&fixture.records);
        for round in 0..10 {
            same(
                &whole,
                &noisy(&fixture.records, Broker::of(name), &mut random),
                &format!("{name}, round {round}"),
            );
        }
    }
}

/// Scenario: a pool's pipes carry what only looks like frames, from processes that are no pool children.
/// Guarantees: no panic, not one field of a span changes.
#[test]
fn noise_on_pipes_changes_nothing() {
    let mut random = Random(0x919e);
    let fixture = Fixture::load("redis-failure");
    let whole = replay(&fixture.records);
    for round in 0..20 {
        let mut records = Vec::new();
        for record in &fixture.records {
            if random.below(3) == 0 {
                let kind = if random.below(2) == 0 {
                    Kind::PipeRead
                } else {
                    Kind::PipeWrite
                };
                let mut payload = b"\x80\x05\x95\0\0\0\0\0\0\0\0\x4b\x00\x28\x4b\x00".to_vec();
                payload[12] = [0, 1, 2, 4, 15][random.below(5)];
                payload.extend(random.bytes(112));
                payload.truncate(random.below(128) + 1);
                let header = Header {
                    flags: flags::LAST,
                    conn: 5,
                    total: payload.len() as u32,
                    ..stranger(&record.header)
                };
                records.push(Owned {
                    kind,
                    header,
                    payload,
                });
            }
            records.push(record.clone());
        }
        same(&whole, &records, &format!("round {round}"));
    }
}

/// Fails unless `records` give the same spans as the whole run.
fn same(whole: &Replay, records: &[Owned], what: &str) {
    assert!(!whole.spans.is_empty(), "{what}: the uncut run has no spans");
    let got = replay(records);
    for (want, got) in whole.spans.iter().zip(&got.spans) {
        assert_eq!(want, got, "{what}");
    }
    assert_eq!(whole.spans.len(), got.spans.len(), "{what}: number of spans");
}
