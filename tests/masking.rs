//! Recorded runs, written to a recording with secrets masked and read back: the same traces, without the secrets.

mod support;

use std::collections::BTreeSet;

use celeryscope::recording::{Reader, Redactor, Writer};
use celeryscope_core::Span;
use celeryscope_core::common::{Kind, Record};
use support::fixture::{Fixture, Owned, folder};
use support::replay;

/// Attributes that only the masked parts can tell.
const FROM_PAYLOADS: [&str; 2] = ["celery.args_count", "celery.kwargs_count"];

fn masked_recording(records: &[Owned]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, true).unwrap();
    let mut redactor = Redactor::default();
    for record in records {
        let record = Record::new(record.kind, record.header, &record.payload);
        writer.write(&redactor.mask(&record)).unwrap();
    }
    writer.finish().unwrap();
    file
}

fn read(file: &[u8]) -> Vec<Owned> {
    let mut reader = Reader::new(file).unwrap();
    let mut records = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        records.push(Owned {
            kind: record.kind,
            header: record.header,
            payload: record.payload.to_vec(),
        });
    }
    records
}

/// What stands behind `"key": "` in what was sent, up to the next quote; short ones may stand elsewhere by chance.
fn values(records: &[Owned], key: &str) -> BTreeSet<String> {
    let opening = format!("\"{key}\": \"");
    let sent = records.iter().filter(|record| record.kind == Kind::Send);
    sent.flat_map(|record| {
        let text = String::from_utf8_lossy(&record.payload).into_owned();
        let values = text
            .split(&opening)
            .skip(1)
            .filter_map(|rest| rest.split('"').next());
        values
            .filter(|value| value.len() >= 12)
            .map(|value| value.chars().take(60).collect())
            .collect::<Vec<_>>()
    })
    .collect()
}

/// Everything of a span but what the masked parts tell.
fn told(span: &Span) -> String {
    let attributes: Vec<_> = span
        .attributes
        .iter()
        .filter(|(key, _)| !FROM_PAYLOADS.contains(key))
        .collect();
    let status = std::mem::discriminant(&span.status);
    let events: Vec<_> = span.events.iter().map(|event| (event.name, event.at)).collect();
    let ids = (span.trace_id, span.span_id, span.parent, &span.links);
    format!(
        "{} {ids:?} {:?} {:?} {status:?} {attributes:?} {events:?}",
        span.name, span.start, span.end
    )
}

/// Scenario: every recorded run over Redis, masked, written and replayed.
/// Guarantees: its spans are those of the unmasked run, but for messages and counts of arguments; no body, no arguments,
/// no traceback is in the file.
#[test]
fn masked_recordings_tell_the_same_traces() {
    let mut runs = 0;
    let mut secrets = 0;
    for entry in std::fs::read_dir(folder("redis")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // Celery's events travel in bodies: what they alone tell is masked.
        let Some(name) = name
            .strip_suffix(".jsonl.gz")
            .filter(|name| *name != "redis-events")
        else {
            continue;
        };
        runs += 1;
        let records = Fixture::load(name).records;
        let file = masked_recording(&records);
        for key in ["body", "argsrepr", "kwargsrepr", "traceback"] {
            for value in values(&records, key) {
                secrets += 1;
                let found = file.windows(value.len()).any(|window| window == value.as_bytes());
                assert!(!found, "{name}: {key} {value} is in the file");
            }
        }
        let plain: Vec<_> = replay(&records).spans.iter().map(told).collect();
        let masked: Vec<_> = replay(&read(&file)).spans.iter().map(told).collect();
        for (masked, plain) in masked.iter().zip(&plain) {
            assert_eq!(masked, plain, "{name}");
        }
        assert_eq!(masked.len(), plain.len(), "{name}");
    }
    assert!(runs >= 20 && secrets >= 100, "{runs} runs, {secrets} secrets");
}
