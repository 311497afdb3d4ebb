//! Reads one file of a recording, past what is damaged and up to where it was cut.
//!
//! What could not be read becomes a Lost record, so that the core takes it as it takes what the capture lost. Nothing is
//! allocated by a length that no checksum vouches for.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use celeryscope_common::{Header, Kind, Record, RecordError};

use super::format::{HEAD, HEADER_LIMIT, Head, MAGIC, MARK, kind};
use super::header::{Meta, ReadError};

/// Bytes asked for at once.
const CHUNK: usize = 256 << 10;

/// What of a file could not be read. Positions are bytes from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Stretches that are damaged.
    pub damaged: u64,
    /// Where the first of them begins.
    pub first_damage: u64,
    /// Records that were in them, as far as their numbers tell.
    pub lost: u64,
    /// Blocks and records of kinds that this agent does not know.
    pub unknown: u64,
    /// Where the file was cut off.
    pub cut: Option<u64>,
}

/// A file being read.
#[derive(Debug)]
pub struct Reader<R: Read> {
    input: R,
    meta: Meta,
    /// What has been read and not yet used.
    window: Vec<u8>,
    used: usize,
    filled: usize,
    /// Where in the file the window begins.
    offset: u64,
    /// The number that the next record should have.
    next: u64,
    /// What the damaged blocks' heads prove: the recording has at least as many records.
    proven: u64,
    /// Blocks of state that were read.
    states: u64,
    skip_state: bool,
    ended: bool,
    /// Time of the last record.
    time: u64,
    now: Now,
    /// A record behind those that were lost.
    held: Option<Range<usize>>,
    report: Report,
}

/// What [`Reader::record`] gives.
#[derive(Clone, Debug)]
enum Now {
    Stored(Range<usize>),
    Lost(u64),
}

impl Reader<File> {
    /// Opens a file and checks its header.
    ///
    /// # Errors
    /// It can't be read or is not a recording of this version.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Self::new(File::open(path)?)
    }
}

