//! System calls under way: what a thread's entry keeps for its return.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap};
use celeryscope_common::maps::Counter;

use crate::iter::Transfer;
use crate::maps::{add, count};

/// `pid_tgid` → the call that the thread is in. The element stays for the thread's next call (an insert and a remove
/// for each call would cost more than the call's record); removed when the thread exits.
#[map]
pub(crate) static CALLS: HashMap<u64, Call> = HashMap::with_max_entries(16_384, 0);

/// How many calls of threads that share an element are under way, an element for some of a thread id's bits: system calls in the lower
/// half, calls of TLS libraries (see `sessions`) in the upper. An array, asked before the maps of either: nearly every return on the host is
/// of a call that nobody noted, and this says so at a tenth of the cost. One for both, for what it costs is to fetch the word.
#[map]
static UNDER_WAY: Array<u64> = Array::with_max_entries(UNDER_WAY_SIZE, 0);

/// `pid_tgid` → the segments of the call that the thread is in, where the kernel's own list of them is gone when the call
/// returns. Kprobe back end only.
#[map]
pub(crate) static VECTORS: LruHashMap<u64, Vector> = LruHashMap::with_max_entries(1024, 0);

/// A power of two.
const UNDER_WAY_SIZE: u32 = 16_384;

/// Most segments of a [`Vector`].
pub(crate) const VECTOR_LIMIT: usize = 16;

/// Value of [`VECTORS`]: struct iovec, as the kernel had copied them.
pub(crate) type Vector = [[u64; 2]; VECTOR_LIMIT];

/// What a thread's [`Call`] is doing.
pub(crate) mod op {
    /// No call under way that matters.
    pub(crate) const IDLE: u32 = 0;
    pub(crate) const SEND: u32 = 1;
    pub(crate) const RECV: u32 = 2;
    pub(crate) const CONNECT: u32 = 3;
    pub(crate) const DUP: u32 = 4;
}

/// Which copy of a program noted a [`Call`], where there are two.
pub(crate) mod mark {
    /// Both copies have run.
    pub(crate) const SEEN: u32 = 0;
    /// The first, and the second has not run since.
    pub(crate) const FIRST: u32 = 1;
    /// The second, and the first has not run since.
    pub(crate) const SECOND: u32 = 2;

    /// Of the copy that asks.
    pub(crate) const fn own(again: bool) -> u32 {
        if again { SECOND } else { FIRST }
    }

    /// Of the other.
    pub(crate) const fn other(again: bool) -> u32 {
        own(!again)
    }
}

/// What [`Call::ptr`] points at.
pub(crate) mod shape {
    /// `len` bytes.
    pub(crate) const BUFFER: u32 = 0;
    /// `len` iovecs.
    pub(crate) const VECTOR: u32 = 1;
    /// A msghdr.
    pub(crate) const MESSAGE: u32 = 2;
    /// `len` iovecs in the kernel's memory.
    pub(crate) const KERNEL_VECTOR: u32 = 3;
    /// Nothing that the caller could read or write itself.
    pub(crate) const OPAQUE: u32 = 4;
}

/// Value of [`CALLS`]: arguments kept from a call's entry for its return.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Call {
    /// See [`op`].
    pub(crate) op: u32,
    /// Transfers: see [`shape`].
    pub(crate) shape: u32,
    /// Whose it is, as `pid_tgid`.
    pub(crate) thread: u64,
    /// When it began.
    pub(crate) enter: u64,
    /// Transfers: the connection's key in `CONNS`, or 0 when it may be a pool's pipe. Dup: the same.
    pub(crate) conn: u64,
    /// Transfers: address of what `shape` says.
    pub(crate) ptr: u64,
    /// Transfers: bytes asked for, or iovecs.
    pub(crate) len: u64,
    /// `KERNEL_VECTOR`: bytes of the first segment that are not this transfer's.
    pub(crate) skip: u64,
    /// Connect: the peer.
    pub(crate) addr: [u32; 4],
    /// The descriptor, where it is known.
    pub(crate) fd: u32,
    /// Connect: the peer's port.
    pub(crate) port: u32,
    /// Transfers of the socket back ends: the TCP sequence number of the first byte.
    pub(crate) seq: u32,
    /// See [`mark`].
    pub(crate) mark: u32,
    /// Transfers: bytes moved, and what becomes of them (see `idle`). Here rather than in registers, so that the verifier does not
    /// walk through what follows once for each length that matters.
    pub(crate) moved: u64,
    pub(crate) fate: u64,
    /// The transfer on its way into the ring buffer. Here, because the thread may be moved aside while a program runs, and
    /// another thread run the same one.
    pub(crate) transfer: Transfer,
}

