//! The ring buffer, read in the order in which its records were begun (`Documentation/bpf/ringbuf.rst`).
//!
//! The kernel lets a reader map the data twice in a row, so that no record is ever in two parts. Both mappings count as memory of
//! the agent's, and only the last record before the end can be in two parts: here the data is mapped once, and that one is copied.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use anyhow::{Context as _, Result};
use aya::maps::MapData;

use super::mapping::Mapping;

/// Before each record: its length and these two bits, and where in the ring it is, which is the kernel's own business.
const HEADER: u64 = 8;
/// BPF_RINGBUF_BUSY_BIT: it is being written.
const BUSY: u32 = 1 << 31;
/// BPF_RINGBUF_DISCARD_BIT: its writer did not want it.
const DISCARDED: u32 = 1 << 30;

/// The reader's end; there is one for each ring.
pub(super) struct Ring<F = MapData> {
    fd: F,
    /// The page on which the reader says how far it is.
    consumer: Mapping,
    /// The page on which the kernel says how far it is, and the data.
    produced: Mapping,
    page: usize,
    size: u64,
    /// How far the reader is.
    at: u64,
    /// Where the record after the one last given begins.
    next: u64,
    /// How far the kernel was when that was last looked at.
    end: u64,
    /// A record of which the end was at the ring's beginning.
    joined: Vec<u8>,
}

impl<F: Descriptor> Ring<F> {
    /// Reads the ring of so many bytes, a power of two of at least a page.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub(super) fn new(fd: F, size: u32) -> Result<Self> {
        let page = rustix::param::page_size();
        let map = |offset: u64, len: usize, writable| {
            Mapping::new(fd.descriptor(), offset, len, writable)
                .context("cannot map the ring buffer into memory")
        };
        let consumer = map(0, page, true)?;
        let produced = map(page as u64, page + size as usize, false)?;
        let at = consumer.word(0).load(Relaxed);
        Ok(Self {
            fd,
            consumer,
            produced,
            page,
            size: size.into(),
            at,
            next: at,
            end: at,
            joined: Vec::new(),
        })
    }

    /// The next record, unless it is not there or not complete. Its room is the kernel's again with the next call.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        loop {
            if self.next != self.at {
                self.at = self.next;
                self.consumer.word(0).store(self.at, Release);
            }
            if self.at == self.end {
                self.end = self.produced.word(0).load(Acquire);
                if self.at == self.end {
                    return None;
                }
            }
            let head = self.produced.half(self.place(self.at)).load(Acquire);
            if head & BUSY != 0 {
                return None;
            }
            let len = u64::from(head & !DISCARDED);
            self.next = self.at + (HEADER + len).next_multiple_of(HEADER);
            if head & DISCARDED == 0 {
                return Some(self.payload(self.at + HEADER, len));
            }
        }
    }

    /// What it was made of.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.descriptor()
    }

    fn payload(&mut self, from: u64, len: u64) -> &[u8] {
        let first = len.min(self.size - from % self.size);
        let (place, start) = (self.place(from), self.page);
        // SAFETY: the record is complete, and its room is not the kernel's before `next` is called again.
        let bytes = |offset, len: u64| unsafe { self.produced.bytes(offset, len as usize) };
        if first == len {
            return bytes(place, len);
        }
        self.joined.clear();
        self.joined.extend_from_slice(bytes(place, first));
        self.joined.extend_from_slice(bytes(start, len - first));
        &self.joined
    }

    /// Where in the mapping a place in the ring is.
    fn place(&self, at: u64) -> usize {
        self.page + (at % self.size) as usize
    }
}

/// What has the ring behind it.
pub(super) trait Descriptor {
    fn descriptor(&self) -> BorrowedFd<'_>;
}

impl Descriptor for MapData {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd().as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    const SIZE: u32 = 4096;

