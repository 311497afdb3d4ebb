//! Writes one file of a recording.

use std::io::{self, Write};

use celeryscope_common::Record;

use super::format::{HEAD, Head, MAGIC, PAYLOAD_LIMIT, kind};
use super::header::Meta;

/// A file being written.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    meta: Meta,
    records: u64,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a recording; `masked` is what its header tells of the records to come.
    ///
    /// # Errors
    /// As the destination's.
    pub fn new(out: W, masked: bool) -> io::Result<Self> {
        Self::begin(out, Meta::new(masked))
    }

    /// Begins the file that this header describes.
    pub(super) fn begin(mut out: W, meta: Meta) -> io::Result<Self> {
        let line = meta.to_line()?;
        out.write_all(MAGIC)?;
        out.write_all(&line)?;
        Ok(Self {
            out,
            meta,
            records: 0,
            bytes: (MAGIC.len() + line.len()) as u64,
        })
    }

    /// Appends a record.
    ///
    /// # Errors
    /// As the destination's; a record longer than a block may be.
    pub fn write(&mut self, record: &Record<'_>) -> io::Result<()> {
        self.block(kind::RECORD, record)?;
        self.records += 1;
        Ok(())
    }

    /// Appends what still holds of the part before; comes before the first record.
    pub(super) fn restate(&mut self, record: &Record<'_>) -> io::Result<()> {
        self.block(kind::STATE, record)
    }

    /// Records written to this file.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Bytes written to this file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What its header says.
    pub(super) fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Passes on what is held back.
    ///
    /// # Errors
    /// As the destination's.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Writes that this is the end; gives records and bytes written.
    ///
    /// # Errors
    /// As the destination's.
    pub fn finish(mut self) -> io::Result<(u64, u64)> {
        self.end()?;
        Ok((self.records, self.bytes))
    }

    /// Writes that this is the end. Nothing may be written after it.
    pub(super) fn end(&mut self) -> io::Result<()> {
        let end = Head {
            kind: kind::END,
            len: 0,
            number: self.number(),
            crc: 0,
        };
        self.out.write_all(&end.to_bytes(&self.meta.id))?;
        self.bytes += HEAD as u64;
        self.out.flush()
    }

    /// The next record's.
    pub(super) fn number(&self) -> u64 {
        self.meta.first.saturating_add(self.records)
    }

    fn block(&mut self, kind: u8, record: &Record<'_>) -> io::Result<()> {
        let header = record.header.to_bytes();
        let len = header.len() + record.payload.len();
        if len > PAYLOAD_LIMIT {
            return Err(io::Error::other(format!(
                "a record of {len} bytes is longer than the format allows"
            )));
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header);
        crc.update(record.payload);
        let head = Head {
            kind,
            len: u32::try_from(len).unwrap_or(u32::MAX),
            number: self.number(),
            crc: crc.finalize(),
        };
        self.out.write_all(&head.to_bytes(&self.meta.id))?;
        self.out.write_all(&header)?;
        self.out.write_all(record.payload)?;
        self.bytes += (HEAD + len) as u64;
        Ok(())
    }
}