impl Call {
    pub(crate) const IDLE: Self = Self {
        op: op::IDLE,
        shape: 0,
        thread: 0,
        enter: 0,
        conn: 0,
        ptr: 0,
        len: 0,
        skip: 0,
        addr: [0; 4],
        fd: 0,
        port: 0,
        seq: 0,
        mark: mark::SEEN,
        moved: 0,
        fate: 0,
        transfer: Transfer::NONE,
    };

    /// [`Self::fate`], read again each time.
    #[inline(always)]
    pub(crate) fn fate(&self) -> u64 {
        // SAFETY: a word of this call.
        unsafe { (&raw const self.fate).read_volatile() }
    }

    /// [`Self::moved`] likewise.
    #[inline(always)]
    pub(crate) fn moved(&self) -> u64 {
        // SAFETY: as above.
        unsafe { (&raw const self.moved).read_volatile() }
    }
}

/// The calling thread's element of [`CALLS`], made if need be.
#[inline(always)]
pub(crate) fn call_of(pid_tgid: u64) -> Option<&'static mut Call> {
    if let Some(call) = CALLS.get_ptr_mut(pid_tgid) {
        // SAFETY: an element of this thread is used by this thread alone.
        return Some(unsafe { &mut *call });
    }
    if CALLS.insert(pid_tgid, &IDLE, 0).is_err() {
        count(Counter::CallsFull, 1);
    }
    // SAFETY: as above.
    CALLS.get_ptr_mut(pid_tgid).map(|call| unsafe { &mut *call })
}

/// Inserted as it lies: as a value it would be put together on the stack, in as many instructions as all the rest of an entry takes.
static IDLE: Call = Call::IDLE;

/// Notes that the thread is in a call. Counted before it is noted, and taken back after: too much only costs a look.
#[inline(always)]
pub(crate) fn begin(pid_tgid: u64, call: &mut Call, op: u32) {
    if call.op == op::IDLE {
        count_under_way(pid_tgid, 1);
    }
    (call.op, call.thread) = (op, pid_tgid);
}

/// The call is over; what it was.
#[inline(always)]
pub(crate) fn end(pid_tgid: u64, call: &mut Call) -> u32 {
    let op = core::mem::replace(&mut call.op, op::IDLE);
    if op != op::IDLE {
        count_under_way(pid_tgid, u64::MAX);
    }
    op
}

#[inline(always)]
pub(crate) fn count_under_way(pid_tgid: u64, by: u64) {
    add(&UNDER_WAY, pid_tgid as u32 & (UNDER_WAY_SIZE - 1), by);
}

/// The thread's element of [`UNDER_WAY`].
#[inline(always)]
pub(crate) fn under_way(pid_tgid: u64) -> u64 {
    // SAFETY: one aligned word.
    match UNDER_WAY.get(pid_tgid as u32 & (UNDER_WAY_SIZE - 1)) {
        Some(word) => *word,
        None => 0,
    }
}

/// The call under way, if it is one of ours, which it stays.
#[inline(always)]
pub(crate) fn noted_call(pid_tgid: u64) -> Option<&'static mut Call> {
    if under_way(pid_tgid) as u32 == 0 {
        return None;
    }
    let call = CALLS.get_ptr_mut(pid_tgid)?;
    // SAFETY: an element of this thread is used by this thread alone.
    let call = unsafe { &mut *call };
    (call.op != op::IDLE).then_some(call)
}

/// The thread ends.
#[inline(always)]
pub(crate) fn forget_calls(pid_tgid: u64) {
    if let Some(call) = noted_call(pid_tgid) {
        end(pid_tgid, call);
    }
    let _ = CALLS.remove(pid_tgid);
}

/// Has the first copy of this program noted this very call? For the second, which asks once.
#[inline(always)]
pub(crate) fn just_noted(pid_tgid: u64) -> bool {
    match noted_call(pid_tgid) {
        Some(call) if call.mark == mark::FIRST => {
            call.mark = mark::SEEN;
            true
        }
        _ => false,
    }
}

/// The call under way, if it is one of ours; the thread is idle afterwards.
#[inline(always)]
pub(crate) fn take_call(pid_tgid: u64) -> Option<(&'static mut Call, u32)> {
    let call = noted_call(pid_tgid)?;
    let op = end(pid_tgid, call);
    Some((call, op))
}
