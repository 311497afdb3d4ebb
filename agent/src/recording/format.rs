//! The file format, shared by writer and reader.
//!
//! ```text
//! celeryscope-recording\n
//! {"format":1,"record":1,"endian":"little",…}\n      one line of JSON, at most HEADER_LIMIT bytes
//! frame*                                             length u32 LE, CRC-32 u32 LE, that many bytes
//! ```
//!
//! A frame's bytes are a record exactly as the kernel half lays it out ([`celeryscope_common::Header`] and payload, in
//! the byte order that the header line names). A file that was cut short is whole up to its last whole frame.

use celeryscope_common::Header;
use serde::{Deserialize, Serialize};

/// First line of every recording.
pub(super) const MAGIC: &[u8] = b"celeryscope-recording\n";
/// Version of everything here but the records themselves.
pub(super) const FORMAT: u32 = 1;
/// Longest header line, line feed and all.
pub(super) const HEADER_LIMIT: usize = 4096;
/// Longest frame: far beyond what the capture side puts into one record.
pub(super) const FRAME_LIMIT: usize = Header::SIZE + (1 << 20);
/// The byte order of this machine.
pub(super) const ENDIAN: &str = if cfg!(target_endian = "little") {
    "little"
} else {
    "big"
};

/// The header line. Readers ignore fields they don't know.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Meta {
    /// [`FORMAT`].
    pub(super) format: u32,
    /// [`celeryscope_common::VERSION`].
    pub(super) record: u32,
    /// Byte order of the records.
    pub(super) endian: String,
    /// When, in seconds since 1970.
    #[serde(default)]
    pub(super) created: u64,
    /// Version of the agent that wrote it.
    #[serde(default)]
    pub(super) agent: String,
    /// The machine's name.
    #[serde(default)]
    pub(super) host: String,
    /// The machine's kernel release.
    #[serde(default)]
    pub(super) kernel: String,
    /// Whether payloads were masked.
    #[serde(default)]
    pub(super) masked: bool,
}
