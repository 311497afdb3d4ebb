//! A /proc of our own, for tests.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that looks like /proc; removed when dropped.
pub(crate) struct Tree(PathBuf);

impl Tree {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "celeryscope-proc-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(&root).unwrap();
        Self(root)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    pub(crate) fn process(&self, pid: u32, parent: u32, comm: &str, arguments: &[&str]) {
        let line: String = arguments.iter().map(|argument| format!("{argument}\0")).collect();
        self.file(pid, "cmdline", &line);
        self.file(pid, "comm", &format!("{comm}\n"));
        self.file(pid, "stat", &format!("{pid} ({comm}) S {parent} 1 1 0 -1"));
    }

    pub(crate) fn file(&self, pid: u32, name: &str, content: &str) {
        fs::write(self.path(pid, name), content).unwrap();
    }

    pub(crate) fn link(&self, pid: u32, name: &str, target: &str) {
        symlink(target, self.path(pid, name)).unwrap();
    }

    pub(crate) fn unlink(&self, pid: u32, name: &str) {
        fs::remove_file(self.path(pid, name)).unwrap();
    }

    fn path(&self, pid: u32, name: &str) -> PathBuf {
        let path = self.0.join(pid.to_string()).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
