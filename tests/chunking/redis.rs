//! Redis: replies name no task, what they answer does; acks name a delivery tag.

use std::collections::{HashMap, HashSet};

use celeryscope_core::common::Kind;

use crate::loss::{contains, named, uuids};
use crate::pieces::transfers;
use crate::support::fixture::Owned;

/// For each record, the tasks that its loss may touch.
pub(crate) fn touched<'a>(records: &[Owned], ids: &HashSet<&'a str>) -> Vec<HashSet<&'a str>> {
    let mut tags = HashMap::<Vec<u8>, &str>::new();
    for (_, record) in transfers(records) {
        tags.extend(delivery_tags(&record.payload, ids));
    }
    // By themselves or by a delivery tag.
    let says: Vec<HashSet<&str>> = records
        .iter()
        .map(|record| {
            let mut tasks = named(&record.payload, ids);
            tasks.extend(uuids(&record.payload).filter_map(|uuid| tags.get(uuid)));
            tasks
        })
        .collect();
    let subscribed: HashSet<u64> = transfers(records)
        .filter(|(_, record)| record.kind == Kind::Send && contains(&record.payload, b"SUBSCRIBE"))
        .map(|(_, record)| record.header.conn)
        .collect();
    let of = |lost| {
        let exchange = exchange(records, &subscribed, lost);
        exchange
            .into_iter()
            .flat_map(|i| says[i].iter().copied())
            .collect()
    };
    (0..records.len()).map(of).collect()
}

/// The sends and receives of a connection that the loss of record `lost` may touch: its own exchange (consecutive
/// sends and the receives after them), and the one after it, where the gap is found and sync is back. All of the
/// connection when that record opens or closes it, or when it is one of subscriptions: pushes answer nothing, so
/// that no place in them is sure.
fn exchange(records: &[Owned], subscribed: &HashSet<u64>, lost: usize) -> Vec<usize> {
    let record = &records[lost];
    let own: Vec<usize> = transfers(records)
        .filter(|(_, other)| other.header.conn == record.header.conn)
        .map(|(i, _)| i)
        .collect();
    let subscribes = subscribed.contains(&record.header.conn);
    let Some(at) = own.iter().position(|i| *i == lost).filter(|_| !subscribes) else {
        return own;
    };
    let begins = |at: &usize| {
        let kind = |at: usize| records[own[at]].kind;
        *at == 0 || (kind(*at), kind(*at - 1)) == (Kind::Send, Kind::Recv)
    };
    let first = (0..=at).rev().find(begins).unwrap_or(0);
    let after_next = (at + 1..own.len()).filter(begins).nth(1).unwrap_or(own.len());
    own[first..after_next].to_vec()
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
