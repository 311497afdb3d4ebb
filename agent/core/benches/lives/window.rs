//! A recorded run, cut into what comes before and the stretch of it that can be repeated.
//!
//! That stretch begins with the first record that names a task and ends with the last that has to do with one. Left out
//! of it is what belongs to connections and not to tasks: connections that are opened in it, and all that is said on them
//! before a task is spoken of.

use std::collections::{BTreeMap, BTreeSet};

use celeryscope_core::common::Kind;
use memchr::memmem;

use crate::amqp;
use crate::repeat::{Change, Piece};
use crate::support::fixture::{Fixture, Owned};

/// Length of an id.
pub(crate) const ID: usize = 36;
/// Bytes of a pool frame before the number of its job: PROTO, FRAME, the frame's length, the frame's type, MARK.
const BEFORE_JOB: usize = 14;

/// One direction of a connection.
type Stream = (u64, bool);

/// A recorded run, made ready.
pub(crate) struct Window {
    /// The whole run as it was recorded, to the end of the window.
    pub(crate) before: Vec<Owned>,
    /// What can be repeated.
    pub(crate) pieces: Vec<Piece>,
    /// Streams that the pieces are of: how far each has come at the end of `before`.
    pub(crate) offsets: Vec<u64>,
    /// What time a repetition takes.
    pub(crate) span: u64,
    /// Tasks in it.
    pub(crate) tasks: u64,
}

impl Window {
    /// From the recorded run of this name.
    pub(crate) fn of(name: &str) -> Self {
        let Fixture { records, truth } = Fixture::load(name);
        let mut ids: Vec<String> = truth.tasks.iter().map(|task| task.id.clone()).collect();
        ids.extend(delivery_tags(&records, &ids));
        let names_a_task = |record: &Owned| names_one(record, &ids);
        let first = records.iter().position(names_a_task).expect("a task is sent");
        let last = records
            .iter()
            .rposition(|record| names_a_task(record) || is_of_job(record))
            .expect("a task ends");

        // Redis answers one command after the other; where its messages begin need not be looked for.
        let streams = match &truth.broker[..] {
            "amqp" => streams(&records[..=last]),
            _ => BTreeMap::new(),
        };
        let setups_end = setups_end(&records[..=last], first, &streams, &names_a_task);
        let is_steady = |at: &usize| {
            let setup_end = transfer(&records[*at]).and_then(|(conn, _)| setups_end.get(&conn));
            is_repeated(&records[*at]) && setup_end.is_none_or(|end| at >= end)
        };
        let kept: Vec<&Owned> = (first..=last).filter(is_steady).map(|at| &records[at]).collect();

        let numbers = delivery_numbers(&streams);
        let mut deliveries = BTreeMap::<(u64, u16), u64>::new();
        for number in kept.iter().flat_map(|record| numbers_in(&numbers, record)) {
            *deliveries.entry((number.conn, number.channel)).or_default() += u64::from(number.is_delivery);
        }
        let order: BTreeSet<Stream> = kept.iter().filter_map(|record| transfer(record)).collect();
        let jobs = kept.iter().filter(|record| record.kind == Kind::PipeRead).count() as u32;
        let pieces = kept.iter().map(|record| {
            let stream = transfer(record).and_then(|of| order.iter().position(|known| *known == of));
            let mut piece = Piece::new((*record).clone(), stream);
            for id in &ids {
                piece.changes.extend(find(&record.payload, id).map(Change::Id));
            }
            for number in numbers_in(&numbers, record) {
                piece.changes.push(Change::Delivery {
                    at: number.at - record.header.start as usize,
                    number: number.value,
                    step: deliveries[&(number.conn, number.channel)],
                });
            }
            if is_of_job(record) {
                widen_job(&mut piece, jobs);
            }
            piece
        });
        let begin = kept.iter().map(|record| record.header.enter).min();
        let end = records[last].header.exit;
        Self {
            pieces: pieces.collect(),
            offsets: order
                .iter()
                .map(|stream| reached(&records[..=last], *stream))
                .collect(),
            span: end - begin.unwrap_or(end) + 1,
            tasks: truth.tasks.len() as u64,
            before: records.into_iter().take(last + 1).collect(),
        }
    }
}

/// Of each connection that is opened from `first` on, the place of the first record that has to do with a task.
fn setups_end(
    records: &[Owned],
    first: usize,
    streams: &BTreeMap<Stream, Vec<u8>>,
    names_a_task: &impl Fn(&Owned) -> bool,
) -> BTreeMap<u64, usize> {
    let opened = records[first..].iter().filter(|record| record.kind == Kind::Open);
    let end = |conn| {
        let is_of = |record: &Owned| transfer(record).is_some_and(|(of, _)| of == conn);
        let named = records
            .iter()
            .position(|record| is_of(record) && names_a_task(record));
        named.map_or(usize::MAX, |at| message_begin(records, streams, at))
    };
    opened
        .map(|open| (open.header.conn, end(open.header.conn)))
        .collect()
}

