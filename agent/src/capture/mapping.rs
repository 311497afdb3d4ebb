//! Memory that is shared with the kernel half: a part of a BPF map in our address space.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use anyhow::{Context as _, Result};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A mapping; gone when dropped.
pub(super) struct Mapping {
    at: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to this value wherever it goes; it is read by atomic instructions, or where nobody writes (`bytes`).
unsafe impl Send for Mapping {}

impl Mapping {
    /// The `len` bytes at `offset` of what the descriptor refers to.
    ///
    /// # Errors
    /// The kernel refuses, as it does where there are not so many bytes.
    pub(super) fn new(fd: BorrowedFd<'_>, offset: u64, len: usize, writable: bool) -> Result<Self> {
        let mut protection = ProtFlags::READ;
        protection.set(ProtFlags::WRITE, writable);
        // SAFETY: a new mapping, wherever the kernel puts it.
        let at = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                protection,
                MapFlags::SHARED,
                fd,
                offset,
            )
        }?;
        let at = NonNull::new(at.cast()).context("it is nowhere")?;
        Ok(Self { at, len })
    }

    /// The aligned word at this offset. To be written only where the mapping is writable.
    pub(super) fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(
            offset.is_multiple_of(align_of::<AtomicU64>()) && offset + size_of::<AtomicU64>() <= self.len
        );
        // SAFETY: within the mapping, aligned as the mapping is by page, and changed atomically by all.
        unsafe { self.at.add(offset).cast().as_ref() }
    }

    /// The aligned half of a word at this offset.
    pub(super) fn half(&self, offset: usize) -> &AtomicU32 {
        assert!(
            offset.is_multiple_of(align_of::<AtomicU32>()) && offset + size_of::<AtomicU32>() <= self.len
        );
        // SAFETY: as in `word`.
        unsafe { self.at.add(offset).cast().as_ref() }
    }

    /// So many bytes from this offset on.
    ///
    /// # Safety
    /// Nobody writes to them while the slice lives.
    pub(super) unsafe fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        assert!(offset <= self.len && len <= self.len - offset);
        // SAFETY: within the mapping; the caller knows that nobody writes there.
        unsafe { std::slice::from_raw_parts(self.at.add(offset).as_ptr(), len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our mapping, to which nothing refers any more.
        let _ = unsafe { munmap(self.at.as_ptr().cast(), self.len) };
    }
}
