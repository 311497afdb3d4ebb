//! Every map, and the globals that the user half sets before it loads the programs.

use core::arch::asm;

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use celeryscope_common::Layout;
use celeryscope_common::maps::{
    Conn, Counter, Counters, FD_HINTS as FD_HINTS_SIZE, Fd, IGNORED_HINTS as IGNORED_HINTS_SIZE,
    POOL_HINTS as POOL_HINTS_SIZE, PORT_WORDS, fd_hint, pool_hint,
};

/// Records for the user half, in the order in which calls returned. Size: set by the user half. A record that finds
/// no room is counted by its kind and gone.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// Connection id (tracepoint back end) or address of a socket (the others) → the connection's state. Written by the
/// probes; for the tracepoint back end the user half adds what its scan found and removes what no descriptor refers to.
/// Removed with the last descriptor, or when the kernel closes the socket.
#[map]
pub(crate) static CONNS: HashMap<u64, Conn> = HashMap::with_max_entries(16_384, 0);

/// `fd_key(tgid, fd)` → connection. Removed when the descriptor is closed or its process ends or executes.
#[map]
pub(crate) static FDS: HashMap<u64, Fd> = HashMap::with_max_entries(16_384, 0);

/// How many descriptors that share an element are in [`FDS`] (see `fd_hint`). An array, asked before it: nearly every call on the
/// host is on a descriptor that is not there. Mapped into the user half's memory, so that it can count its own.
#[map]
pub(crate) static FD_HINTS: Array<u64> = Array::with_max_entries(FD_HINTS_SIZE, BPF_F_MMAPABLE);

/// `fd_key(tgid, slot)` → descriptor: the list of a process's tracked descriptors. Each slot is an element of its
/// own, so that both halves take slots with an atomic insert and neither overwrites the other's.
#[map]
pub(crate) static SLOTS: HashMap<u64, u32> = HashMap::with_max_entries(16_384, 0);

/// tgid → bits of `maps::process`. Presence alone makes a process watched; children inherit it. Removed at exit.
#[map]
pub(crate) static PROCS: HashMap<u32, u32> = HashMap::with_max_entries(16_384, 0);

/// Was one of the processes that share an element a pool's (see `pool_hint`)? Asked before [`PROCS`]: nearly every read and write on the host
/// is by a process that is none.
#[map]
pub(crate) static POOL_HINTS: Array<u64> = Array::with_max_entries(POOL_HINTS_SIZE, 0);

/// Connections with the verdict Ignore. Written by the user half alone.
#[map]
pub(crate) static IGNORED: HashMap<u64, u8> = HashMap::with_max_entries(16_384, 0);

/// How many connections that share an element are in [`IGNORED`] (see `ignored_hint`): asked before it, as [`FD_HINTS`] is before
/// [`FDS`]. Written by the user half alone.
#[map]
pub(crate) static IGNORED_HINTS: Array<u64> = Array::with_max_entries(IGNORED_HINTS_SIZE, 0);

/// Names of programs (a thread's, NUL-padded) of which every execution is told. Written by the user half alone.
#[map]
pub(crate) static EXPECTED: HashMap<[u8; 16], u8> = HashMap::with_max_entries(1024, 0);

/// tgid → wait status of a watched process that is about to end. Written once, by what ends it; removed at exit.
#[map]
pub(crate) static STATUS: HashMap<u32, u32> = HashMap::with_max_entries(4096, 0);

/// Remote ports to watch, a bit each (see `port_bit`). Written by the user half before it attaches the programs. An
/// array, because looking something up there costs next to nothing, and every socket call on the host does.
#[map]
pub(crate) static PORTS: Array<u64> = Array::with_max_entries(PORT_WORDS, 0);

/// Connections made so far on this CPU.
#[map]
pub(crate) static NEXT_ID: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// See [`Counter`].
#[map]
pub(crate) static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

/// Bytes waiting in `EVENTS` above which each further record wakes the reader. Set by the user half: a quarter of the ring.
#[unsafe(no_mangle)]
static WAKE_ABOVE: Global<u64> = Global::new(2 << 20);

pub(crate) fn wake_above() -> u64 {
    WAKE_ABOVE.load()
}

/// Set by the user half for the socket back ends.
#[unsafe(no_mangle)]
static LAYOUT: Global<Layout> = Global::new(Layout {
    sock_dport: 0,
    sock_family: 0,
    sock_daddr: 0,
    sock_v6_daddr: 0,
    tcp_write_seq: 0,
    tcp_copied_seq: 0,
    msg_iter: 0,
    iter_type: 0,
    iter_type_mask: 0,
    iter_iovec: 0,
    iter_ubuf: 0,
    iter_offset: 0,
    iter_count: 0,
    iter_iov: 0,
    iter_ubuf_base: 0,
    iter_nr_segs: 0,
});

/// A field of the [`Layout`].
macro_rules! layout {
    ($field:ident) => {
        $crate::maps::layout_field(core::mem::offset_of!(celeryscope_common::Layout, $field))
    };
}
pub(crate) use layout;

/// The word at this offset of the [`Layout`]; see [`layout`]. Reading the whole would cost the programs sixteen loads.
#[inline(always)]
pub(crate) fn layout_field(offset: usize) -> u32 {
    // SAFETY: the offset is that of a u32 within the global, which is constant once the programs run.
    unsafe {
        (&raw const LAYOUT)
            .cast::<u8>()
            .add(offset)
            .cast::<u32>()
            .read_volatile()
    }
}

/// Counts a descriptor in its element of [`FD_HINTS`], or takes it away (`u64::MAX`).
#[inline(always)]
pub(crate) fn count_fd(tgid: u32, fd: u32, by: u64) {
    add(&FD_HINTS, fd_hint(tgid, fd), by);
}

/// The process is about to be a pool's.
#[inline(always)]
pub(crate) fn hint_at_pool(tgid: u32) {
    if let Some(word) = POOL_HINTS.get_ptr_mut(pool_hint(tgid)) {
        // SAFETY: an aligned word in a map element, which is never anything else again.
        unsafe { word.write_volatile(1) };
    }
}

#[inline(always)]
pub(crate) fn add(counts: &Array<u64>, element: u32, by: u64) {
    if let Some(word) = counts.get_ptr_mut(element) {
        // SAFETY: an aligned word in a map element.
        unsafe { atomic_add(word, by) };
    }
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
        // SAFETY: a slot within this CPU's element, an aligned word.
        unsafe { atomic_add(counters.cast::<u64>().add(slot), by) };
    }
}

/// Adds to a word that others may add to at the same time: programs may be moved aside at any point.
///
/// # Safety
/// The word is aligned and lies in a map's element.
#[inline(always)]
pub(crate) unsafe fn atomic_add(word: *mut u64, by: u64) {
    // SAFETY: the caller's word; the instruction touches nothing else.
    unsafe {
        asm!("lock *(u64 *)({word} + 0) += {by}", word = in(reg) word, by = in(reg) by, options(nostack));
    }
}
