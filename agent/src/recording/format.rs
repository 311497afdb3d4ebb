//! The file format, shared by writer and reader; docs/recordings.md describes it byte by byte.
//!
//! ```text
//! celeryscope-recording\n
//! {"format":2,"record":1,"endian":"little",…} 9a0b1c2d\n      one line: JSON, blank, its CRC-32 in hex
//! block*                                                      head and payload
//! ```
//!
//! A block is found by its mark and believed by two checksums: one of its head, begun with the recording's id, so that
//! no bytes that somebody sent to a broker can pass for a block; one of its payload. A damaged payload is stepped over by
//! the length that its head still proves, a damaged head by looking for the next mark.

use celeryscope_common::{Header, VERSION};
use serde::{Deserialize, Serialize};

/// First line of every recording.
pub(super) const MAGIC: &[u8] = b"celeryscope-recording\n";
/// Version of everything here but the records themselves.
pub(super) const FORMAT: u32 = 2;
/// Longest header line, line feed and all.
pub(super) const HEADER_LIMIT: usize = 4096;
/// What a block begins with; the first byte stands in no UTF-8 text.
pub(super) const MARK: [u8; 3] = [0xf5, b'c', b's'];
/// Size of a block's head.
pub(super) const HEAD: usize = 24;
/// Longest payload of a block: far beyond what the capture side puts into one record.
pub(super) const PAYLOAD_LIMIT: usize = Header::SIZE + (1 << 20);
/// The byte order of this machine.
pub(super) const ENDIAN: &str = if cfg!(target_endian = "little") {
    "little"
} else {
    "big"
};

/// A block's kind: its head's fourth byte.
pub(super) mod kind {
    /// A record as it came.
    pub(in super::super) const RECORD: u8 = b'R';
    /// What still holds of an earlier part, at the start of a later one: a clock, a process, an open connection.
    pub(in super::super) const STATE: u8 = b'S';
    /// The file was ended, not cut off. No payload.
    pub(in super::super) const END: u8 = b'E';
}

/// The head of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// See [`kind`].
    pub(super) kind: u8,
    /// Bytes of payload.
    pub(super) len: u32,
    /// `RECORD`: how many came before it in the recording. Others: how many have come so far.
    pub(super) number: u64,
    /// CRC-32 of the payload.
    pub(super) crc: u32,
}

impl Head {
    /// The head's bytes in the recording of this id.
    pub(super) fn to_bytes(self, id: &str) -> [u8; HEAD] {
        let mut out = [0; HEAD];
        out[..3].copy_from_slice(&MARK);
        out[3] = self.kind;
        out[4..8].copy_from_slice(&self.len.to_le_bytes());
        out[8..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..20].copy_from_slice(&self.crc.to_le_bytes());
        let crc = checksum(id, &out[..20]);
        out[20..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The head that `bytes` are, if they are one of the recording of this id.
    pub(super) fn from_bytes(bytes: &[u8; HEAD], id: &str) -> Option<Self> {
        if !bytes.starts_with(&MARK) {
            return None;
        }
        let [
            _,
            _,
            _,
            kind,
            l0,
            l1,
            l2,
            l3,
            number @ ..,
            p0,
            p1,
            p2,
            p3,
            h0,
            h1,
            h2,
            h3,
        ] = *bytes;
        let head = Self {
            kind,
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            number: u64::from_le_bytes(number),
            crc: u32::from_le_bytes([p0, p1, p2, p3]),
        };
        let sound = checksum(id, &bytes[..20]) == u32::from_le_bytes([h0, h1, h2, h3]);
        (sound && head.len as usize <= PAYLOAD_LIMIT).then_some(head)
    }
}

fn checksum(id: &str, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(id.as_bytes());
    crc.update(bytes);
    crc.finalize()
}

/// The header line's JSON. Readers ignore fields they don't know.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Meta {
    /// Version of the file format.
    pub format: u32,
    /// [`celeryscope_common::VERSION`].
    pub record: u32,
    /// Byte order of the records.
    pub endian: String,
    /// Tells this recording from all others: 32 hex digits.
    pub id: String,
    /// How many files of the recording came before this one.
    pub part: u32,
    /// How many records came before this file's first.
    pub first: u64,
    /// How many blocks of what still holds this file begins with.
    pub state: u64,
    /// When the file was begun, in seconds since 1970.
    pub created: u64,
    /// Version of the agent that wrote it.
    pub agent: String,
    /// The machine's name.
    pub host: String,
    /// The machine's kernel release.
    pub kernel: String,
    /// Whether payloads were masked.
    pub masked: bool,
}

impl Meta {
    /// Of a new recording's first file.
    pub(super) fn new(masked: bool) -> Self {
        let uname = rustix::system::uname();
        Self {
            format: FORMAT,
            record: VERSION,
            endian: ENDIAN.to_owned(),
            id: format!("{:016x}{:016x}", random(), random()),
            part: 0,
            first: 0,
            state: 0,
            created: now(),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            host: uname.nodename().to_string_lossy().into_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            masked,
        }
    }

    /// Of the file after this one.
    pub(super) fn next_part(&self, first: u64, state: u64) -> Self {
        Self {
            part: self.part.saturating_add(1),
            first,
            state,
            created: now(),
            ..self.clone()
        }
    }

    /// The header line.
    pub(super) fn to_line(&self) -> serde_json::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        let crc = crc32fast::hash(&line);
        line.extend_from_slice(format!(" {crc:08x}\n").as_bytes());
        Ok(line)
    }
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// The standard library's hash maps are keyed by the system's random numbers.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}