fn is_repeated(record: &Owned) -> bool {
    matches!(
        record.kind,
        Kind::Send | Kind::Recv | Kind::PipeRead | Kind::PipeWrite
    )
}

fn transfer(record: &Owned) -> Option<Stream> {
    let sent = match record.kind {
        Kind::Send => true,
        Kind::Recv => false,
        _ => return None,
    };
    Some((record.header.conn, sent))
}

/// Where in `bytes` this id stands.
fn find<'a>(bytes: &'a [u8], id: &'a str) -> impl Iterator<Item = usize> + 'a {
    memmem::find_iter(bytes, id)
}

fn names_one(record: &Owned, ids: &[String]) -> bool {
    ids.iter().any(|id| find(&record.payload, id).next().is_some())
}

/// What kombu calls the messages of these tasks on Redis.
fn delivery_tags(records: &[Owned], tasks: &[String]) -> BTreeSet<String> {
    const KEY: &[u8] = br#""delivery_tag": ""#;
    let sent = records
        .iter()
        .filter(|record| record.kind == Kind::Send && names_one(record, tasks));
    let tags = sent.flat_map(|record| {
        let tag = |at| record.payload.get(at + KEY.len()..at + KEY.len() + ID);
        memmem::find_iter(&record.payload, KEY).filter_map(tag)
    });
    tags.map(|tag| String::from_utf8_lossy(tag).into_owned())
        .collect()
}

/// TASK, ACK or READY of the pool, whose job's number is a single byte.
fn is_of_job(record: &Owned) -> bool {
    matches!(record.kind, Kind::PipeRead | Kind::PipeWrite)
        && record.header.at == 0
        && matches!(
            record.payload.get(11..=BEFORE_JOB),
            Some([b'K', 0..=2, b'(', b'K'])
        )
}

/// Gives a job's number the four bytes that it has in a worker that has done many.
fn widen_job(piece: &mut Piece, jobs: u32) {
    let Piece { record, changes, .. } = piece;
    let captured = record.payload.len();
    let job = record.payload[BEFORE_JOB + 1];
    record
        .payload
        .splice(BEFORE_JOB..BEFORE_JOB + 2, [b'J', job, 0, 0, 0]);
    let more = record.payload.len() - captured;
    if captured < record.header.total as usize {
        record.payload.truncate(captured);
    }
    record.header.total += more as u32;
    let length = u64::from(record.header.total) - 11;
    record.payload[3..11].copy_from_slice(&length.to_le_bytes());
    for change in changes.iter_mut() {
        if let Change::Id(at) = change {
            *at += more;
        }
    }
    changes.push(Change::Job {
        at: BEFORE_JOB + 1,
        number: u32::from(job),
        step: jobs,
    });
}

/// Where the message begins that the record at this place is of: the place of the record with its first byte.
fn message_begin(records: &[Owned], streams: &BTreeMap<Stream, Vec<u8>>, at: usize) -> usize {
    let of = transfer(&records[at]);
    let Some(stream) = of.and_then(|of| streams.get(&of)) else {
        return at;
    };
    let begin = amqp::message_begin(&amqp::frames(stream), records[at].header.start as usize);
    records
        .iter()
        .position(|record| transfer(record) == of && record.header.start as usize >= begin)
        .unwrap_or(at)
}

fn streams(records: &[Owned]) -> BTreeMap<Stream, Vec<u8>> {
    let mut streams = BTreeMap::<Stream, Vec<u8>>::new();
    for record in records {
        if let Some(stream) = transfer(record) {
            streams.entry(stream).or_default().extend(&record.payload);
        }
    }
    streams
}

/// Where a stream has come to.
fn reached(records: &[Owned], stream: Stream) -> u64 {
    let of = records.iter().filter(|record| transfer(record) == Some(stream));
    of.map(|record| record.header.start + u64::from(record.header.total))
        .max()
        .unwrap_or(0)
}

/// The number of a delivery.
struct Number {
    conn: u64,
    channel: u16,
    sent: bool,
    at: usize,
    value: u64,
    is_delivery: bool,
}

fn delivery_numbers(streams: &BTreeMap<Stream, Vec<u8>>) -> Vec<Number> {
    let mut numbers = Vec::new();
    for (&(conn, sent), stream) in streams {
        for frame in amqp::frames(stream) {
            let Some((at, is_delivery)) = amqp::delivery_number(stream, &frame) else {
                continue;
            };
            let value = stream.get(at..).and_then(|rest| rest.first_chunk::<8>());
            numbers.push(Number {
                conn,
                channel: frame.channel,
                sent,
                at,
                value: u64::from_be_bytes(*value.expect("the frame is whole")),
                is_delivery,
            });
        }
    }
    numbers
}

fn numbers_in<'a>(numbers: &'a [Number], record: &'a Owned) -> impl Iterator<Item = &'a Number> {
    let start = record.header.start as usize;
    let all = start..start + record.payload.len();
    numbers.iter().filter(move |number| {
        Some((number.conn, number.sent)) == transfer(record) && all.contains(&number.at)
    })
}
