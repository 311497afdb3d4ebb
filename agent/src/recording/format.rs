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

use celeryscope_common::Header;

/// First line of every recording.
pub(super) const MAGIC: &[u8] = b"celeryscope-recording\n";
/// Longest header line, line feed and all.
pub(super) const HEADER_LIMIT: usize = 4096;
/// What a block begins with; the first byte stands in no UTF-8 text.
pub(super) const MARK: [u8; 3] = [0xf5, b'c', b's'];
/// Size of a block's head.
pub(super) const HEAD: usize = 24;
/// Longest payload of a block: far beyond what the capture side puts into one record.
pub(super) const PAYLOAD_LIMIT: usize = Header::SIZE + (1 << 20);
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