impl<R: Read> Reader<R> {
    /// Checks the header.
    ///
    /// # Errors
    /// The input can't be read or is not a recording of this version.
    pub fn new(input: R) -> Result<Self, ReadError> {
        let mut reader = Self {
            input,
            meta: Meta::default(),
            window: Vec::new(),
            used: 0,
            filled: 0,
            offset: 0,
            next: 0,
            proven: 0,
            states: 0,
            skip_state: false,
            ended: false,
            time: 0,
            now: Now::Lost(0),
            held: None,
            report: Report::default(),
        };
        reader.have(MAGIC.len() + HEADER_LIMIT)?;
        let start = &reader.window[..reader.filled];
        let rest = start.strip_prefix(MAGIC).ok_or(ReadError::NotARecording)?;
        let rest = &rest[..rest.len().min(HEADER_LIMIT)];
        let len = rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| {
            ReadError::Header(if rest.len() < HEADER_LIMIT {
                "it is cut".to_owned()
            } else {
                format!("longer than {HEADER_LIMIT} bytes")
            })
        })?;
        reader.meta = Meta::parse(&rest[..len])?;
        reader.used = MAGIC.len() + len + 1;
        reader.next = reader.meta.first;
        Ok(reader)
    }

    /// What its header says.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// What could not be read so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The next record; None at the end, also where the file was cut off.
    ///
    /// # Errors
    /// The input can't be read.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, ReadError> {
        Ok(if self.step()? { Some(self.record()) } else { None })
    }

    /// The files before this one have been read up to this record and this time. Where this one is the very next, it need
    /// not say again what still holds.
    pub(super) fn follow(&mut self, next: u64, time: u64, adjacent: bool) -> u64 {
        self.time = time;
        if adjacent {
            self.skip_state = true;
            self.next = next;
            return 0;
        }
        self.meta.first.saturating_sub(next)
    }

    /// How far it has been read: the next record's number, the last one's time.
    pub(super) fn position(&self) -> (u64, u64) {
        (self.next, self.time)
    }

    /// Goes to the next record; false at the end.
    pub(super) fn step(&mut self) -> Result<bool, ReadError> {
        if let Some(range) = self.held.take() {
            self.now = Now::Stored(range);
            return Ok(true);
        }
        while let Some((head, payload)) = self.next_block()? {
            match head.kind {
                kind::STATE => {
                    self.states += 1;
                    if self.skip_state {
                        continue;
                    }
                    if self.take(payload) {
                        return Ok(true);
                    }
                }
                kind::RECORD => {
                    let lost = self.lost_before(head.number);
                    self.next = head.number.saturating_add(1);
                    let sound = self.take(payload.clone());
                    if lost > 0 {
                        self.held = sound.then_some(payload);
                        return Ok(self.lose(lost));
                    }
                    if sound {
                        return Ok(true);
                    }
                }
                kind::END => {
                    self.ended = true;
                    let lost = self.lost_before(head.number);
                    self.next = self.next.max(head.number);
                    return Ok(lost > 0 && self.lose(lost));
                }
                _ => self.report.unknown += 1,
            }
        }
        // Cut off: only what the heads of damaged blocks prove is known to be lost.
        let lost = self.lost_before(self.proven.max(self.next));
        self.next = self.next.max(self.proven);
        Ok(lost > 0 && self.lose(lost))
    }

    /// The record that [`Self::step`] went to.
    pub(super) fn record(&self) -> Record<'_> {
        match &self.now {
            Now::Stored(range) => match Record::parse(&self.window[range.clone()]) {
                Ok(record) => record,
                // `take` has parsed it.
                Err(_) => lost(1, self.time),
            },
            Now::Lost(count) => lost(*count, self.time),
        }
    }

    /// Whether the payload is a record that this agent understands; it is the one to give, then.
    fn take(&mut self, payload: Range<usize>) -> bool {
        match Record::parse(&self.window[payload.clone()]) {
            Ok(record) => {
                self.time = self.time.max(record.header.exit);
                self.now = Now::Stored(payload);
                return true;
            }
            Err(RecordError::UnknownKind(_)) => self.report.unknown += 1,
            Err(RecordError::ShortHeader(_) | RecordError::ShortPayload { .. }) => {
                self.damage(self.offset + payload.start as u64);
                self.report.lost += 1;
            }
        }
        false
    }

    /// Records missing before the one of this number, blocks of state among them.
    fn lost_before(&mut self, number: u64) -> u64 {
        let states = if self.skip_state {
            0
        } else {
            self.meta.state.saturating_sub(self.states)
        };
        self.states = self.meta.state;
        number.saturating_sub(self.next).saturating_add(states)
    }

    fn lose(&mut self, count: u64) -> bool {
        self.report.lost = self.report.lost.saturating_add(count);
        self.now = Now::Lost(count);
        true
    }

    fn damage(&mut self, at: u64) {
        if self.report.damaged == 0 {
            self.report.first_damage = at;
        }
        self.report.damaged += 1;
    }

    /// The next block that both its checksums vouch for, and where in the window its payload is.
    fn next_block(&mut self) -> Result<Option<(Head, Range<usize>)>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        let mut damaged_from = None;
        loop {
            let whole = self.have(HEAD)?;
            let at = self.offset + self.used as u64;
            if !whole {
                // A stretch that holds more than an end mark held a record, whose number nobody knows.
                if let Some(from) = damaged_from {
                    let long = at + (self.filled - self.used) as u64 - from > HEAD as u64;
                    self.proven = self.proven.max(self.next.saturating_add(u64::from(long)));
                }
                self.report.cut = Some(damaged_from.unwrap_or(at));
                self.ended = true;
                return Ok(None);
            }
            let bytes = self.window[self.used..].first_chunk();
            let Some(head) = bytes.and_then(|bytes| Head::from_bytes(bytes, &self.meta.id)) else {
                if damaged_from.is_none() {
                    self.damage(at);
                    damaged_from = Some(at);
                }
                self.seek_mark();
                continue;
            };
            damaged_from = None;
            let size = HEAD + head.len as usize;
            if !self.have(size)? {
                self.report.cut = Some(at);
                self.ended = true;
                return Ok(None);
            }
            let payload = self.used + HEAD..self.used + size;
            self.used += size;
            let sound = crc32fast::hash(&self.window[payload.clone()]) == head.crc;
            // A number that was there before: a block left from what the disk held earlier.
            let stale = head.kind == kind::RECORD && head.number < self.next;
            if sound && !stale {
                return Ok(Some((head, payload)));
            }
            self.damage(at);
            if head.kind == kind::RECORD {
                self.proven = self.proven.max(head.number.saturating_add(1));
            }
        }
    }

    /// Moves on to what may be the next mark, by one byte at least.
    fn seek_mark(&mut self) {
        let rest = &self.window[self.used + 1..self.filled];
        let found = rest.iter().position(|byte| *byte == MARK[0]);
        self.used += 1 + found.unwrap_or(rest.len());
    }

    /// Reads until this many bytes are at hand; false where the input ends before.
    fn have(&mut self, wanted: usize) -> io::Result<bool> {
        if self.filled - self.used >= wanted {
            return Ok(true);
        }
        self.window.copy_within(self.used..self.filled, 0);
        self.offset += self.used as u64;
        self.filled -= self.used;
        self.used = 0;
        let size = wanted.next_multiple_of(CHUNK);
        if self.window.len() < size {
            let mut larger = vec![0; size];
            larger[..self.filled].copy_from_slice(&self.window[..self.filled]);
            self.window = larger;
        }
        while self.filled < wanted {
            match self.input.read(&mut self.window[self.filled..]) {
                Ok(0) => return Ok(false),
                Ok(n) => self.filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// The loss of so many records, as the core is told of it.
pub(super) fn lost(count: u64, time: u64) -> Record<'static> {
    let header = Header {
        enter: time,
        exit: time,
        conn: count,
        ..Header::default()
    };
    Record::new(Kind::Lost, header, b"")
}

#[cfg(test)]
mod tests;
