//! The kernel half's `FD_HINTS`, mapped into our memory: both halves add to its counts and take from them, atomically, each for
//! what it does to `FDS` itself.

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use aya::maps::Map;
use celeryscope_common::maps::{FD_HINTS, fd_hint};

use super::mapping::Mapping;

const BYTES: usize = FD_HINTS as usize * size_of::<u64>();

/// The mapping.
pub(super) struct FdHints(Mapping);

impl FdHints {
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self> {
        let Some(Map::Array(hints)) = ebpf.map("FD_HINTS") else {
            bail!("the BPF object has no array FD_HINTS: it does not belong to this build");
        };
        let mapping = Mapping::new(hints.fd().as_fd(), 0, BYTES, true);
        mapping
            .map(Self)
            .context("cannot map the BPF map FD_HINTS into memory")
    }

    /// A descriptor is about to be put into `FDS`.
    pub(super) fn add(&self, pid: u32, fd: u32) {
        self.count(pid, fd).fetch_add(1, Ordering::SeqCst);
    }

    /// A descriptor was taken out of `FDS`, or not put there.
    pub(super) fn take(&self, pid: u32, fd: u32) {
        self.count(pid, fd).fetch_sub(1, Ordering::SeqCst);
    }

    fn count(&self, pid: u32, fd: u32) -> &AtomicU64 {
        self.0.word(fd_hint(pid, fd) as usize * size_of::<u64>())
    }
}
