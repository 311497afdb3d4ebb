//! Records into a file and, where it may not grow beyond a size, into the files after it.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use celeryscope_common::Record;

use super::place::{Place, PlaceError};
use super::state::State;
use super::{Redactor, Writer};

/// How a recording is kept from filling the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes after which another file is begun.
    pub size: u64,
    /// Files kept besides the one that is written.
    pub keep: u32,
}

/// Why a recording can't go on.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// It can't be where it should be.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The disk is full.
    #[error("the disk is full: {} holds what came before and can be replayed; free some space, or keep less with --rotate-size", .0.display())]
    Full(PathBuf),
    /// Something else is wrong with the file.
    #[error("{}", .0.display())]
    Io(PathBuf, #[source] io::Error),
}

/// How much was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Records.
    pub records: u64,
    /// Bytes in all files, removed ones included.
    pub bytes: u64,
    /// Files, removed ones included.
    pub files: u32,
}

/// A recording under way.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    place: Place,
    writer: Writer<BufWriter<File>>,
    redactor: Option<Redactor>,
    rotation: Option<Rotation>,
    state: State,
    /// Of the present file, what its records come on top of.
    overhead: u64,
    /// In the files before.
    past: Size,
}

impl Recorder {
    /// Begins a recording in the place of an earlier one, if there was one.
    ///
    /// # Errors
    /// The file can't be written, or is something else's.
    pub fn create(path: &Path, masked: bool, rotation: Option<Rotation>) -> Result<Self, RecordingError> {
        let place = Place::find(path)?;
        let file = place.create()?;
        if rotation.is_some() {
            place.clear()?;
        }
        let writer = Writer::new(buffered(file), masked).map_err(|error| trouble(path, error))?;
        Ok(Self {
            path: path.to_owned(),
            place,
            overhead: writer.bytes(),
            writer,
            redactor: masked.then(Redactor::default),
            rotation,
            state: State::default(),
            past: Size::default(),
        })
    }

    /// Appends a record, masked if this recording is.
    ///
    /// # Errors
    /// The file can't be written; what came before can be read.
    pub fn write(&mut self, record: &Record<'_>) -> Result<(), RecordingError> {
        if let Some(rotation) = self.rotation {
            if self.is_due(rotation) {
                self.rotate(rotation.keep)?;
            }
            self.state.see(record);
        }
        let written = match &mut self.redactor {
            Some(redactor) => self.writer.write(&redactor.mask(record)),
            None => self.writer.write(record),
        };
        written.map_err(|error| trouble(&self.path, error))
    }

    /// Brings what is held back to the disk.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn flush(&mut self) -> Result<(), RecordingError> {
        self.writer.flush().map_err(|error| trouble(&self.path, error))
    }

    /// How much was recorded so far.
    #[must_use]
    pub fn size(&self) -> Size {
        Size {
            records: self.past.records + self.writer.records(),
            bytes: self.past.bytes + self.writer.bytes(),
            files: self.past.files + 1,
        }
    }

    /// Ends the recording.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn finish(mut self) -> Result<Size, RecordingError> {
        self.writer.end().map_err(|error| trouble(&self.path, error))?;
        Ok(self.size())
    }

    /// Whether the file is full. What it says again of the part before does not count as news: where that alone fills it,
    /// as much again is written, lest nothing else be.
    fn is_due(&self, rotation: Rotation) -> bool {
        let bytes = self.writer.bytes();
        bytes >= rotation.size && bytes >= self.overhead * 2
    }

    fn rotate(&mut self, keep: u32) -> Result<(), RecordingError> {
        let state = self.state.records();
        let meta = self
            .writer
            .meta()
            .next_part(self.writer.number(), state.len() as u64);
        // Ended before it gets its other name: what is called FILE.1 is always whole.
        let ended = self.writer.end();
        ended.map_err(|error| trouble(&self.path, error))?;
        self.past = self.size();
        let file = self.place.rotate(keep)?;
        let begin = || {
            let mut writer = Writer::begin(buffered(file), meta)?;
            for stored in state {
                writer.restate(&stored.record())?;
            }
            Ok(writer)
        };
        self.writer = begin().map_err(|error| trouble(&self.path, error))?;
        self.overhead = self.writer.bytes();
        Ok(())
    }
}

fn buffered(file: File) -> BufWriter<File> {
    BufWriter::with_capacity(1 << 20, file)
}

fn trouble(path: &Path, error: io::Error) -> RecordingError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => RecordingError::Full(path.to_owned()),
        _ => RecordingError::Io(path.to_owned(), error),
    }
}
