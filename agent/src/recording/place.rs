//! Where a recording is written: only what is new or was a recording before is touched, and nobody else can read it.
//!
//! The folder is opened once and everything is done by its descriptor, so that nobody who may write beside the recording
//! can lead it elsewhere. In folders that everybody may write to no symbolic link is followed, the folder's own path
//! included.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::format::MAGIC;

/// Why a recording can't be written there.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// No name at the end of the path.
    #[error("{} does not name a file", .0.display())]
    NoName(PathBuf),
    /// A symbolic link that anybody may have put there.
    #[error("{} is a symbolic link in a folder that everybody may write to: it is not followed; name the file itself", .0.display())]
    Link(PathBuf),
    /// Not what a recording may replace.
    #[error("{} is there already and is not a recording: remove it, or give another name", .0.display())]
    Other(PathBuf),
    /// Somebody writes to it.
    #[error("{} is being written by another celeryscope: give another name", .0.display())]
    InUse(PathBuf),
    /// The system's.
    #[error("{}", .0.display())]
    Io(PathBuf, #[source] io::Error),
}

/// A folder, and a file's name in it.
#[derive(Debug)]
pub(super) struct Place {
    folder: OwnedFd,
    name: OsString,
    shown: PathBuf,
}

impl Place {
    /// Opens the folder that `path` is in.
    pub(super) fn find(path: &Path) -> Result<Self, PlaceError> {
        let name = path
            .file_name()
            .ok_or_else(|| PlaceError::NoName(path.to_owned()))?;
        let place = Self {
            folder: open_folder(path.parent().unwrap_or(Path::new("")))?,
            name: name.to_owned(),
            shown: path.to_owned(),
        };
        match place.kind(name)? {
            Some(FileType::Symlink) if everybody_writes(&place.folder) => {
                Err(PlaceError::Link(path.to_owned()))
            }
            // Whoever may put a link here may as well change the command line.
            Some(FileType::Symlink) => {
                let target = path
                    .canonicalize()
                    .map_err(|error| PlaceError::Io(path.to_owned(), error))?;
                Self::find(&target)
            }
            _ => Ok(place),
        }
    }

    /// A new file in the place of an earlier recording, if there was one; only its owner may read it.
    pub(super) fn create(&self) -> Result<File, PlaceError> {
        self.remove_recording(&self.name)?;
        self.create_new()
    }

    /// Removes the older parts of an earlier recording.
    pub(super) fn clear(&self) -> Result<(), PlaceError> {
        let mut age = 1;
        while self.remove_recording(&self.older(age))? {
            age += 1;
        }
        Ok(())
    }

    /// Makes way for the next part: FILE becomes FILE.1, FILE.1 becomes FILE.2, what is older than `keep` is removed.
    pub(super) fn rotate(&self, keep: u32) -> Result<File, PlaceError> {
        let failed = |error: Errno| PlaceError::Io(self.shown.clone(), error.into());
        for age in (1..=keep).rev() {
            let from = match age {
                1 => self.name.clone(),
                _ => self.older(age - 1),
            };
            match rustix::fs::renameat(&self.folder, from, &self.folder, self.older(age)) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        if keep == 0 {
            rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty()).map_err(failed)?;
        }
        self.create_new()
    }

    fn create_new(&self) -> Result<File, PlaceError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::openat(&self.folder, &self.name, flags, mode)
            .map_err(|error| PlaceError::Io(self.shown.clone(), error.into()))?;
        // Told to those who would replace it; some file systems have no locks.
        let _ = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        Ok(file.into())
    }

    /// Removes a file that is a recording or empty; tells whether there was one.
    fn remove_recording(&self, name: &OsStr) -> Result<bool, PlaceError> {
        let shown = self.shown.with_file_name(name);
        let failed = |error: Errno| PlaceError::Io(shown.clone(), error.into());
        match self.kind(name)? {
            None => return Ok(false),
            Some(FileType::RegularFile) => {}
            Some(_) => return Err(PlaceError::Other(shown)),
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.folder, name, flags, Mode::empty()).map_err(failed)?;
        let mut start = Vec::new();
        let mut file = File::from(file);
        Read::by_ref(&mut file)
            .take(MAGIC.len() as u64)
            .read_to_end(&mut start)
            .map_err(|error| PlaceError::Io(shown.clone(), error))?;
        if !MAGIC.starts_with(&start) {
            return Err(PlaceError::Other(shown));
        }
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Err(PlaceError::InUse(shown));
        }
        rustix::fs::unlinkat(&self.folder, name, AtFlags::empty()).map_err(failed)?;
        Ok(true)
    }

    fn kind(&self, name: &OsStr) -> Result<Option<FileType>, PlaceError> {
        kind_of(&self.folder, name)
            .map_err(|error| PlaceError::Io(self.shown.with_file_name(name), error.into()))
    }

    fn older(&self, age: u32) -> OsString {
        let mut name = self.name.clone();
        name.push(format!(".{age}"));
        name
    }
}

/// Opens a folder step by step; a link on the way that anybody may have put there is not followed.
fn open_folder(path: &Path) -> Result<OwnedFd, PlaceError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut so_far = PathBuf::new();
    let here = rustix::fs::openat(CWD, ".", flags, Mode::empty());
    let mut folder = here.map_err(|error| PlaceError::Io(PathBuf::from("."), error.into()))?;
    for component in path.components() {
        so_far.push(component);
        let name = component.as_os_str();
        let failed = |error: Errno| PlaceError::Io(so_far.clone(), error.into());
        let is_link = kind_of(&folder, name).map_err(failed)? == Some(FileType::Symlink);
        if is_link && everybody_writes(&folder) {
            return Err(PlaceError::Link(so_far));
        }
        folder = rustix::fs::openat(&folder, name, flags, Mode::empty()).map_err(failed)?;
    }
    Ok(folder)
}

