//! Writes a recording.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use celeryscope_common::{Record, VERSION};

use super::format::{ENDIAN, FORMAT, FRAME_LIMIT, MAGIC, Meta};

/// A recording being written.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    records: u64,
    bytes: u64,
}

impl Writer<BufWriter<File>> {
    /// Creates the file, or empties the one that is there; only its owner may read it. `masked` is what the header
    /// tells of the records to come.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn create(path: &Path, masked: bool) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        Self::new(BufWriter::with_capacity(1 << 20, file), masked)
    }
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// As the destination's.
    pub fn new(mut out: W, masked: bool) -> io::Result<Self> {
        let uname = rustix::system::uname();
        let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let meta = Meta {
            format: FORMAT,
            record: VERSION,
            endian: ENDIAN.to_owned(),
            created: created.map_or(0, |since| since.as_secs()),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            host: uname.nodename().to_string_lossy().into_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            masked,
        };
        let mut head = MAGIC.to_vec();
        serde_json::to_writer(&mut head, &meta)?;
        head.push(b'\n');
        out.write_all(&head)?;
        Ok(Self {
            out,
            records: 0,
            bytes: head.len() as u64,
        })
    }

    /// Appends a record.
    ///
    /// # Errors
    /// As the destination's; a record longer than a frame may be.
    pub fn write(&mut self, record: &Record<'_>) -> io::Result<()> {
        let head = record.header.to_bytes();
        let len = head.len() + record.payload.len();
        if len > FRAME_LIMIT {
            return Err(io::Error::other(format!(
                "a record of {len} bytes is longer than the format allows"
            )));
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head);
        crc.update(record.payload);
        self.out
            .write_all(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes())?;
        self.out.write_all(&crc.finalize().to_le_bytes())?;
        self.out.write_all(&head)?;
        self.out.write_all(record.payload)?;
        self.records += 1;
        self.bytes += 8 + len as u64;
        Ok(())
    }

    /// Records written so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Flushes; gives records and bytes written.
    ///
    /// # Errors
    /// As the destination's.
    pub fn finish(mut self) -> io::Result<(u64, u64)> {
        self.out.flush()?;
        Ok((self.records, self.bytes))
    }
}
