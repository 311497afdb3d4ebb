//! The header line: of which version a file is, and of which recording.

use std::io;

use celeryscope_common::VERSION;
use serde::{Deserialize, Serialize};

/// Version of everything here but the records themselves.
pub(super) const FORMAT: u32 = 2;
/// The byte order of this machine.
pub(super) const ENDIAN: &str = if cfg!(target_endian = "little") {
    "little"
} else {
    "big"
};

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

/// Why a file can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The first line is another.
    #[error("not a celeryscope recording")]
    NotARecording,
    /// The header line is cut, too long or not what it should be.
    #[error("its header is damaged: {0}")]
    Header(String),
    /// Written by another version.
    #[error(
        "it has format {format}, records {record}; this agent reads {FORMAT} and {VERSION}: use the agent that wrote it ({agent})"
    )]
    Version {
        /// Version of the file format.
        format: u32,
        /// Version of the records.
        record: u32,
        /// The agent's version.
        agent: String,
    },
    /// Written on a machine of the other byte order.
    #[error("it was recorded on a {0}-endian machine: replay it on one")]
    Endian(String),
    /// The file can't be read.
    #[error(transparent)]
    Io(#[from] io::Error),
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

    /// Reads a header line, without its line feed.
    pub(super) fn parse(line: &[u8]) -> Result<Self, ReadError> {
        let damaged = |why: &str| ReadError::Header(why.to_owned());
        let (json, crc) = split_checksum(line);
        let meta: Self =
            serde_json::from_slice(json).map_err(|error| ReadError::Header(error.to_string()))?;
        match crc {
            Some(crc) if crc != format!("{:08x}", crc32fast::hash(json)).as_bytes() => {
                return Err(damaged("the checksum is wrong"));
            }
            // Another format's header line may be another.
            None if meta.format == FORMAT => return Err(damaged("the checksum is missing")),
            _ => {}
        }
        if (meta.format, meta.record) != (FORMAT, VERSION) {
            return Err(ReadError::Version {
                format: meta.format,
                record: meta.record,
                agent: meta.agent.escape_default().to_string(),
            });
        }
        if meta.endian != ENDIAN {
            return Err(ReadError::Endian(meta.endian.escape_default().to_string()));
        }
        Ok(meta)
    }

    /// The header line.
    pub(super) fn to_line(&self) -> serde_json::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        let crc = crc32fast::hash(&line);
        line.extend_from_slice(format!(" {crc:08x}\n").as_bytes());
        Ok(line)
    }
}

/// A header line's JSON, and the checksum behind it.
fn split_checksum(line: &[u8]) -> (&[u8], Option<&[u8]>) {
    let blank = line.iter().rposition(|byte| *byte == b' ');
    match blank.map(|at| line.split_at(at)) {
        Some((json, word)) if json.ends_with(b"}") => (json, word.get(1..)),
        _ => (line, None),
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
