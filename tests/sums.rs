//! Bounded everything, with counters that add up: the core under more than it may hold.

mod support;

use celeryscope_core::common::{Header, Kind, Record};
use celeryscope_core::{Config, Held, Limits, Output, Pipeline, SpanKind, Stats};
use support::fixture::{Fixture, Owned};

/// Runs of real workers at the same time, each on connections and in processes of its own.
const FIXTURES: &[&str] = &[
    "redis-chord",
    "redis-retry",
    "redis-bigbody",
    "redis-failure",
    "rabbitmq-chord",
    "rabbitmq-failure",
    "rabbitmq-acks-late",
    "rabbitmq-bigbody",
];

const COPIES: u64 = 12;

/// A fraction of what these runs would hold.
fn tight() -> Limits {
    Limits {
        connections: 128,
        stream_bytes: 48 * 1024,
        tasks: 24,
        message_bytes: 6 * 1024,
        groups: 1,
        processes: 12,
        ..Limits::default()
    }
}

/// xorshift64: the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// The record as it would be of another run of the same program.
fn moved(record: &Owned, run: u64) -> Owned {
    let mut record = record.clone();
    let processes = u32::try_from(run).unwrap() * 1_000_000;
    record.header.pid += processes;
    record.header.tid += processes;
    record.header.conn += match record.kind {
        Kind::Fork | Kind::Process => u64::from(processes),
        Kind::Clock | Kind::Lost => 0,
        _ => run << 40,
    };
    record
}

/// All runs, interleaved at random; some records are lost, some come twice, some hold noise, and some transfers never end.
fn hostile() -> Vec<Owned> {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut runs: Vec<std::vec::IntoIter<Owned>> = Vec::new();
    for (number, name) in FIXTURES.iter().enumerate() {
        let records = Fixture::load(name).records;
        for copy in 0..COPIES {
            let run = number as u64 * COPIES + copy;
            let moved: Vec<Owned> = records.iter().map(|record| moved(record, run)).collect();
            runs.push(moved.into_iter());
        }
    }
    let mut all = Vec::new();
    while !runs.is_empty() {
        let at = dice.roll(runs.len() as u64) as usize;
        for _ in 0..=dice.roll(12) {
            let Some(mut record) = runs[at].next() else {
                drop(runs.swap_remove(at));
                break;
            };
            match dice.roll(40) {
                0 => continue,
                1 => all.push(record.clone()),
                2 => record
                    .payload
                    .iter_mut()
                    .for_each(|byte| *byte ^= dice.roll(256) as u8),
                3 => record.payload.truncate(record.payload.len() / 2),
                4 if matches!(record.kind, Kind::Send | Kind::Recv) => all.push(unsealed(&record)),
                _ => {}
            }
            all.push(record);
        }
        if dice.roll(8) == 0 {
            all.push(fork(&mut dice));
        }
    }
    all
}

/// The connection turns out to speak TLS.
fn unsealed(record: &Owned) -> Owned {
    Owned {
        kind: Kind::Tls,
        header: record.header,
        payload: Vec::new(),
    }
}

/// A child that is never heard of.
fn fork(dice: &mut Dice) -> Owned {
    let header = Header {
        pid: 7,
        tid: 7,
        conn: dice.roll(1 << 31),
        ..Header::default()
    };
    Owned {
        kind: Kind::Fork,
        header,
        payload: Vec::new(),
    }
}

