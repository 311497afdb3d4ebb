//! Recorded runs, written to a recording with secrets masked and read back: the same traces, without the secrets.

mod support;

use std::collections::BTreeSet;

use celeryscope::recording::{Reader, Redactor, Writer};
use celeryscope_core::common::{Kind, Record};
use celeryscope_core::span::Attributes;
use celeryscope_core::{Span, Status};
use support::fixture::{Fixture, Owned, names};
use support::replay;

/// Attributes that only the masked parts can tell; docs/recordings.md lists them.
const FROM_PAYLOADS: [&str; 4] = [
    "celery.args_count",
    "celery.kwargs_count",
    "exception.message",
    "exception.stacktrace",
];

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
    let clear = |attributes: &Attributes| -> Attributes {
        let mut clear = attributes.clone();
        clear.retain(|(key, _)| !FROM_PAYLOADS.contains(key));
        clear
    };
    let mut span = span.clone();
    span.attributes = clear(&span.attributes);
    for event in &mut span.events {
        event.attributes = clear(&event.attributes);
    }
    if let Status::Error(description) = &mut span.status {
        description.clear();
    }
    format!("{span:?}")
}

/// Masks, writes and replays every recorded run over this broker; `secrets` finds what must not be in the file.
fn masked_runs_tell_the_same(broker: &str, secrets_of: fn(&[Owned]) -> BTreeSet<Vec<u8>>) {
    let mut runs = 0;
    let mut secrets = 0;
    for name in names(broker) {
        runs += 1;
        let records = Fixture::load(&name).records;
        let file = masked_recording(&records);
        for secret in secrets_of(&records) {
            secrets += 1;
            let found = file.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "{name}: {} is in the file", secret.escape_ascii());
        }
        let plain: Vec<_> = replay(&records).spans.iter().map(told).collect();
        let masked: Vec<_> = replay(&read(&file)).spans.iter().map(told).collect();
        for (masked, plain) in masked.iter().zip(&plain) {
            assert_eq!(masked, plain, "{name}");
        }
        assert_eq!(masked.len(), plain.len(), "{name}");
    }
    assert!(runs >= 16 && secrets >= 40, "{runs} runs, {secrets} secrets");
}

/// Bodies, arguments and tracebacks in what was sent to Redis.
fn secrets_in_json(records: &[Owned]) -> BTreeSet<Vec<u8>> {
    ["body", "argsrepr", "kwargsrepr", "traceback"]
        .into_iter()
        .flat_map(|key| values(records, key))
        .map(String::into_bytes)
        .collect()
}

/// Bodies of tasks, arguments and the password in what was sent to RabbitMQ, and tracebacks in results; short ones may
/// stand elsewhere by chance.
fn secrets_in_frames(records: &[Owned]) -> BTreeSet<Vec<u8>> {
    let mut secrets: BTreeSet<Vec<u8>> = values(records, "traceback")
        .into_iter()
        .map(String::into_bytes)
        .collect();
    for record in records.iter().filter(|record| record.kind == Kind::Send) {
        let payload = &record.payload;
        for (opening, length) in [
            (&b"\x08argsreprS"[..], 4),
            (b"\x0akwargsreprS", 4),
            (b"\x05PLAIN", 4),
        ] {
            for at in positions(payload, opening) {
                let Some((len, rest)) = payload[at + opening.len()..].split_at_checked(length) else {
                    continue;
                };
                let len = len.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
                secrets.extend(rest.get(..len).map(<[u8]>::to_vec));
            }
        }
        // Protocol 2's `[args, kwargs, embed]`: a body frame that begins so.
        for at in positions(payload, b"[[").into_iter().filter(|at| {
            let head = at.checked_sub(7).and_then(|head| payload.get(head));
            *at == 0 || head == Some(&3)
        }) {
            let end = payload[at..].iter().position(|byte| *byte == b'}').unwrap_or(0);
            secrets.insert(payload[at..at + end].to_vec());
        }
    }
    secrets.retain(|secret| secret.len() >= 12);
    secrets
}

fn positions(bytes: &[u8], what: &[u8]) -> Vec<usize> {
    (0..bytes.len())
        .filter(|at| bytes[*at..].starts_with(what))
        .collect()
}

/// Scenario: every recorded run over Redis, masked, written and replayed.
/// Guarantees: its spans are those of the unmasked run, but for messages and counts of arguments; no body, no arguments,
/// no traceback is in the file.
#[test]
fn masked_recordings_tell_the_same_traces() {
    masked_runs_tell_the_same("redis", secrets_in_json);
}

/// Scenario: every recorded run over RabbitMQ, masked, written and replayed.
/// Guarantees: as on Redis; nor is the password in the file.
#[test]
fn masked_recordings_of_rabbitmq_tell_the_same_traces() {
    masked_runs_tell_the_same("rabbitmq", secrets_in_frames);
}

/// Scenario: the page that tells what masking costs.
/// Guarantees: it names every attribute that these tests leave out.
#[test]
fn what_is_left_out_is_documented() {
    let page = include_str!("../docs/recordings.md");
    for name in FROM_PAYLOADS {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}
