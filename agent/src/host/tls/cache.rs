//! What files have been found to hold, so that each is read once.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use super::elf::{self, Malformed};
use super::functions::Functions;

/// Most files that are remembered.
const FILES: usize = 256;

/// What the files looked at last hold; the oldest makes room.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    known: HashMap<Identity, Content>,
    order: VecDeque<Identity>,
}

/// What a file holds.
pub(super) type Content = Result<Arc<Functions>, Malformed>;

/// A file with its content: its device, inode and size, and when it was changed. The time of the last change of the inode
/// is with it because that of the content can be set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

impl Cache {
    /// What the file at `path`, which has this metadata, holds.
    ///
    /// # Errors
    /// It can't be opened, or is another one by now.
    pub(super) fn content(&mut self, path: &Path, file: &Metadata) -> io::Result<Content> {
        let identity = Identity::of(file);
        if let Some(content) = self.known.get(&identity) {
            return Ok(content.clone());
        }
        let opened = open(path)?;
        if Identity::of(&opened.metadata()?) != identity {
            return Err(io::Error::other("it has just changed"));
        }
        let content = elf::functions(opened).map(Arc::new);
        if self.order.len() >= FILES
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(identity);
        self.known.insert(identity, content.clone());
        Ok(content)
    }
}

/// Opens without waiting, should the name lead to a pipe by now.
fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::host::fake::Tree;
    use crate::host::tls::elf::tests::{build, function};

    /// Scenario: a file is asked for twice, is rewritten in place, and many others come after it.
    /// Guarantees: the same content is read once; a changed one again; the oldest is forgotten first, and there are never
    /// more than the limit.
    #[test]
    fn each_file_is_read_once() {
        let tree = Tree::new();
        tree.file(1, "file", "");
        let path = tree.root().join("1/file");
        let symbols = [function("SSL_write", 0x1100), function("SSL_read", 0x1200)];
        fs::write(&path, build(&symbols, &[])).unwrap();
        let mut cache = Cache::default();
        let first_file = fs::metadata(&path).unwrap();
        let first = cache.content(&path, &first_file).unwrap().unwrap();
        let again = cache
            .content(Path::new("/nowhere"), &first_file)
            .unwrap()
            .unwrap();
        assert!(Arc::ptr_eq(&first, &again));

        fs::write(&path, "no longer").unwrap();
        let changed = fs::metadata(&path).unwrap();
        assert_eq!(cache.content(&path, &changed).unwrap(), Err(Malformed::NotElf));
        for n in 0..FILES {
            let name = format!("file{n}");
            tree.file(1, &name, "other");
            let path = tree.root().join("1").join(name);
            let file = fs::metadata(&path).unwrap();
            assert!(cache.content(&path, &file).unwrap().is_err());
        }
        assert_eq!((cache.known.len(), cache.order.len()), (FILES, FILES));
        assert!(cache.content(Path::new("/nowhere"), &first_file).is_err());
    }

    /// Scenario: the file is exchanged between the look at it and its opening.
    /// Guarantees: an error, and nothing is remembered.
    #[test]
    fn an_exchanged_file_is_refused() {
        let tree = Tree::new();
        tree.file(1, "file", "one");
        tree.file(1, "other", "two");
        let dir = tree.root().join("1");
        let file = fs::metadata(dir.join("file")).unwrap();
        let mut cache = Cache::default();
        assert!(cache.content(&dir.join("other"), &file).is_err());
        assert!(cache.known.is_empty());
    }
}
