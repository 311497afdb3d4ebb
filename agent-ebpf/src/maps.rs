//! Every map, and the globals that the user half sets before it loads the programs.

use aya_ebpf::Global;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuArray, RingBuf};
use celeryscope_common::maps::{Conn, Counter, Counters, Fd};

use crate::iter::Transfer;

/// Records for the user half, in the order in which calls returned. Size: set by the user half. A record that finds
/// no room is counted by its kind and gone.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// Connection id → its state. Written by the probes; the user half only adds what its scan found and removes what no
/// descriptor refers to. Removed with the last descriptor.
#[map]
pub(crate) static CONNS: HashMap<u64, Conn> = HashMap::with_max_entries(16_384, 0);

/// `fd_key(tgid, fd)` → connection. Removed when the descriptor is closed or its process ends or executes.
#[map]
pub(crate) static FDS: HashMap<u64, Fd> = HashMap::with_max_entries(16_384, 0);

/// `fd_key(tgid, slot)` → descriptor: the list of a process's tracked descriptors. Each slot is an element of its
/// own, so that both halves take slots with an atomic insert and neither overwrites the other's.
#[map]
pub(crate) static SLOTS: HashMap<u64, u32> = HashMap::with_max_entries(16_384, 0);

/// tgid → bits of `maps::process`. Presence alone makes a process watched; children inherit it. Removed at exit.
#[map]
pub(crate) static PROCS: HashMap<u32, u32> = HashMap::with_max_entries(16_384, 0);

/// `pid_tgid` → the call that the thread is in. The element stays for the thread's next call (an insert and a remove
/// for each call would cost more than the call's record); removed when the thread exits.
#[map]
pub(crate) static CALLS: HashMap<u64, Call> = HashMap::with_max_entries(16_384, 0);

/// Connections with the verdict Ignore. Written by the user half alone.
#[map]
pub(crate) static IGNORED: HashMap<u64, u8> = HashMap::with_max_entries(16_384, 0);

/// tgid → wait status of a watched process that is about to end. Written once, by what ends it; removed at exit.
#[map]
pub(crate) static STATUS: HashMap<u32, u32> = HashMap::with_max_entries(4096, 0);

/// Remote ports to watch, host order. Written by the user half before it attaches the programs.
#[map]
pub(crate) static PORTS: HashMap<u16, u8> = HashMap::with_max_entries(64, 0);

/// Connections opened so far on this CPU: the lower 48 bits of the next id.
#[map]
pub(crate) static NEXT_ID: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// The transfer that this CPU is emitting.
#[map]
pub(crate) static TRANSFER: PerCpuArray<Transfer> = PerCpuArray::with_max_entries(1, 0);

/// See [`Counter`].
#[map]
pub(crate) static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

/// Bytes waiting in `EVENTS` above which each further record wakes the reader. Set by the user half: a quarter of the ring.
#[unsafe(no_mangle)]
static WAKE_ABOVE: Global<u64> = Global::new(2 << 20);

pub(crate) fn wake_above() -> u64 {
    WAKE_ABOVE.load()
}

/// What a thread's [`Call`] is doing.
pub(crate) mod op {
    /// No call under way that matters.
    pub(crate) const IDLE: u32 = 0;
    pub(crate) const SEND: u32 = 1;
    pub(crate) const RECV: u32 = 2;
    pub(crate) const CONNECT: u32 = 3;
    pub(crate) const DUP: u32 = 4;
}

/// What [`Call::ptr`] points at.
pub(crate) mod shape {
    /// `len` bytes.
    pub(crate) const BUFFER: u32 = 0;
    /// `len` iovecs.
    pub(crate) const VECTOR: u32 = 1;
    /// A msghdr.
    pub(crate) const MESSAGE: u32 = 2;
}

/// Value of [`CALLS`]: arguments kept from a call's entry for its return.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Call {
    /// See [`op`].
    pub(crate) op: u32,
    /// Transfers: see [`shape`].
    pub(crate) shape: u32,
    /// When the call began.
    pub(crate) enter: u64,
    /// Transfers: the connection, or 0 when the descriptor may be a pool's pipe. Dup: the connection.
    pub(crate) conn: u64,
    /// Transfers: user address.
    pub(crate) ptr: u64,
    /// Transfers: bytes asked for, or iovecs.
    pub(crate) len: u64,
    /// Connect: the peer.
    pub(crate) addr: [u32; 4],
    /// The descriptor.
    pub(crate) fd: u32,
    /// Connect: the peer's port.
    pub(crate) port: u32,
}

impl Call {
    const IDLE: Self = Self {
        op: op::IDLE,
        shape: 0,
        enter: 0,
        conn: 0,
        ptr: 0,
        len: 0,
        addr: [0; 4],
        fd: 0,
        port: 0,
    };
}

/// The calling thread's element of [`CALLS`], made if need be.
#[inline(always)]
pub(crate) fn call_of(pid_tgid: u64) -> Option<&'static mut Call> {
    if let Some(call) = CALLS.get_ptr_mut(pid_tgid) {
        // SAFETY: an element of this thread is used by this thread alone.
        return Some(unsafe { &mut *call });
    }
    if CALLS.insert(pid_tgid, Call::IDLE, 0).is_err() {
        count(Counter::CallsFull, 1);
        return None;
    }
    // SAFETY: as above.
    CALLS.get_ptr_mut(pid_tgid).map(|call| unsafe { &mut *call })
}

/// The call under way, if it is one of ours; the thread is idle afterwards.
#[inline(always)]
pub(crate) fn take_call(pid_tgid: u64) -> Option<(&'static Call, u32)> {
    let call = CALLS.get_ptr_mut(pid_tgid)?;
    // SAFETY: an element of this thread is used by this thread alone.
    let call = unsafe { &mut *call };
    let op = core::mem::replace(&mut call.op, op::IDLE);
    (op != op::IDLE).then_some((&*call, op))
}

/// Adds to a counter.
#[inline(always)]
pub(crate) fn count(counter: Counter, by: u64) {
    count_slot(counter as usize, by);
}

/// Adds to a counter by slot; a slot that does not exist is ignored.
#[inline(always)]
pub(crate) fn count_slot(slot: usize, by: u64) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0)
        && slot < Counter::SLOTS
    {
        // SAFETY: this CPU's own element, and a slot within it.
        unsafe { *counters.cast::<u64>().add(slot) += by };
    }
}
