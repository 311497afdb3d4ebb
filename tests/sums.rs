//! Bounded everything, with counters that add up: the core under more than it may hold.

#[path = "../fuzz/src/core/invariants.rs"]
mod invariants;
mod support;

use celeryscope_core::common::{Header, Idle, Kind, LeftOut, Record};
use celeryscope_core::{Config, Limits, Pipeline, Stats};
use invariants::{Put, holds, over};
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
                5 => all.push(idle(&record, &mut dice)),
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

/// Bytes are said to be left out before the record, and somewhere in the other direction; sometimes not even that is whole.
fn idle(record: &Owned, dice: &mut Dice) -> Owned {
    let start = record.header.start;
    let left_out = |bytes| LeftOut { start, bytes };
    let idle = Idle {
        sent: left_out(dice.roll(3) * 40),
        received: left_out(dice.roll(3) * 3),
    };
    let payload = idle.to_bytes();
    let whole = dice.roll(8) > 0;
    Owned {
        kind: Kind::Idle,
        header: record.header,
        payload: if whole {
            payload.to_vec()
        } else {
            payload[..20].to_vec()
        },
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

/// Feeds the records and looks at every sum on the way and at the end; gives the counters.
fn feed(records: &[Owned], limits: Limits) -> Stats {
    let mut pipeline = Pipeline::new(Config {
        limits,
        ..Config::default()
    });
    let mut put = Put::default();
    for (at, record) in records.iter().enumerate() {
        pipeline.feed(&Record::new(record.kind, record.header, &record.payload));
        put.drain(&mut pipeline);
        if at % 37 == 0 {
            let when = format!("after record {at}");
            holds(&pipeline.stats(), &pipeline.held(), put, &when);
        }
    }
    pipeline.finish();
    put.drain(&mut pipeline);
    let stats = pipeline.stats();
    over(&stats, &pipeline.held(), put);
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
