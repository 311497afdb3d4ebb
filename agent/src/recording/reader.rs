//! Reads a recording, as far as it is whole.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use celeryscope_common::{Record, RecordError, VERSION};

use super::format::{ENDIAN, FORMAT, FRAME_LIMIT, HEADER_LIMIT, MAGIC, Meta};

/// Why a file can't be read, or not further. Positions are bytes from the file's start.
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
    /// A frame is longer than any can be.
    #[error("damaged at byte {at}: a frame of {len} bytes")]
    Length {
        /// Where the frame starts.
        at: u64,
        /// What it claims.
        len: u32,
    },
    /// A frame's checksum is wrong.
    #[error("damaged at byte {at}: the checksum is wrong")]
    Checksum {
        /// Where the frame starts.
        at: u64,
    },
    /// A whole frame that is not a record.
    #[error("damaged at byte {at}: {error}")]
    Record {
        /// Where the frame starts.
        at: u64,
        /// What is wrong with it.
        error: RecordError,
    },
    /// The file can't be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A recording being read.
#[derive(Debug)]
pub struct Reader<R: Read> {
    input: R,
    at: u64,
    frame: Vec<u8>,
    cut: Option<String>,
}

impl Reader<BufReader<File>> {
    /// Opens a file and checks its header.
    ///
    /// # Errors
    /// It can't be read or is not a recording of this version.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Self::new(BufReader::with_capacity(1 << 20, File::open(path)?))
    }
}

impl<R: Read> Reader<R> {
    /// Checks the header.
    ///
    /// # Errors
    /// The input can't be read or is not a recording of this version.
    pub fn new(mut input: R) -> Result<Self, ReadError> {
        let mut magic = vec![0; MAGIC.len()];
        match input.read_exact(&mut magic) {
            Ok(()) if magic == MAGIC => {}
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error.into()),
            _ => return Err(ReadError::NotARecording),
        }
        let mut line = Vec::new();
        loop {
            let mut byte = [0];
            input
                .read_exact(&mut byte)
                .map_err(|error| ReadError::Header(error.to_string()))?;
            if byte[0] == b'\n' {
                break;
            }
            line.push(byte[0]);
            if line.len() >= HEADER_LIMIT {
                return Err(ReadError::Header(format!("longer than {HEADER_LIMIT} bytes")));
            }
        }
        let meta: Meta =
            serde_json::from_slice(&line).map_err(|error| ReadError::Header(error.to_string()))?;
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
        Ok(Self {
            input,
            at: (MAGIC.len() + line.len() + 1) as u64,
            frame: Vec::new(),
            cut: None,
        })
    }

    /// The next record; None at the end, also where the file was cut short (see [`Self::cut`]).
    ///
    /// # Errors
    /// The file is damaged; nothing after that place can be trusted.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, ReadError> {
        let at = self.at;
        let mut head = [0; 8];
        let have = read_up_to(&mut self.input, &mut head)?;
        if have < head.len() {
            self.cut = (have > 0).then(|| format!("byte {at}"));
            return Ok(None);
        }
        let [l0, l1, l2, l3, c0, c1, c2, c3] = head;
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        let size = usize::try_from(len).ok().filter(|size| *size <= FRAME_LIMIT);
        let size = size.ok_or(ReadError::Length { at, len })?;
        self.frame.resize(size, 0);
        if read_up_to(&mut self.input, &mut self.frame)? < size {
            self.cut = Some(format!("byte {at}"));
            return Ok(None);
        }
        if crc32fast::hash(&self.frame) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(ReadError::Checksum { at });
        }
        self.at += 8 + u64::from(len);
        let record = Record::parse(&self.frame).map_err(|error| ReadError::Record { at, error })?;
        Ok(Some(record))
    }

    /// Where the file breaks off in the middle of a record, if it does.
    pub fn cut(&self) -> Option<&str> {
        self.cut.as_deref()
    }
}

/// Fills `buffer` as far as there is input.
fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match input.read(&mut buffer[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

#[cfg(test)]
mod tests {
    use super::super::Writer;
    use super::*;
    use celeryscope_common::{Header, Kind};

    fn recording() -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, true).unwrap();
        for n in 0..3 {
            let header = Header {
                conn: n,
                ..Header::default()
            };
            writer
                .write(&Record::new(Kind::Send, header, &vec![b'x'; n as usize]))
                .unwrap();
        }
        writer.finish().unwrap();
        out
    }

    fn conns(bytes: &[u8]) -> Result<(Vec<u64>, bool), ReadError> {
        let mut reader = Reader::new(bytes)?;
        let mut conns = Vec::new();
        while let Some(record) = reader.next_record()? {
            assert_eq!(record.payload.len() as u64, record.header.conn);
            conns.push(record.header.conn);
        }
        Ok((conns, reader.cut().is_some()))
    }

    /// Scenario: a recording of three records, cut at every byte.
    /// Guarantees: the whole records before the cut are read, and a cut inside a record is told from a clean end.
    #[test]
    fn cut_anywhere() {
        let whole = recording();
        let body = whole.len() - 3 * (8 + Header::SIZE) - 3;
        let ends = [0, 64, 64 + 65, 64 + 65 + 66].map(|end| body + end);
        for cut in 0..=whole.len() {
            let result = conns(&whole[..cut]);
            if cut < body {
                assert!(
                    matches!(result, Err(ReadError::NotARecording | ReadError::Header(_))),
                    "{cut}"
                );
                continue;
            }
            let (conns, broken) = result.unwrap();
            assert_eq!(
                conns.len(),
                ends.iter().filter(|end| **end <= cut).count() - 1,
                "{cut}"
            );
            assert_eq!(broken, !ends.contains(&cut), "{cut}");
        }
    }

    /// Scenario: one bit of any frame is turned.
    /// Guarantees: an error or a cut, never a record that was not written.
    #[test]
    fn any_flipped_bit_is_noticed() {
        let whole = recording();
        let body = whole.len() - 3 * (8 + Header::SIZE) - 3;
        for at in body..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            assert!(!matches!(conns(&bytes), Ok((_, false))), "{at}");
        }
    }

    /// Scenario: headers of other versions, of the other byte order, and without end.
    /// Guarantees: each is refused by name.
    #[test]
    fn foreign_headers_are_refused() {
        let file = |line: &str| [MAGIC, line.as_bytes(), b"\n"].concat();
        let other = file(r#"{"format":1,"record":99,"endian":"little","agent":"9.9"}"#);
        let error = Reader::new(&other[..]).unwrap_err().to_string();
        assert!(error.contains("records 99") && error.contains("(9.9)"), "{error}");
        let other = if ENDIAN == "big" { "little" } else { "big" };
        let other = file(&format!(r#"{{"format":1,"record":1,"endian":"{other}"}}"#));
        assert!(matches!(Reader::new(&other[..]), Err(ReadError::Endian(_))));
        assert!(matches!(
            Reader::new(&file(&"x".repeat(5000))[..]),
            Err(ReadError::Header(_))
        ));
    }
}
