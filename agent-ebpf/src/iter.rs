//! The bytes of one transfer, wherever the caller keeps them, cut into records.

use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_probe_read_user};
use celeryscope_common::maps::Counter;
use celeryscope_common::{Header, flags};

use crate::emit::{self, CHUNK};
use crate::maps::count;

/// Most records for one transfer: a buffer needs at most five, a vector one for each segment and limit in it.
const RECORDS: u32 = 24;

/// struct iovec.
#[derive(Clone, Copy)]
#[repr(C)]
struct IoVec {
    base: u64,
    len: u64,
}

/// A transfer on its way into the ring buffer. Kept in a map (with the thread's call), not on the stack: the verifier then knows nothing of the
/// values from one record to the next and walks through the loop once for each round, instead of once for each way to
/// get there.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Transfer {
    /// The next record's header.
    header: Header,
    /// Address of the iovecs not yet visited.
    table: u64,
    /// How many of them there are.
    left: u64,
    /// 1 when they are in the kernel's memory.
    kernel: u64,
    /// Bytes of the next segment that are not the transfer's.
    skip: u64,
    /// User address of the current segment's rest.
    base: u64,
    /// Its length.
    len: u64,
    /// The first part that is copied ends here.
    head: u64,
    /// The second begins here, and ends with the transfer.
    tail: u64,
    /// Bytes handled so far.
    at: u64,
}

/// Where a transfer's bytes are: in one buffer, in a list of segments, or nowhere that the caller could read. No enum:
/// what a variant leaves out would be left unset, which the verifier does not let a register be.
#[derive(Clone, Copy)]
pub(crate) struct Segments {
    base: u64,
    is_buffer: u64,
    table: u64,
    count: u64,
    kernel: u64,
    skip: u64,
}

impl Segments {
    /// The transfer is told without its bytes.
    pub(crate) const NOWHERE: Self = Self {
        base: 0,
        is_buffer: 0,
        table: 0,
        count: 0,
        kernel: 0,
        skip: 0,
    };

    /// One buffer at this user address.
    #[inline(always)]
    pub(crate) fn buffer(base: u64) -> Self {
        Self {
            base,
            is_buffer: 1,
            ..Self::NOWHERE
        }
    }

    /// So many iovecs at this user address.
    #[inline(always)]
    pub(crate) fn user(table: u64, count: u64) -> Self {
        Self {
            table,
            count,
            ..Self::NOWHERE
        }
    }

    /// So many iovecs at this kernel address; so many bytes of the first are not the transfer's.
    #[inline(always)]
    pub(crate) fn kernel(table: u64, count: u64, skip: u64) -> Self {
        Self {
            table,
            count,
            kernel: 1,
            skip,
            ..Self::NOWHERE
        }
    }
}

/// A transfer up to this size is copied whole; of a longer one [`CHUNK`] from its start and [`CHUNK`] from its end.
const WHOLE: u64 = 65_536;

/// Of a big message's further pieces that are no longer than [`CHUNK`], so much is copied from the end (TLS moves 16 KiB at a time).
pub(crate) const PIECE_TAIL: u64 = 4096;

/// Emits a transfer of `header.total` bytes, with `transfer` to work in. `header` has kind, ids, times and `start` set.
/// `continues`: only its end is wanted. The last record has LAST, even where segments run out or there are too many: then it is one
/// without payload.
#[inline(always)]
pub(crate) fn emit(transfer: &mut Transfer, header: &Header, segments: &Segments, continues: bool) {
    let total = u64::from(header.total);
    transfer.header = *header;
    transfer.table = segments.table;
    transfer.left = segments.count;
    transfer.kernel = segments.kernel;
    transfer.skip = segments.skip;
    transfer.base = segments.base;
    transfer.len = if segments.is_buffer != 0 { total } else { 0 };
    (transfer.head, transfer.tail) = if continues && total > CHUNK {
        (0, total - CHUNK)
    } else if continues && total > PIECE_TAIL {
        (0, total - PIECE_TAIL)
    } else if total > WHOLE {
        (CHUNK, total - CHUNK)
    } else {
        (total, total)
    };
    transfer.at = 0;
    let mut round = 0;
    while round < RECORDS {
        round += 1;
        match transfer.step() {
            Step::More => {}
            Step::Done => return,
            Step::Stuck => break,
        }
    }
    transfer.header.at = transfer.at as u32;
    transfer.header.flags = flags::LAST;
    emit::bare(&transfer.header, false);
}

enum Step {
    /// There is more.
    More,
    /// The last record is out.
    Done,
    /// No segment is left, though the transfer is not complete.
    Stuck,
}

impl Transfer {
    /// None yet.
    pub(crate) const NONE: Self = Self {
        header: emit::NO_HEADER,
        table: 0,
        left: 0,
        kernel: 0,
        skip: 0,
        base: 0,
        len: 0,
        head: 0,
        tail: 0,
        at: 0,
    };

    /// Emits one record, or gets to where the next begins.
    #[inline(always)]
    fn step(&mut self) -> Step {
        let total = u64::from(self.header.total);
        if self.len == 0 {
            if !self.next_segment() {
                return Step::Stuck;
            }
            if self.len == 0 {
                return Step::More;
            }
        }
        if self.at >= self.head && self.at < self.tail {
            let skip = min(self.len, self.tail - self.at);
            self.advance(skip);
            count(Counter::CutBytes, skip);
            return Step::More;
        }
        let end = if self.at < self.head { self.head } else { total };
        let len = min(min(self.len, end - self.at), CHUNK);
        let last = self.at + len >= total;
        self.header.at = self.at as u32;
        self.header.flags = if last { flags::LAST } else { 0 };
        let from = self.base;
        self.advance(len);
        let _ = emit::user(&self.header, from, len);
        if last { Step::Done } else { Step::More }
    }

    #[inline(always)]
    fn advance(&mut self, by: u64) {
        self.base += by;
        self.len -= by;
        self.at += by;
    }

    /// Loads the next iovec; false when there is none.
    #[inline(always)]
    fn next_segment(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        let at = self.table as *const IoVec;
        let next = if self.kernel != 0 {
            // SAFETY: the helper checks the address.
            unsafe { bpf_probe_read_kernel(at) }
        } else {
            // SAFETY: as above.
            unsafe { bpf_probe_read_user(at) }
        };
        let Ok(next) = next else {
            count(Counter::Unreadable, 1);
            return false;
        };
        self.table += size_of::<IoVec>() as u64;
        self.left -= 1;
        let skip = min(self.skip, next.len);
        self.skip = 0;
        self.base = next.base + skip;
        self.len = next.len - skip;
        true
    }
}

#[inline(always)]
fn min(a: u64, b: u64) -> u64 {
    if a < b { a } else { b }
}
