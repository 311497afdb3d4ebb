//! The redactor: what it leaves of conversations with a secret in them.

mod amqp;
mod conversation;
mod resp;

use celeryscope_core::common::{Header, Kind, Record, flags};
use celeryscope_core::{Pipeline, Stats};

use super::recording::Redactor;
use conversation::{Conversation, Input};

/// Stands in every place where a password, an argument or a result may stand. No part of it is in any name or number.
const SECRET: &str = "Zq7~Kp2#Wv9$Jt4%";
/// So many of its bytes in a row are a leak.
const PART: usize = 5;

/// A conversation with Redis or RabbitMQ, its texts, cuts and losses from the input. Every payload keeps its length, no part of
/// a secret is left, and what is left of a conversation that was seen whole counts as the original does.
pub fn redact(data: &[u8]) {
    let [mode, rest @ ..] = data else { return };
    if mode % 4 == 3 {
        noise(rest);
        return;
    }
    let mut input = Input(rest);
    let mut conversation = Conversation::new(mode & 8 != 0, mode & 16 != 0);
    if mode % 2 == 0 {
        resp::speak(&mut input, &mut conversation);
    } else {
        amqp::speak(&mut input, &mut conversation);
    }
    // Texts of the input's own may say the secret.
    if rest.windows(PART).any(is_secret) {
        return;
    }
    let mut redactor = Redactor::default();
    let (mut plain, mut masked) = (Pipeline::default(), Pipeline::default());
    let mut left = [Vec::new(), Vec::new()];
    for (kind, header, payload) in &conversation.records {
        let record = Record::new(*kind, *header, payload);
        let shown = redactor.mask(&record);
        same_but_bytes(&record, &shown);
        plain.feed(&record);
        masked.feed(&shown);
        if matches!(kind, Kind::Send | Kind::Recv) {
            left[usize::from(*kind == Kind::Recv)].extend_from_slice(shown.payload);
        }
    }
    for bytes in &left {
        assert!(
            !bytes.windows(PART).any(is_secret),
            "a secret is left: {}",
            bytes.escape_ascii()
        );
    }
    if conversation.is_whole() {
        plain.finish();
        masked.finish();
        let (masked, plain) = (masked.stats(), plain.stats());
        assert_eq!(
            events(&masked),
            events(&plain),
            "the same is told: {masked:#?}, not {plain:#?}"
        );
    }
}

fn is_secret(part: &[u8]) -> bool {
    SECRET.as_bytes().windows(PART).any(|secret| secret == part)
}

fn same_but_bytes(record: &Record<'_>, shown: &Record<'_>) {
    assert_eq!(
        (shown.kind, shown.header, shown.payload.len()),
        (record.kind, record.header, record.payload.len())
    );
}

/// What a masked recording must still tell.
fn events(stats: &Stats) -> [(&'static str, u64); 10] {
    [
        ("commands", stats.commands),
        ("replies", stats.replies),
        ("frames", stats.amqp_frames),
        ("methods", stats.amqp_methods),
        ("publishes", stats.publishes),
        ("deliveries", stats.deliveries),
        ("results", stats.results),
        ("attempts", stats.attempts),
        ("spans", stats.spans),
        ("gap bytes", stats.stream_gap_bytes),
    ]
}

/// Records of any kind with any bytes.
fn noise(data: &[u8]) {
    let mut redactor = Redactor::default();
    let mut input = Input(data);
    let mut start = [0, 0];
    while !input.0.is_empty() {
        let (kind, how) = (input.byte(), input.byte());
        let kind = match kind {
            0xff => Kind::Idle,
            kind => Kind::from_raw(u16::from(kind) % 14).unwrap_or(Kind::Send),
        };
        let len = usize::from(input.byte());
        let payload = input.bytes(len);
        let offset = &mut start[usize::from(kind == Kind::Send)];
        *offset += u64::from(how >> 6);
        let header = Header {
            conn: u64::from(how & 1),
            start: *offset,
            at: u32::from(how >> 1 & 1) * 20,
            total: payload.len() as u32,
            flags: (u16::from(how >> 2 & 1) * flags::LAST) | (u16::from(how >> 3 & 1) * flags::MIDSTREAM),
            ..Header::default()
        };
        *offset += payload.len() as u64;
        let record = Record::new(kind, header, payload);
        same_but_bytes(&record, &redactor.mask(&record));
    }
}