/// Every sum that stats.rs claims, and every cap.
fn holds(stats: &Stats, held: &Held, put: (u64, u64), at: usize) {
    let sum = |what: &str, left: u64, right: u64| {
        assert_eq!(left, right, "{what}, after record {at}: {stats:#?} {held:#?}");
    };
    let kinds = [
        stats.records_transfer,
        stats.records_pipe,
        stats.records_process,
        stats.records_control,
        stats.records_rejected,
    ];
    sum("records", stats.records, kinds.iter().sum());
    let gone = stats.connections_closed + stats.connections_evicted;
    sum("connections", stats.connections, gone + held.connections_held);
    sum(
        "RESP",
        stats.resp_bytes + stats.resp_gap_bytes,
        stats.resp_item_bytes
            + stats.resp_skipped_bytes
            + stats.resp_unfinished_bytes
            + held.resp_pending_bytes,
    );
    sum(
        "AMQP",
        stats.amqp_bytes + stats.amqp_gap_bytes,
        stats.amqp_frame_bytes
            + stats.amqp_skipped_bytes
            + stats.amqp_unfinished_bytes
            + held.amqp_pending_bytes,
    );
    sum("bytes", stats.stream_bytes, stats.resp_bytes + stats.amqp_bytes);
    let gaps = stats.resp_gap_bytes + stats.amqp_gap_bytes;
    sum("bytes in gaps", stats.stream_gap_bytes, gaps);
    let over = stats.runs + stats.attempts_unstarted;
    sum(
        "attempts",
        stats.attempts,
        over + held.attempts_held + held.runs_held,
    );
    let publishes = stats.publishes - held.publishes_held;
    sum("publishes", publishes, put.0);
    sum("runs", stats.runs, put.1);
    sum("spans", stats.spans, publishes + stats.runs);

    for (what, held, limit) in [
        ("connections", held.connections_held, held.connections_limit),
        ("attempts", held.attempts_held, held.attempts_limit),
        ("runs", held.runs_held, held.runs_limit),
        ("publishes", held.publishes_held, held.publishes_limit),
        ("tasks", held.tasks_held, held.tasks_limit),
        ("groups", held.groups_held, held.groups_limit),
        ("processes", held.processes_held, held.processes_limit),
        ("forks", held.forks_held, held.processes_limit),
        (
            "bytes of messages",
            held.message_bytes_held,
            held.message_bytes_limit,
        ),
        (
            "bytes of streams",
            held.stream_bytes_held,
            held.stream_bytes_limit,
        ),
        // One each, and never one of what is gone.
        (
            "timers",
            held.timers_held,
            held.attempts_held + held.runs_held + held.publishes_held,
        ),
    ] {
        assert!(held <= limit, "{what}: {held} of {limit}, after record {at}");
    }
}

/// Feeds the records and looks at every sum on the way and at the end; gives the counters.
fn feed(records: &[Owned], limits: Limits) -> Stats {
    let mut pipeline = Pipeline::new(Config {
        limits,
        ..Config::default()
    });
    let mut put = (0, 0);
    let drain = |pipeline: &mut Pipeline, put: &mut (u64, u64)| {
        while let Some(output) = pipeline.poll() {
            if let Output::Span(span) = output {
                match span.kind {
                    SpanKind::Publish => put.0 += 1,
                    SpanKind::Run => put.1 += 1,
                }
            }
        }
    };
    for (at, record) in records.iter().enumerate() {
        pipeline.feed(&Record::new(record.kind, record.header, &record.payload));
        drain(&mut pipeline, &mut put);
        if at % 37 == 0 {
            holds(&pipeline.stats(), &pipeline.held(), put, at);
        }
    }
    pipeline.finish();
    drain(&mut pipeline, &mut put);
    let (stats, held) = (pipeline.stats(), pipeline.held());
    holds(&stats, &held, put, records.len());
    let left = [
        held.connections_held,
        held.attempts_held,
        held.runs_held,
        held.publishes_held,
    ];
    assert_eq!((left, held.message_bytes_held), ([0; 4], 0), "all is put out");
    assert_eq!(held.stream_bytes_held, 0, "all is given back");
    stats
}

/// Scenario: a hundred recorded runs at once, with losses, repetitions and noise, through tables a fraction of their size.
/// Guarantees: after every few records each sum of stats.rs holds and no table is beyond its cap; every kind of eviction has
/// happened and is counted.
#[test]
fn hostile_load() {
    let stats = feed(&hostile(), tight());
    let evicted = [
        ("connections", stats.connections_evicted),
        ("streams", stats.streams_shed),
        ("bytes of streams", stats.streams_shed_bytes),
        ("publishes", stats.publishes_evicted),
        ("attempts", stats.attempts_evicted),
        ("runs", stats.runs_evicted),
        ("tasks", stats.tasks_evicted),
        ("groups", stats.groups_evicted),
        ("processes", stats.processes_evicted),
        ("forks", stats.forks_evicted),
    ];
    for (what, count) in evicted {
        assert!(count > 0, "no {what} were evicted: {stats:#?}");
    }
}

/// Scenario: the same through tables of the default size.
/// Guarantees: the sums hold, and nothing has to make room.
#[test]
fn enough_room() {
    let stats = feed(&hostile(), Limits::default());
    let evicted = [
        stats.connections_evicted,
        stats.streams_shed,
        stats.publishes_evicted,
        stats.tasks_evicted,
        stats.groups_evicted,
        stats.processes_evicted,
    ];
    assert_eq!(evicted, [0; 6], "{stats:#?}");
}
