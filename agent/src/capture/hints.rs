//! The kernel half's `FD_HINTS`, mapped into our memory: both halves add to its counts and take from them, atomically, each for
//! what it does to `FDS` itself.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use aya::maps::Map;
use celeryscope_common::maps::{FD_HINTS, fd_hint};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

const BYTES: usize = FD_HINTS as usize * size_of::<u64>();

/// The mapping; gone when dropped.
pub(super) struct FdHints(NonNull<AtomicU64>);

// SAFETY: the memory is read and written by atomic instructions alone, and belongs to this value wherever it goes.
unsafe impl Send for FdHints {}

impl FdHints {
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self> {
        let Some(Map::Array(hints)) = ebpf.map("FD_HINTS") else {
            bail!("the BPF object has no array FD_HINTS: it does not belong to this build");
        };
        Self::map(hints.fd().as_fd()).context("cannot map the BPF map FD_HINTS into memory")
    }

    fn map(fd: BorrowedFd<'_>) -> Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, wherever the kernel puts it; the map has BYTES bytes, else the call fails.
        let at = unsafe { mmap(std::ptr::null_mut(), BYTES, protection, MapFlags::SHARED, fd, 0) }?;
        Ok(Self(NonNull::new(at.cast()).context("it is nowhere")?))
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
        // SAFETY: an element of the mapping, which is as long as the map has elements; aligned, and changed atomically by all.
        unsafe { self.0.add(fd_hint(pid, fd) as usize).as_ref() }
    }
}

impl Drop for FdHints {
    fn drop(&mut self) {
        // SAFETY: our mapping, to which nothing refers any more.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), BYTES) };
    }
}
