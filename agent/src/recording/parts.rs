//! The files of one recording as one sequence of records.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};

use celeryscope_common::Record;

use super::Reader;
use super::header::ReadError;
use super::reader::Report;

/// Why files can't be read as one recording.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// One of them can't be read at all.
    #[error("{}", .0.display())]
    Read(PathBuf, #[source] ReadError),
    /// They don't belong together.
    #[error("{} and {} are of different recordings: replay each alone", .0.display(), .1.display())]
    Strangers(PathBuf, PathBuf),
    /// The same file twice.
    #[error("{} and {} are the same part of a recording: give one of them", .0.display(), .1.display())]
    Twice(PathBuf, PathBuf),
}

/// The files, being read.
#[derive(Debug)]
pub struct Parts {
    waiting: VecDeque<(u32, PathBuf)>,
    current: Option<(u32, PathBuf, Reader<File>)>,
    /// Number of the last file read.
    last: Option<u32>,
    /// The next record's number, the last one's time.
    position: (u64, u64),
    /// Records in parts that are not there, to be told.
    missing: u64,
    now_missing: u64,
    done: Vec<(PathBuf, Report)>,
    absent: u64,
}

impl Parts {
    /// Opens the files, given in any order.
    ///
    /// # Errors
    /// One can't be read, or they are not parts of one recording.
    pub fn open(paths: &[PathBuf]) -> Result<Self, PartsError> {
        let mut files = Vec::new();
        for path in paths {
            files.push((open(path)?.meta().clone(), path.clone()));
        }
        files.sort_by_key(|(meta, _)| meta.part);
        for pair in files.windows(2) {
            let [(one, first), (other, second)] = pair else {
                continue;
            };
            let both = (first.clone(), second.clone());
            if one.id != other.id {
                return Err(PartsError::Strangers(both.0, both.1));
            }
            if one.part == other.part {
                return Err(PartsError::Twice(both.0, both.1));
            }
        }
        Ok(Self {
            waiting: files.into_iter().map(|(meta, path)| (meta.part, path)).collect(),
            current: None,
            last: None,
            position: (0, 0),
            missing: 0,
            now_missing: 0,
            done: Vec::new(),
            absent: 0,
        })
    }

    /// The next record; None at the end of the last file.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, PartsError> {
        if !self.step()? {
            return Ok(None);
        }
        if self.now_missing > 0 {
            return Ok(Some(super::reader::lost(self.now_missing, self.position.1)));
        }
        Ok(self.current.as_ref().map(|(_, _, reader)| reader.record()))
    }

    /// What of each file could not be read, once it has been.
    #[must_use]
    pub fn reports(&self) -> &[(PathBuf, Report)] {
        &self.done
    }

    /// Records that were in parts between those that were given.
    #[must_use]
    pub fn absent(&self) -> u64 {
        self.absent
    }

    fn step(&mut self) -> Result<bool, PartsError> {
        loop {
            self.now_missing = std::mem::take(&mut self.missing);
            if self.now_missing > 0 {
                self.absent = self.absent.saturating_add(self.now_missing);
                return Ok(true);
            }
            if let Some((_, path, reader)) = &mut self.current {
                if reader
                    .step()
                    .map_err(|error| PartsError::Read(path.clone(), error))?
                {
                    return Ok(true);
                }
                self.position = reader.position();
            }
            if let Some((part, path, reader)) = self.current.take() {
                self.last = Some(part);
                self.done.push((path, *reader.report()));
            }
            let Some((part, path)) = self.waiting.pop_front() else {
                return Ok(false);
            };
            let mut reader = open(&path)?;
            if let Some(last) = self.last {
                let (next, time) = self.position;
                self.missing = reader.follow(next, time, part.checked_sub(1) == Some(last));
            }
            self.current = Some((part, path, reader));
        }
    }
}

fn open(path: &Path) -> Result<Reader<File>, PartsError> {
    Reader::open(path).map_err(|error| PartsError::Read(path.to_owned(), error))
}
