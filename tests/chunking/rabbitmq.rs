//! RabbitMQ: a message is several frames, in one call or in many; acks name it by channel and number.

use std::collections::{BTreeMap, HashMap, HashSet};

use celeryscope_core::Limits;
use celeryscope_core::common::Kind;
use celeryscope_core::stream::{Call, Segment};
use celeryscope_core::wire::amqp::{ContentHeader, Frame, FrameDecoder, FrameKind, Method};

use crate::loss::named;
use crate::pieces::transfers;
use crate::support::fixture::Owned;

/// A method and the content that belongs to it.
struct Unit<'a> {
    /// Offsets in its direction.
    begin: u64,
    end: u64,
    tasks: HashSet<&'a str>,
    /// What it does to all deliveries of the connection.
    consumes: bool,
}

/// For each record, the tasks that its loss may touch: those of the units it has bytes of, and of those after it until a
/// call begins with one; all of the connection's where it carries a subscription or opens the connection.
pub(crate) fn touched<'a>(records: &[Owned], ids: &HashSet<&'a str>) -> Vec<HashSet<&'a str>> {
    let mut streams = BTreeMap::<(u64, bool), Vec<usize>>::new();
    for (i, record) in transfers(records) {
        streams
            .entry((record.header.conn, record.kind == Kind::Send))
            .or_default()
            .push(i);
    }
    let mut tags = HashMap::new();
    let mut units = BTreeMap::new();
    // Deliveries first: acks name them.
    for sent in [false, true] {
        for ((conn, _), calls) in streams.iter().filter(|((_, s), _)| *s == sent) {
            units.insert((*conn, sent), read(records, calls, *conn, ids, &mut tags));
        }
    }
    let of = |record: &Owned| -> HashSet<&'a str> {
        let conn = record.header.conn;
        let all = || {
            let both = [true, false].into_iter();
            both.filter_map(|sent| units.get(&(conn, sent))).flatten()
        };
        let begin = record.header.start + u64::from(record.header.at);
        let end = begin + record.payload.len() as u64;
        let direction = (conn, record.kind == Kind::Send);
        if matches!(record.kind, Kind::Open | Kind::Close) {
            return all().flat_map(|unit| unit.tasks.iter().copied()).collect();
        }
        let Some(own) = units.get(&direction) else {
            return HashSet::new();
        };
        let calls: HashSet<u64> = streams[&direction]
            .iter()
            .map(|i| records[*i].header.start)
            .collect();
        let boundary = own
            .iter()
            .map(|unit| unit.begin)
            .find(|at| *at >= end && calls.contains(at))
            .unwrap_or(u64::MAX);
        let hit: Vec<&Unit<'_>> = own
            .iter()
            .filter(|unit| unit.end > begin && unit.begin < boundary)
            .collect();
        if hit.iter().any(|unit| unit.consumes) {
            return all().flat_map(|unit| unit.tasks.iter().copied()).collect();
        }
        hit.iter().flat_map(|unit| unit.tasks.iter().copied()).collect()
    };
    records.iter().map(of).collect()
}

/// The units of one direction.
fn read<'a>(
    records: &[Owned],
    calls: &[usize],
    conn: u64,
    ids: &HashSet<&'a str>,
    tags: &mut HashMap<(u64, u16, u64), &'a str>,
) -> Vec<Unit<'a>> {
    let mut units: Vec<Unit<'_>> = Vec::new();
    let mut delivery = None;
    for (end, frame) in frames(records, calls) {
        let begin = end - u64::from(frame.len) - 8;
        let mut tasks = named(&frame.payload, ids);
        if frame.kind == FrameKind::Method || units.is_empty() {
            let method = Method::parse(&frame.payload);
            delivery = None;
            match method {
                Some(Method::Deliver { delivery_tag, .. }) => {
                    delivery = Some((conn, frame.channel, delivery_tag))
                }
                Some(Method::Ack { delivery_tag, .. } | Method::Reject { delivery_tag, .. }) => {
                    tasks.extend(tags.get(&(conn, frame.channel, delivery_tag)));
                }
                _ => {}
            }
            units.push(Unit {
                begin,
                end,
                tasks,
                consumes: matches!(method, Some(Method::Consume { .. })),
            });
            continue;
        }
        if let (FrameKind::Header, Some(delivery)) = (frame.kind, delivery.take()) {
            let header = ContentHeader::parse(&frame.payload);
            let id = header.and_then(|header| ids.get(header.correlation_id?));
            tags.extend(id.map(|id| (delivery, *id)));
        }
        if let Some(unit) = units.last_mut() {
            unit.end = end;
            unit.tasks.extend(tasks);
        }
    }
    units
}

/// The frames of one direction, each with the offset behind it. What was not captured is in bodies only.
fn frames(records: &[Owned], calls: &[usize]) -> Vec<(u64, Frame<'static>)> {
    let mut decoder = FrameDecoder::new(&Limits::default());
    let mut out = Vec::new();
    let mut at = 0;
    for record in calls.iter().map(|i| &records[*i]) {
        let begin = record.header.start + u64::from(record.header.at);
        if begin > at {
            out.extend(decoder.gap(begin - at).map(|item| (begin, item.value)));
        }
        at = begin + record.payload.len() as u64;
        let mut segment = Segment {
            data: &record.payload,
            begins: record.header.at == 0,
            call: Call::default(),
        };
        while let Some(item) = decoder.next(&mut segment) {
            out.push((at - segment.data.len() as u64, item.value.into_owned()));
        }
    }
    out
}
