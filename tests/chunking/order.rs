//! Property tests: records of several runs at once, in any order that their sources allow, with losses and repetitions
//! elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use celeryscope_core::common::{Endpoint, Header, Kind};
use celeryscope_core::{Config, Limits, Span};
use proptest::prelude::*;

use crate::loss::differences;
use crate::pieces::{Random, split, stranger};
use crate::support::fixture::{Fixture, Owned};
use crate::support::{Replay, replay, replay_as};

/// Runs of both brokers that mean something together: chains, groups, retries, failures, killed children.
const RUNS: [&str; 8] = [
    "redis-chain",
    "redis-chord",
    "redis-failure",
    "redis-retry",
    "rabbitmq-chain",
    "rabbitmq-chord",
    "rabbitmq-failure",
    "rabbitmq-retry",
];

/// A recorded run and what is told of it alone.
struct Run {
    records: Vec<Owned>,
    alone: Replay,
}

static ALL: LazyLock<Vec<Run>> = LazyLock::new(|| {
    let run = |(number, name): (usize, &&str)| {
        let records = apart(&Fixture::load(name).records, number as u64 + 1);
        let alone = replay(&records);
        assert!(!alone.spans.is_empty(), "{name} has no spans");
        Run { records, alone }
    };
    RUNS.iter().enumerate().map(run).collect()
});

/// The run with processes and connections of its own, and all runs at one time by the same clock.
fn apart(records: &[Owned], number: u64) -> Vec<Owned> {
    let begin = records[0].header.exit;
    let wall = records[0].header.conn;
    let processes = u32::try_from(number).expect("a few runs") * 1_000_000;
    let moved = |record: &Owned| {
        let mut record = record.clone();
        let header = &mut record.header;
        header.pid += processes;
        header.tid += processes;
        header.enter = (SINCE + header.enter).saturating_sub(begin);
        header.exit = SINCE + header.exit - begin;
        match record.kind {
            Kind::Fork | Kind::Process => header.conn += u64::from(processes),
            Kind::Clock => header.conn = SINCE + header.conn - wall,
            Kind::Lost => {}
            _ => header.conn += number << 40,
        }
        record
    };
    records.iter().map(moved).collect()
}

/// When every run begins, by both clocks: long enough after zero for calls that were under way.
const SINCE: u64 = 1_000_000_000_000_000;

/// ns.
const SLACK: u64 = 100_000;

/// The runs as one list by time; where several are due within `slack`, which comes first is drawn. Each run keeps its own order.
fn interleaved(runs: &[&[Owned]], slack: u64, random: &mut Random) -> Vec<Owned> {
    let mut rests: Vec<&[Owned]> = runs.to_vec();
    let mut out = Vec::new();
    while let Some(first) = rests
        .iter()
        .filter_map(|rest| rest.first())
        .map(|record| record.header.exit)
        .min()
    {
        let due: Vec<usize> = (0..rests.len())
            .filter(|run| {
                rests[*run]
                    .first()
                    .is_some_and(|record| record.header.exit <= first + slack)
            })
            .collect();
        let run = due[random.below(due.len())];
        if let Some((record, rest)) = rests[run].split_first() {
            out.push(record.clone());
            rests[run] = rest;
        }
    }
    out
}

/// Each span of `want` is told once and as it was; of the others none is of these runs.
fn told(want: &[&Replay], got: &Replay) -> Result<(), TestCaseError> {
    let mut rest: HashMap<(bool, String), Vec<&Span>> = HashMap::new();
    for span in &got.spans {
        rest.entry(identity(span)).or_default().push(span);
    }
    for span in want.iter().flat_map(|replay| &replay.spans) {
        let same = rest.entry(identity(span)).or_default();
        let Some(at) = same.iter().position(|other| **other == *span) else {
            let other = same.first().map(|other| differences(span, other));
            return Err(TestCaseError::fail(format!(
                "{} is not told as it was: {other:?}",
                span.name
            )));
        };
        same.swap_remove(at);
    }
    let pids: Vec<u32> = want
        .iter()
        .flat_map(|replay| replay.spans.iter().map(|span| span.process.pid))
        .collect();
    let made_up = rest
        .values()
        .flatten()
        .find(|span| pids.contains(&span.process.pid));
    prop_assert!(made_up.is_none(), "made up: {made_up:#?}");
    Ok(())
}

fn identity(span: &Span) -> (bool, String) {
    let id = span.attribute("messaging.message.id");
    (
        span.kind == celeryscope_core::SpanKind::Run,
        format!("{id:?}{:?}", span.span_id),
    )
}

/// The records with some lost, some told twice and some cut: what a full ring buffer leaves of a host's traffic.
fn torn(records: &[Owned], random: &mut Random) -> Vec<Owned> {
    let cut = split(records, |_, len| {
        (0..random.below(3)).map(|_| random.below(len)).collect()
    });
    let mut out = Vec::new();
    for record in cut {
        match random.below(12) {
            0 => {}
            1 => out.extend([record.clone(), record]),
            _ => out.push(record),
        }
    }
    out
}

