//! The files whose code a process has mapped, and how each can be opened.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Most bytes that are read of one process's maps: the kernel allows 65,530 of them unless told otherwise.
const LIMIT: u64 = 16 << 20;

/// A file that is mapped with the right to execute it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    /// As the process sees it; ends with ` (deleted)` where no name leads to it any more.
    pub(super) path: PathBuf,
    /// Where it is mapped, as the names in `map_files` are written.
    range: String,
    major: u32,
    minor: u32,
    inode: u64,
}

/// The files whose code `pid` has mapped, each once, in the order of their addresses.
pub(super) fn executables(proc_root: &Path, pid: u32) -> io::Result<Vec<Mapped>> {
    listed(File::open(proc_root.join(pid.to_string()).join("maps"))?)
}

/// Those that `maps` lists.
pub(super) fn listed(maps: impl Read) -> io::Result<Vec<Mapped>> {
    let mut found: Vec<Mapped> = Vec::new();
    let mut lines = BufReader::with_capacity(64 << 10, maps.take(LIMIT));
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        if let Some(mapped) = parse(&line)
            // A file's mappings follow each other.
            && found.last().is_none_or(|last| !last.is_same(&mapped))
        {
            found.push(mapped);
        }
        line.clear();
    }
    Ok(found)
}

impl Mapped {
    fn is_same(&self, other: &Self) -> bool {
        self.inode == other.inode && (self.major, self.minor) == (other.major, other.minor)
    }

    fn is(&self, file: &Metadata) -> bool {
        let device = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
        self.inode == file.ino() && (self.major, self.minor) == device
    }

    /// A path by which the very file that is mapped can be opened, and what is known of it: its name in the process's
    /// own file system, else the kernel's link to it.
    pub(super) fn locate(&self, proc_root: &Path, pid: u32) -> io::Result<(PathBuf, Metadata)> {
        let dir = proc_root.join(pid.to_string());
        let by_name = dir
            .join("root")
            .join(self.path.strip_prefix("/").unwrap_or(&self.path));
        // Only a regular file is safe to open: anything else may wait for somebody.
        let named = fs::metadata(&by_name).ok().filter(Metadata::is_file);
        if let Some(named) = &named
            && self.is(named)
        {
            return Ok((by_name, named.clone()));
        }
        // On overlay and btrfs a file's device is another to stat than in maps, so the kernel's link decides. It takes
        // CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE; without, the inode's number must do.
        let by_range = dir.join("map_files").join(&self.range);
        match (fs::metadata(&by_range), named) {
            (Ok(linked), Some(named)) if (linked.dev(), linked.ino()) == (named.dev(), named.ino()) => {
                Ok((by_name, named))
            }
            (Ok(linked), _) if linked.is_file() => Ok((by_range, linked)),
            (Ok(_), _) => Err(io::Error::from(io::ErrorKind::InvalidInput)),
            (Err(error), Some(named))
                if error.kind() == io::ErrorKind::PermissionDenied && named.ino() == self.inode =>
            {
                Ok((by_name, named))
            }
            (Err(error), _) => Err(error),
        }
    }
}