fn kind_of(folder: &OwnedFd, name: &OsStr) -> Result<Option<FileType>, Errno> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// One whose mode can't be read is taken for one that is open to all.
fn everybody_writes(folder: &OwnedFd) -> bool {
    rustix::fs::fstat(folder).map_or(true, |stat| stat.st_mode & Mode::WOTH.bits() != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;
    use crate::recording::Writer;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, mode: u32) -> Self {
            let path = std::env::temp_dir().join(format!("celeryscope-place-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Self(path)
        }

        fn recording(&self, name: &str) -> PathBuf {
            let path = self.0.join(name);
            let writer = Writer::new(File::create(&path).unwrap(), true).unwrap();
            writer.finish().unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// As the program says it.
    fn refused(path: &Path) -> String {
        let made = Place::find(path).and_then(|place| place.create());
        format!("{:#}", anyhow::Error::from(made.map(|_| ()).unwrap_err()))
    }

    /// Scenario: a place that is free, one with an earlier recording that everybody could read, one with something else.
    /// Guarantees: a new file that only its owner may read; the other file is left as it is, and the error names it.
    #[test]
    fn only_recordings_are_replaced() {
        let folder = Folder::new("replaced", 0o755);
        let path = folder.0.join("new.rec");
        let file = Place::find(&path).unwrap().create().unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);

        let old = folder.recording("old.rec");
        fs::set_permissions(&old, fs::Permissions::from_mode(0o644)).unwrap();
        let before = fs::metadata(&old).unwrap().ino();
        let kept = File::open(&old).unwrap();
        let file = Place::find(&old).unwrap().create().unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
        assert_ne!(file.metadata().unwrap().ino(), before);
        assert!(kept.metadata().unwrap().len() > 0, "the earlier file was emptied");

        let other = folder.0.join("letter.txt");
        fs::write(&other, "Dear Sir").unwrap();
        assert!(refused(&other).contains("letter.txt is there already and is not a recording"));
        assert_eq!(fs::read(&other).unwrap(), b"Dear Sir");
        assert!(refused(Path::new("/dev/null")).contains("not a recording"));
        let nowhere = refused(&folder.0.join("none/x.rec"));
        assert_eq!(nowhere.matches("No such file").count(), 1, "{nowhere}");
    }

    /// Scenario: symbolic links to a recording and to a folder, in a folder of one's own and in one that everybody may write to.
    /// Guarantees: one's own are followed; the others are refused, and what they point to is left alone.
    #[test]
    fn links_that_anybody_may_have_made_are_not_followed() {
        let (own, shared) = (Folder::new("own", 0o755), Folder::new("shared", 0o1777));
        let target = own.recording("target.rec");
        let size = || fs::metadata(&target).unwrap().len();
        let before = size();
        for folder in [&shared, &own] {
            symlink(&target, folder.0.join("link.rec")).unwrap();
            symlink(&own.0, folder.0.join("folder")).unwrap();
        }
        for link in ["link.rec", "folder/new.rec"] {
            let refused = refused(&shared.0.join(link));
            assert!(refused.contains("is a symbolic link"), "{refused}");
            assert_eq!(size(), before);
        }
        assert!(!own.0.join("new.rec").exists());
        for link in ["link.rec", "folder/new.rec"] {
            Place::find(&own.0.join(link)).unwrap().create().unwrap();
        }
        assert_eq!(size(), 0, "the earlier recording is still there");
        assert!(
            own.0.join("link.rec").is_symlink(),
            "the link itself was replaced"
        );
        assert!(own.0.join("new.rec").exists());
    }

    /// Scenario: two recordings into the same file at once.
    /// Guarantees: the second is refused.
    #[test]
    fn a_file_in_use_is_left_alone() {
        let folder = Folder::new("in-use", 0o755);
        let path = folder.0.join("x.rec");
        let first = Place::find(&path).unwrap().create().unwrap();
        assert!(refused(&path).contains("is being written by another celeryscope"));
        drop(first);
        Place::find(&path).unwrap().create().unwrap();
    }

    /// Scenario: a file is rotated four times with two older ones kept, then with none kept; then a new recording begins.
    /// Guarantees: .1 is the youngest; no more than were asked for; the new recording removes the older parts, and nothing else.
    #[test]
    fn older_parts_move_on() {
        let folder = Folder::new("rotate", 0o755);
        let path = folder.0.join("x.rec");
        let place = Place::find(&path).unwrap();
        let mut inodes = vec![place.create().unwrap().metadata().unwrap().ino()];
        for _ in 0..4 {
            inodes.push(place.rotate(2).unwrap().metadata().unwrap().ino());
        }
        let ino = |name: &str| fs::metadata(folder.0.join(name)).unwrap().ino();
        assert_eq!(
            [ino("x.rec.2"), ino("x.rec.1"), ino("x.rec")],
            [inodes[2], inodes[3], inodes[4]]
        );
        assert!(!folder.0.join("x.rec.3").exists());
        place.rotate(0).unwrap();
        assert_eq!(ino("x.rec.1"), inodes[3]);

        fs::write(folder.0.join("x.rec.notes"), "mine").unwrap();
        place.clear().unwrap();
        let mut names: Vec<_> = fs::read_dir(&folder.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["x.rec", "x.rec.notes"]);
        fs::write(folder.0.join("x.rec.1"), "mine").unwrap();
        assert!(place.clear().is_err());
    }
}