    impl Descriptor for OwnedFd {
        fn descriptor(&self) -> BorrowedFd<'_> {
            self.as_fd()
        }
    }

    /// A writer as the kernel is one.
    struct Writer {
        all: Mapping,
        page: usize,
        at: u64,
    }

    impl Writer {
        fn new(fd: &OwnedFd) -> Self {
            let page = rustix::param::page_size();
            let all = Mapping::new(fd.as_fd(), 0, 2 * page + SIZE as usize, true).unwrap();
            Self { all, page, at: 0 }
        }

        fn place(&self, at: u64) -> usize {
            2 * self.page + (at % u64::from(SIZE)) as usize
        }

        /// Begins a record; gives where it is.
        fn begin(&mut self, payload: &[u8]) -> u64 {
            let begun = self.at;
            self.head(begun, payload.len() as u32 | BUSY);
            let mut words: Vec<u8> = payload.to_vec();
            words.resize(payload.len().next_multiple_of(8), 0);
            for (n, word) in words.chunks(8).enumerate() {
                let word = u64::from_ne_bytes(word.try_into().unwrap());
                let place = self.place(begun + HEADER + 8 * n as u64);
                self.all.word(place).store(word, Relaxed);
            }
            self.at += HEADER + words.len() as u64;
            self.all.word(self.page).store(self.at, Release);
            begun
        }

        fn head(&self, at: u64, head: u32) {
            self.all.half(self.place(at)).store(head, Release);
        }

        fn put(&mut self, payload: &[u8]) {
            let at = self.begin(payload);
            self.head(at, payload.len() as u32);
        }

        /// Bytes that the reader has not given back.
        fn taken(&self) -> u64 {
            self.at - self.all.word(0).load(Acquire)
        }
    }

    fn ring() -> (Ring<OwnedFd>, Writer) {
        let fd = memfd_create("ring", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, 2 * rustix::param::page_size() as u64 + u64::from(SIZE)).unwrap();
        let writer = Writer::new(&fd);
        (Ring::new(fd, SIZE).unwrap(), writer)
    }

    /// Scenario: records of every length up to some hundred bytes, several times around the ring.
    /// Guarantees: each is read as it was written, in order, those in two parts too; all room is given back.
    #[test]
    fn around_and_around() {
        let (mut ring, mut writer) = ring();
        let mut in_two = 0;
        for round in 0..4_u8 {
            for len in 0..600_usize {
                let payload: Vec<u8> = (0..len).map(|n| (n as u8).wrapping_mul(31) ^ round).collect();
                let (begin, end) = (writer.at + HEADER, writer.at + HEADER + len as u64);
                in_two += u32::from(len > 0 && begin / u64::from(SIZE) != (end - 1) / u64::from(SIZE));
                writer.put(&payload);
                assert_eq!(ring.next(), Some(&payload[..]), "of {len} bytes");
            }
        }
        assert!(in_two > 50, "{in_two} records in two parts");
        assert_eq!(ring.next(), None);
        assert_eq!(writer.taken(), 0);
    }

    /// Scenario: a record that is still being written, with a complete one and a discarded one behind it.
    /// Guarantees: none of them is read before the first is complete; then the two that are records, in order.
    #[test]
    fn order_is_kept() {
        let (mut ring, mut writer) = ring();
        let slow = writer.begin(b"slow");
        writer.put(b"quick");
        let unwanted = writer.begin(b"unwanted");
        writer.head(unwanted, 8 | DISCARDED);
        writer.put(b"last");
        assert_eq!(ring.next(), None);
        assert_eq!(ring.next(), None);
        writer.head(slow, 4);
        for wanted in [&b"slow"[..], b"quick", b"last"] {
            assert_eq!(ring.next(), Some(wanted));
        }
        assert_ne!(
            writer.taken(),
            0,
            "the last is not given back while it may be looked at"
        );
        assert_eq!(ring.next(), None);
        assert_eq!(writer.taken(), 0);
    }
}
