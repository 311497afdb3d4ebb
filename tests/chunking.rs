//! Cuts, losses and noise: the same bytes in other pieces are the same spans; bytes that are lost cost spans, and are
//! counted, but never make one up.

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use celeryscope_core::common::{Endpoint, Header, Kind, flags};
use celeryscope_core::{Span, SpanKind, Value};
use support::compare::{int, span_label, text};
use support::fixture::{Fixture, Owned, late};
use support::{Replay, replay};

/// Scenario: every send and receive is cut in two at its first byte, then at its second, and so on to the longest.
/// Guarantees: wherever the cut is, the spans are those of the uncut run, to the nanosecond.
#[test]
fn a_cut_at_every_byte_changes_nothing() {
    let fixture = Fixture::load("redis-resp2-chain");
    let whole = replay(&fixture.records);
    let longest = transfers(&fixture.records)
        .map(|(_, record)| record.payload.len())
        .max();
    for at in 1..longest.unwrap_or(0) {
        same(
            &whole,
            &split(&fixture.records, |_, len| vec![at.min(len)]),
            &format!("cut at {at}"),
        );
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
    ] {
        let fixture = Fixture::load(name);
        let whole = replay(&fixture.records);
        if name != "redis-bigbody" {
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
    ] {
        let fixture = Fixture::load(name);
        let whole = replay(&fixture.records);
        let loss = Loss::new(&fixture.records, &whole);
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

/// Attributes that depend on what was seen.
const EVIDENCE: [&str; 3] = ["celery.timing", "celery.queue_time", "messaging.destination.name"];

/// Scenario: connections of other programs, full of random bytes, half commands and huge lengths, among the recorded ones.
/// Guarantees: not one field of a span changes.
#[test]
fn noise_on_another_connection_changes_nothing() {
    let mut random = Random(0xbad);
    for name in ["redis-simple", "redis-chord", "redis-retry", "redis-broadcast"] {
        let fixture = Fixture::load(name);
        let whole = replay(&fixture.records);
        for round in 0..10 {
            same(
                &whole,
                &noisy(&fixture.records, &mut random),
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

/// Sends and receives with their places.
fn transfers(records: &[Owned]) -> impl Iterator<Item = (usize, &Owned)> {
    records
        .iter()
        .enumerate()
        .filter(|(_, record)| matches!(record.kind, Kind::Send | Kind::Recv))
}

/// Each send and receive as several records of the same transfer, cut where `cuts(record, length)` says.
fn split(records: &[Owned], mut cuts: impl FnMut(&Owned, usize) -> Vec<usize>) -> Vec<Owned> {
    let mut out = Vec::new();
    for record in records {
        if !matches!(record.kind, Kind::Send | Kind::Recv) {
            out.push(record.clone());
            continue;
        }
        let len = record.payload.len();
        let mut edges: BTreeSet<usize> = cuts(record, len)
            .into_iter()
            .filter(|at| (1..len).contains(at))
            .collect();
        edges.insert(len);
        let mut from = 0;
        for to in edges {
            let last = if to == len {
                record.header.flags & flags::LAST
            } else {
                0
            };
            out.push(Owned {
                kind: record.kind,
                header: Header {
                    at: record.header.at + from as u32,
                    flags: record.header.flags & !flags::LAST | last,
                    ..record.header
                },
                payload: record.payload[from..to].to_vec(),
            });
            from = to;
        }
    }
    out
}

/// The records with two foreign connections among them.
fn noisy(records: &[Owned], random: &mut Random) -> Vec<Owned> {
    const SCRAPS: [&[u8]; 8] = [
        b"*3\r\n$5\r\nLPUSH\r\n$6\r\ncelery\r\n$940\r\n{\"body\": \"",
        b"*2\r\n$5\r\nBRPOP\r\n$4294967295\r\n",
        b"*1\r\n$4\r\nEXEC\r\n",
        b"*1\r\n$5\r\nMULTI\r\n",
        b"*99999999999\r\n",
        b"$-5\r\n",
        b"+OK\r\n:1\r\n",
        b">4\r\n$8\r\npmessage\r\n",
    ];
    let first = records
        .iter()
        .filter(|record| record.kind == Kind::Open)
        .map(|record| record.header.conn)
        .max();
    let ids = [first.unwrap_or(0) + 1000, first.unwrap_or(0) + 1001];
    let mut offsets = [[0; 2]; 2];
    let mut out = Vec::new();
    for record in records {
        out.push(record.clone());
        let near = stranger(&record.header);
        if record.kind == Kind::Clock {
            for conn in ids {
                out.push(Owned {
                    kind: Kind::Open,
                    header: Header { conn, ..near },
                    payload: Endpoint {
                        port: 6379,
                        ..Endpoint::default()
                    }
                    .to_bytes()
                    .to_vec(),
                });
            }
        } else if random.below(2) == 0 {
            let (which, direction) = (random.below(2), random.below(2));
            let payload = if random.below(3) == 0 {
                let len = random.below(200) + 1;
                random.bytes(len)
            } else {
                SCRAPS[random.below(SCRAPS.len())].to_vec()
            };
            out.push(Owned {
                kind: [Kind::Send, Kind::Recv][direction],
                header: Header {
                    flags: flags::LAST,
                    conn: ids[which],
                    start: offsets[which][direction],
                    total: payload.len() as u32,
                    ..near
                },
                payload: payload.clone(),
            });
            // Now and then some bytes go missing here, too.
            offsets[which][direction] += payload.len() as u64 + random.below(2) as u64 * 17;
        }
    }
    out
}

/// A header of the same time from a process that is not in the recording.
fn stranger(header: &Header) -> Header {
    Header {
        enter: header.exit,
        exit: header.exit,
        pid: 4_000_000,
        tid: 4_000_000,
        ..Header::default()
    }
}

/// A small generator (SplitMix64), so that a failing round is the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `n`; 0 when `n` is.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// What of the whole run a lost record may change.
struct Loss<'a> {
    records: &'a [Owned],
    whole: &'a Replay,
    /// Task ids that each record names, by itself or by a delivery tag.
    named: Vec<HashSet<&'a str>>,
    /// Connections of subscriptions.
    subscribed: HashSet<u64>,
}

impl<'a> Loss<'a> {
    fn new(records: &'a [Owned], whole: &'a Replay) -> Self {
        assert!(!whole.spans.is_empty(), "the whole run has no spans");
        let ids: HashSet<&str> = whole
            .spans
            .iter()
            .filter_map(|span| text(span, "messaging.message.id"))
            .collect();
        let mut tags = HashMap::<Vec<u8>, &str>::new();
        for (_, record) in transfers(records) {
            for (tag, id) in delivery_tags(&record.payload, &ids) {
                tags.insert(tag, id);
            }
        }
        let named = records
            .iter()
            .map(|record| {
                uuids(&record.payload)
                    .filter_map(|uuid| {
                        tags.get(uuid)
                            .copied()
                            .or_else(|| ids.get(std::str::from_utf8(uuid).ok()?).copied())
                    })
                    .collect()
            })
            .collect();
        let subscribed = transfers(records)
            .filter(|(_, record)| record.kind == Kind::Send && contains(&record.payload, b"SUBSCRIBE"))
            .map(|(_, record)| record.header.conn)
            .collect();
        Self {
            records,
            whole,
            named,
            subscribed,
        }
    }

    /// What is wrong with `after`, the run without record `lost`.
    fn judge(&self, after: &Replay, lost: usize) -> Vec<String> {
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
        let nameless = contains(&record.payload, b"/0.celeryev/worker.");
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
            Kind::Open | Kind::Close | Kind::Send | Kind::Recv => {
                // Replies name no task: what they answer does.
                for i in self.exchange(lost) {
                    tasks.extend(self.named[i].iter().copied());
                }
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

    /// The sends and receives of a connection that the loss of record `lost` may touch: its own exchange (consecutive
    /// sends and the receives after them), and the one after it, where the gap is found and sync is back. All of the
    /// connection when that record opens or closes it, or when it is one of subscriptions: pushes answer nothing, so
    /// that no place in them is sure.
    fn exchange(&self, lost: usize) -> Vec<usize> {
        let record = &self.records[lost];
        let own: Vec<usize> = transfers(self.records)
            .filter(|(_, other)| other.header.conn == record.header.conn)
            .map(|(i, _)| i)
            .collect();
        let subscribes = self.subscribed.contains(&record.header.conn);
        let Some(at) = own.iter().position(|i| *i == lost).filter(|_| !subscribes) else {
            return own;
        };
        let begins = |at: &usize| {
            let kind = |at: usize| self.records[own[at]].kind;
            *at == 0 || (kind(*at), kind(*at - 1)) == (Kind::Send, Kind::Recv)
        };
        let first = (0..=at).rev().find(begins).unwrap_or(0);
        let after_next = (at + 1..own.len()).filter(begins).nth(1).unwrap_or(own.len());
        own[first..after_next].to_vec()
    }
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

/// The span without the worker's name.
fn without_name(span: &Span) -> Span {
    let mut span = span.clone();
    span.attributes.retain(|(key, _)| *key != "celery.hostname");
    span
}

/// The fields in which two spans differ.
fn differences(a: &Span, b: &Span) -> String {
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
fn key(span: &Span) -> (bool, String, i64, String) {
    (
        span.kind == SpanKind::Run,
        text(span, "messaging.message.id").unwrap_or_default().to_owned(),
        int(span, "celery.retry_count").unwrap_or(-1),
        span.name.clone(),
    )
}

/// Everything that has the form of a UUID.
fn uuids(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.windows(36).filter(|window| {
        window.iter().enumerate().all(|(i, byte)| match i {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
    })
}

/// The delivery tags of the messages in `bytes`, with the task of each.
fn delivery_tags<'a>(bytes: &[u8], ids: &HashSet<&'a str>) -> Vec<(Vec<u8>, &'a str)> {
    let find = |from: usize, what: &[u8]| {
        let at = bytes
            .get(from..)?
            .windows(what.len())
            .position(|window| window == what)?;
        Some(from + at + what.len())
    };
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = find(from, br#""id": ""#) {
        from = at;
        let id = bytes.get(at..at + 36).and_then(|id| std::str::from_utf8(id).ok());
        let tag = find(at, br#""delivery_tag": ""#).and_then(|at| bytes.get(at..at + 36));
        if let (Some(id), Some(tag)) = (id.and_then(|id| ids.get(id)), tag) {
            found.push((tag.to_vec(), *id));
        }
    }
    found
}