/// `start-end perms offset major:minor inode   path`
fn parse(line: &[u8]) -> Option<Mapped> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let at = line.iter().position(|byte| *byte == b'/')?;
    let (fixed, path) = line.split_at(at);
    let mut columns = std::str::from_utf8(fixed).ok()?.split_ascii_whitespace();
    let (start, end) = columns.next()?.split_once('-')?;
    // In map_files there are no leading zeros.
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let range = format!("{:x}-{:x}", hex(start)?, hex(end)?);
    if !columns.next()?.contains('x') {
        return None;
    }
    let (major, minor) = columns.nth(1)?.split_once(':')?;
    let inode = columns.next()?.parse().ok()?;
    // A name with a slash in brackets is none.
    if columns.next().is_some() || inode == 0 {
        return None;
    }
    Some(Mapped {
        path: OsStr::from_bytes(path).into(),
        range,
        major: u32::from_str_radix(major, 16).ok()?,
        minor: u32::from_str_radix(minor, 16).ok()?,
        inode,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::host::fake::Tree;

    /// A line of maps that maps this file, as executable code, under this name.
    pub(in crate::host::tls) fn line(start: u64, file: &Path, name: &str) -> String {
        let file = fs::metadata(file).unwrap();
        let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
        format!(
            "{start:08x}-{:08x} r-xp 00001000 {major:02x}:{minor:02x} {}    {name}\n",
            start + 0x1000,
            file.ino()
        )
    }

    /// Scenario: maps with data, code, a library with two code mappings, anonymous memory, the heap and the vdso.
    /// Guarantees: each file with code is there once, by its whole name.
    #[test]
    fn files_with_code() {
        let tree = Tree::new();
        tree.process(10, 1, "python", &[]);
        tree.file(
            10,
            "maps",
            "00400000-00401000 r--p 00000000 fe:00 7        /usr/bin/python3\n\
             00401000-00402000 r-xp 00001000 fe:00 7        /usr/bin/python3\n\
             01000000-01001000 rw-p 00000000 00:00 0        [heap]\n\
             7f0000000000-7f0000001000 r-xp 00001000 fe:1a 8  /opt/a b/libssl.so.3 (deleted)\n\
             7f0000002000-7f0000003000 r-xp 00003000 fe:1a 8  /opt/a b/libssl.so.3 (deleted)\n\
             7f0000004000-7f0000005000 rwxp 00000000 00:00 0\n\
             7f0000005000-7f0000006000 rwxp 00000000 00:00 0  [anon:a/b]\n\
             7ffe00000000-7ffe00001000 r-xp 00000000 00:00 0  [vdso]\n",
        );
        let found = executables(tree.root(), 10).unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|mapped| (mapped.path.to_str().unwrap(), mapped.range.as_str(), mapped.inode))
            .collect();
        assert_eq!(
            shown,
            [
                ("/usr/bin/python3", "401000-402000", 7),
                ("/opt/a b/libssl.so.3 (deleted)", "7f0000000000-7f0000001000", 8),
            ]
        );
        assert_eq!((found[1].major, found[1].minor), (0xfe, 0x1a));
        assert!(executables(tree.root(), 11).is_err());
    }

    /// Scenario: lines that are cut, or hold something else.
    /// Guarantees: they are passed over.
    #[test]
    fn odd_lines_are_passed_over() {
        let whole = b"00401000-00402000 r-xp 00001000 fe:00 7   /usr/bin/python3\n";
        assert!(parse(whole).is_some());
        let path = whole.iter().position(|byte| *byte == b'/').unwrap();
        for end in 0..=path {
            let _ = parse(&whole[..end]);
            assert!(end == path || parse(&whole[..end]).is_none());
        }
        for line in [
            "x-00402000 r-xp 0 fe:00 7 /a",
            "0-1 r-xp 0 fe00 7 /a",
            "0-1 r-xp 0 fe:00 z /a",
            "0-1 r-xp 0 fe:00 0 /a",
        ] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }

    /// Scenario: a mapped file that is where it was, one that was replaced, one whose device has another number in maps,
    /// and a name that is now a directory.
    /// Guarantees: the first is opened by its name, the second by the kernel's link, the third by its name; the last
    /// is an error.
    #[test]
    fn the_very_file_that_is_mapped() {
        let tree = Tree::new();
        tree.process(10, 1, "python", &[]);
        tree.file(10, "files/libssl.so.3", "old");
        tree.file(10, "files/new", "new");
        tree.file(10, "root/libssl.so.3", "");
        let dir = tree.root().join("10");
        let (old, name) = (dir.join("files/libssl.so.3"), dir.join("root/libssl.so.3"));
        fs::remove_file(&name).unwrap();
        fs::hard_link(&old, &name).unwrap();
        let mapped = parse(line(0x40_0000, &old, "/libssl.so.3").as_bytes()).unwrap();
        assert_eq!(mapped.locate(tree.root(), 10).unwrap().0, name);

        let elsewhere = Mapped {
            major: mapped.major + 1,
            ..mapped.clone()
        };
        let error = elsewhere.locate(tree.root(), 10).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        tree.link(10, "map_files/400000-401000", old.to_str().unwrap());
        assert_eq!(elsewhere.locate(tree.root(), 10).unwrap().0, name);

        fs::rename(dir.join("files/new"), &name).unwrap();
        let link = dir.join("map_files/400000-401000");
        assert_eq!(mapped.locate(tree.root(), 10).unwrap().0, link);
        fs::remove_file(&link).unwrap();
        assert!(mapped.locate(tree.root(), 10).is_err());
        fs::remove_file(&name).unwrap();
        fs::create_dir(&name).unwrap();
        assert!(mapped.locate(tree.root(), 10).is_err());
    }
}
