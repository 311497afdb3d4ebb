//! Any bytes as records of all kinds, on a few connections of a few processes.

use celeryscope_core::common::{Endpoint, Header, Idle, Kind, LeftOut, flags};

use super::parts;

/// What the pipeline is told.
#[derive(Debug)]
pub enum Step<'a> {
    /// A record.
    Record(Kind, Header, std::borrow::Cow<'a, [u8]>),
    /// Nothing happened until then.
    Pass(u64),
}

const MS: u64 = 1_000_000;
const DAY: u64 = 86_400_000 * MS;

/// Time from a step to the next, and whether it runs back.
const STRIDES: [(u64, bool); 8] = [
    (MS, false),
    (MS, false),
    (0, false),
    (700 * MS, false),
    (5_000 * MS, false),
    (61_000 * MS, false),
    (2 * DAY, false),
    (3 * MS, true),
];

/// Each of [`parts`] as a step: `op` is the kind, its first two bytes are where and how, the rest is its payload.
///
/// What a byte says: `where`, bits 0 and 1 the connection, 2 and 3 the process, 4 whether it is older than the capture, 5 to 7
/// which fields are absurd; `how`, bits 0 to 2 the time that passes, 3 whether the transfer goes on, 4 and 5 what is missing
/// before it or told twice, 6 that the call's times are swapped, 7 a second thread.
pub fn steps(data: &[u8]) -> Vec<Step<'_>> {
    let mut out = Vec::new();
    let mut offsets = [[0_u64; 2]; 4];
    let mut now = 10 * DAY;
    for (op, len, part) in parts(data) {
        let [place, how, payload @ ..] = part else {
            now += u64::from(len) * MS;
            out.push(Step::Pass(now));
            continue;
        };
        let (place, how) = (*place, *how);
        let kind = match u16::from(op) / 8 {
            28 => Kind::Idle,
            kind => Kind::from_raw(kind % 14).unwrap_or(Kind::Send),
        };
        let (stride, back) = STRIDES[usize::from(how & 7)];
        now = if back { now - stride } else { now + stride };
        let conn = place & 3;
        let pid = 100 + u32::from(place >> 2 & 3);
        let transfer = matches!(kind, Kind::Send | Kind::Recv);
        let offset = &mut offsets[usize::from(conn)][usize::from(kind == Kind::Send)];
        if transfer {
            match how >> 4 & 3 {
                1 => *offset += 5,
                2 => *offset = offset.saturating_sub(3),
                3 => *offset += 70_000,
                _ => {}
            }
        }
        let goes_on = how & 8 != 0;
        let missing = if goes_on { 40 } else { 0 };
        let mut header = Header {
            flags: if goes_on { 0 } else { flags::LAST } | if place & 16 != 0 { flags::MIDSTREAM } else { 0 },
            enter: now - 1000,
            exit: now,
            pid,
            tid: pid + u32::from(how >> 7) * 50,
            conn: match kind {
                // Another process, or itself.
                Kind::Fork | Kind::Process => 100 + u64::from(conn),
                Kind::Clock => now + 1_700_000_000_000 * MS,
                _ => u64::from(conn),
            },
            start: *offset,
            total: payload.len() as u32 + missing,
            ..Header::default()
        };
        if how & 64 != 0 {
            std::mem::swap(&mut header.enter, &mut header.exit);
        }
        absurd(&mut header, place >> 5, payload);
        if transfer {
            *offset += payload.len() as u64 + u64::from(missing);
        }
        let payload = match kind {
            Kind::Idle if !payload.is_empty() => idle(payload, &mut offsets[usize::from(conn)]).into(),
            Kind::Open if !payload.is_empty() => endpoint(payload).into(),
            _ => payload.into(),
        };
        out.push(Step::Record(kind, header, payload));
    }
    out
}

/// Numbers that no kernel half tells.
fn absurd(header: &mut Header, which: u8, payload: &[u8]) {
    let first = payload.first().copied().unwrap_or(0xff);
    match which {
        1 => header.at = u32::from(first),
        2 if first > 0xf0 => header.start = u64::MAX - u64::from(first),
        3 if first > 0xf0 => header.exit = u64::MAX - u64::from(first),
        4 if first > 0xf0 => header.conn = u64::MAX,
        5 if first > 0xf0 => (header.at, header.total) = (u32::MAX, u32::MAX),
        6 if first > 0xf0 => header.enter = 0,
        7 => header.total = 0,
        _ => {}
    }
}

/// Bytes left out where the streams are, or a little before or behind; too short where the payload is.
fn idle(payload: &[u8], [received, sent]: &mut [u64; 2]) -> Vec<u8> {
    let left_out = |offset: &mut u64, at: usize| {
        let [bytes, off] = [0, 1].map(|n| payload.get(at + n).copied().unwrap_or_default());
        let left_out = match off {
            0..0xe0 => LeftOut {
                start: *offset,
                bytes: u64::from(bytes),
            },
            0xe0..0xf0 => LeftOut {
                start: (*offset + u64::from(off & 15)).saturating_sub(8),
                bytes: u64::from(bytes),
            },
            _ => LeftOut {
                start: u64::MAX - u64::from(off),
                bytes: u64::MAX - u64::from(bytes),
            },
        };
        if off < 0xe0 {
            *offset += left_out.bytes;
        }
        left_out
    };
    let idle = Idle {
        sent: left_out(sent, 0),
        received: left_out(received, 2),
    };
    let mut bytes = idle.to_bytes().to_vec();
    if payload.first() == Some(&0xff) {
        bytes.truncate(payload.len());
    }
    bytes
}

/// A broker's address; too short a one where the payload is.
fn endpoint(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Endpoint {
        port: if payload[0] & 1 == 0 { 6379 } else { 5672 },
        ..Endpoint::default()
    }
    .to_bytes()
    .to_vec();
    if payload[0] > 0xf0 {
        bytes.truncate(payload.len());
    }
    bytes
}