/// Three different runs.
fn three() -> impl Strategy<Value = Vec<usize>> {
    prop::sample::subsequence((0..RUNS.len()).collect::<Vec<_>>(), 3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Scenario: three runs on Redis and RabbitMQ at the same time on one host, cut at random places, their records mixed anew
    /// each time; what is due at about the same time comes in any order.
    /// Guarantees: the spans are those that each run has alone, to the nanosecond, and no others.
    #[test]
    fn any_interleaving_says_the_same(runs in three(), seed in any::<u64>(), slack in 0..20_000_000_u64) {
        let random = &mut Random(seed);
        let runs: Vec<&Run> = runs.iter().map(|run| &ALL[*run]).collect();
        let cut: Vec<Vec<Owned>> = runs
            .iter()
            .map(|run| split(&run.records, |_, len| (0..random.below(3)).map(|_| random.below(len)).collect()))
            .collect();
        let lists: Vec<&[Owned]> = cut.iter().map(Vec::as_slice).collect();
        let got = replay(&interleaved(&lists, slack, random));
        let want: Vec<&Replay> = runs.iter().map(|run| &run.alone).collect();
        told(&want, &got)?;
        prop_assert_eq!(got.spans.len(), want.iter().map(|replay| replay.spans.len()).sum::<usize>());
    }

    /// Scenario: of three runs at the same time two lose records, have them twice, and in pieces.
    /// Guarantees: every span of the third is as it is alone, and none is made up of its processes; of the others no span names
    /// a task that they have not.
    #[test]
    fn losses_elsewhere_change_nothing(runs in three(), seed in any::<u64>(), whole in 0..3_usize) {
        let random = &mut Random(seed);
        let runs: Vec<&Run> = runs.iter().map(|run| &ALL[*run]).collect();
        let mut lists: Vec<Vec<Owned>> = runs.iter().map(|run| torn(&run.records, random)).collect();
        lists[whole].clone_from(&runs[whole].records);
        let lists: Vec<&[Owned]> = lists.iter().map(Vec::as_slice).collect();
        let got = replay(&interleaved(&lists, 0, random));
        told(&[&runs[whole].alone], &got)?;
        let known: Vec<_> = runs
            .iter()
            .flat_map(|run| run.alone.spans.iter().map(|span| span.attribute("messaging.message.id")))
            .collect();
        for span in &got.spans {
            prop_assert!(known.contains(&span.attribute("messaging.message.id")), "made up: {:#?}", span);
        }
    }

    /// Scenario: one run, of which records of different connections and processes change places where they are as close as two
    /// processors may tell them apart; each source keeps its own order.
    /// Guarantees: the spans are those of the run in order, to the nanosecond.
    #[test]
    fn sources_change_places(run in 0..RUNS.len(), seed in any::<u64>(), slack in 0..SLACK) {
        let run = &ALL[run];
        let sources = by_source(&run.records);
        let lists: Vec<&[Owned]> = sources.iter().map(Vec::as_slice).collect();
        let got = replay(&interleaved(&lists, slack, &mut Random(seed)));
        told(&[&run.alone], &got)?;
        prop_assert_eq!(got.spans.len(), run.alone.spans.len());
    }

    /// Scenario: one run in which transfers are told twice.
    /// Guarantees: the spans are those of the run, to the nanosecond, and the repeated bytes are counted.
    #[test]
    fn repetitions_change_nothing(run in 0..RUNS.len(), seed in any::<u64>()) {
        let random = &mut Random(seed);
        let run = &ALL[run];
        let mut records = Vec::new();
        for record in &run.records {
            records.push(record.clone());
            // What is told twice has its place in the stream and is known by it.
            let told_by_place = matches!(record.kind, Kind::Send | Kind::Recv) && !record.payload.is_empty();
            if told_by_place && random.below(3) == 0 {
                records.push(record.clone());
            }
        }
        let got = replay(&records);
        told(&[&run.alone], &got)?;
        prop_assert_eq!(got.spans.len(), run.alone.spans.len());
        prop_assert!(got.stats.stream_overlap_bytes > 0);
    }
}

/// Scenario: each run through a table of 128 connections, while before every record of it a stranger opens one more.
/// Guarantees: the spans are those of the run alone, to the nanosecond; strangers are evicted, and counted.
#[test]
fn strangers_cost_nothing() {
    let limits = Limits {
        connections: 128,
        ..Limits::default()
    };
    let config = Config {
        limits,
        ..Config::default()
    };
    for run in ALL.iter() {
        let mut records = Vec::new();
        for (n, record) in run.records.iter().enumerate() {
            let header = Header {
                conn: (1 << 60) + n as u64,
                ..stranger(&record.header)
            };
            let payload = Endpoint::default().to_bytes().to_vec();
            // After the pair of clocks.
            if n > 0 {
                records.push(Owned {
                    kind: Kind::Open,
                    header,
                    payload,
                });
            }
            records.push(record.clone());
        }
        let got = replay_as(&records, config.clone());
        assert!(got.stats.connections_evicted > 0);
        told(&[&run.alone], &got).unwrap();
        assert_eq!(got.spans.len(), run.alone.spans.len());
    }
}

/// The records of each connection, and those of each process that are of no connection, in their order.
fn by_source(records: &[Owned]) -> Vec<Vec<Owned>> {
    let mut sources: BTreeMap<(bool, u64), Vec<Owned>> = BTreeMap::new();
    for record in records {
        let source = match record.kind {
            Kind::Open | Kind::Close | Kind::Send | Kind::Recv | Kind::Tls | Kind::Idle => {
                (true, record.header.conn)
            }
            _ => (false, u64::from(record.header.pid)),
        };
        sources.entry(source).or_default().push(record.clone());
    }
    sources.into_values().collect()
}
