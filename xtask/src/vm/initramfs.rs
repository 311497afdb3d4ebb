//! The guest's first file system: busybox, the modules, `init.sh`, and the job.
//!
//! The kernel reads it in the form `newc` of cpio(5): for each file a header of eight-digit hexadecimal numbers, its name and its
//! bytes, both filled up to a multiple of four.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::kernels::Image;
use crate::util;

const INIT: &str = include_str!("init.sh");

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// The file system of a guest that runs `job`, a script for the host's shell.
pub(super) fn make(image: &Image, job: &str) -> Result<Vec<u8>> {
    let busybox = util::find_program("busybox").context("no busybox")?;
    let busybox = fs::read(&busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "modules", "proc", "sys"] {
        archive.add(directory, DIRECTORY, &[]);
    }
    archive.add("bin/busybox", PROGRAM, &busybox);
    archive.add("init", PROGRAM, INIT.as_bytes());
    archive.add("job", PROGRAM, job.as_bytes());
    for module in &image.modules {
        let bytes = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
        archive.add(&format!("modules/{}", file_name(module)), PROGRAM, &bytes);
    }
    Ok(archive.finish())
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// An archive so far.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    files: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.files += 1;
        // Inode, mode, uid, gid, links, mtime, size, device (2), special device (2), length of the name with its NUL, checksum.
        let size = u32::try_from(content.len()).expect("nothing here has 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("a short name");
        let fields = [self.files, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.fill();
        self.bytes.extend_from_slice(content);
        self.fill();
    }

    fn fill(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: an archive with a directory, and files of lengths that need filling up and that don't.
    /// Guarantees: another reader of the format gives the same names and bytes back.
    #[test]
    fn another_reader_unpacks_the_archive() {
        let Some(busybox) = util::find_program("busybox") else {
            return;
        };
        let mut archive = Archive::default();
        archive.add("sub", DIRECTORY, &[]);
        let files = [("a", "four"), ("sub/bc", "seven b"), ("sub/empty", "")];
        for (name, content) in files {
            archive.add(name, PROGRAM, content.as_bytes());
        }
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("cpio"), archive.finish()).expect("a file");
        let mut unpack = std::process::Command::new(busybox);
        let unpacked = unpack.args(["cpio", "-idF", "cpio"]).current_dir(dir.path());
        assert!(unpacked.output().expect("busybox").status.success());
        for (name, content) in files {
            assert_eq!(fs::read_to_string(dir.path().join(name)).expect(name), content);
        }
    }
}
