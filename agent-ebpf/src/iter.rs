//! The bytes of one transfer, wherever the caller keeps them, cut into records.

use core::arch::asm;

use aya_ebpf::helpers::bpf_probe_read_user;
use celeryscope_common::maps::Counter;
use celeryscope_common::{Header, flags};

use crate::emit::{self, CHUNK};
use crate::maps::{TRANSFER, count};

/// Most records for one transfer: a buffer needs at most five, a vector one for each segment and limit in it.
const RECORDS: u32 = 24;

/// A segment list in the caller's memory: struct iovec.
#[derive(Clone, Copy)]
#[repr(C)]
struct IoVec {
    base: u64,
    len: u64,
}

/// A transfer on its way into the ring buffer. Kept in a map, not on the stack: the verifier then knows nothing of the
/// values from one record to the next and walks through the loop once for each round, instead of once for each way to
/// get there.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Transfer {
    /// The next record's header.
    header: Header,
    /// User address of the iovecs not yet visited.
    table: u64,
    /// How many of them there are.
    left: u64,
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

/// Where a transfer's bytes are.
pub(crate) enum Segments {
    /// One buffer at this user address.
    Buffer(u64),
    /// So many iovecs at this user address.
    Vector(u64, u64),
}

/// A transfer up to this size is copied whole; of a longer one [`CHUNK`] from its start and [`CHUNK`] from its end.
const WHOLE: u64 = 65_536;

/// Emits a transfer of `header.total` bytes. `header` has kind, ids, times and `start` set. `continues`: only the
/// last [`CHUNK`] bytes are wanted. The last record has LAST, even where segments run out or there are too many: then
/// it is one without payload.
#[inline(always)]
pub(crate) fn emit(header: &Header, segments: &Segments, continues: bool) {
    let Some(transfer) = TRANSFER.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: this CPU's own element; no other program of ours runs on the CPU before this one is done.
    let transfer = unsafe { &mut *transfer };
    let total = u64::from(header.total);
    transfer.header = *header;
    (transfer.table, transfer.left, transfer.base, transfer.len) = match *segments {
        Segments::Buffer(base) => (0, 0, base, total),
        Segments::Vector(table, count) => (table, count, 0, 0),
    };
    (transfer.head, transfer.tail) = if continues && total > CHUNK {
        (0, total - CHUNK)
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
        emit::user(&self.header, from, len);
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
        // SAFETY: the helper checks the address.
        let Ok(next) = (unsafe { bpf_probe_read_user(self.table as *const IoVec) }) else {
            count(Counter::Unreadable, 1);
            return false;
        };
        self.table += size_of::<IoVec>() as u64;
        self.left -= 1;
        self.base = next.base;
        self.len = next.len;
        true
    }
}

#[inline(always)]
fn min(a: u64, b: u64) -> u64 {
    if a < b { a } else { b }
}

/// `value`, at most `MAX`, in a way that the compiler cannot prove away and the verifier sees.
#[inline(always)]
pub(crate) fn clamp<const MAX: usize>(value: u64) -> u64 {
    let mut value = value;
    // SAFETY: compares and moves registers.
    unsafe {
        asm!(
            "if {value} <= {max} goto +1",
            "{value} = {max}",
            value = inout(reg) value,
            max = const MAX,
            options(pure, nomem, nostack),
        );
    }
    value
}
