//! Every map, and the globals that the user half sets before it loads the programs.

use core::arch::asm;

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use celeryscope_common::Layout;
use celeryscope_common::maps::{Conn, Counter, Counters, FD_HINTS as FD_HINTS_SIZE, Fd, PORT_WORDS, fd_hint};

use crate::iter::Transfer;

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

/// `pid_tgid` → the call that the thread is in. The element stays for the thread's next call (an insert and a remove
/// for each call would cost more than the call's record); removed when the thread exits.
#[map]
pub(crate) static CALLS: HashMap<u64, Call> = HashMap::with_max_entries(16_384, 0);

/// How many calls of threads that share an element are under way, an element for some of a thread id's bits. An array,
/// asked before [`CALLS`]: nearly every return on the host is of a call that nobody noted, and this says so at a tenth of the cost.
#[map]
static UNDER_WAY: Array<u64> = Array::with_max_entries(UNDER_WAY_SIZE, 0);

/// Connections with the verdict Ignore. Written by the user half alone.
#[map]
pub(crate) static IGNORED: HashMap<u64, u8> = HashMap::with_max_entries(16_384, 0);

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

/// `pid_tgid` → the call of a TLS library that the thread is in, which may make calls of its own. The element stays for the next;
/// removed when the thread exits.
#[map]
pub(crate) static SSL_CALLS: HashMap<u64, SslCall> = HashMap::with_max_entries(8192, 0);

/// How many calls of TLS libraries are under way, as [`UNDER_WAY`]. Nearly always none, anywhere.
#[map]
static SSL_UNDER_WAY: Array<u64> = Array::with_max_entries(SSL_UNDER_WAY_SIZE, 0);

/// TLS session → its connection. Found by the socket calls that a TLS library's calls make; what is pushed out is found again by
/// the next.
#[map]
pub(crate) static SSL_CONNS: LruHashMap<Ssl, Tie> = LruHashMap::with_max_entries(16_384, 0);

/// TLS session → connection, where the library's calls make no socket calls (the bytes go through memory) and the first bytes are
/// those of a broker's client.
#[map]
pub(crate) static SSL_LOOSE: LruHashMap<Ssl, Conn> = LruHashMap::with_max_entries(1024, 0);

/// `pid_tgid` → the segments of the call that the thread is in, where the kernel's own list of them is gone when the call
/// returns. Kprobe back end only.
#[map]
pub(crate) static VECTORS: LruHashMap<u64, Vector> = LruHashMap::with_max_entries(1024, 0);

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

/// Powers of two.
const UNDER_WAY_SIZE: u32 = 16_384;
const SSL_UNDER_WAY_SIZE: u32 = 1024;

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
    /// When the call began.
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
    /// The transfer on its way into the ring buffer. Here, because the thread may be moved aside while a program runs, and
    /// another thread run the same one.
    pub(crate) transfer: Transfer,
}

impl Call {
    const IDLE: Self = Self {
        op: op::IDLE,
        shape: 0,
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
        transfer: Transfer::NONE,
    };
}

/// A TLS session: the process, and the address of its `SSL` in it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Ssl {
    pub(crate) tgid: u64,
    pub(crate) at: u64,
}

/// Value of [`SSL_CONNS`].
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Tie {
    /// Key in [`CONNS`]; 0 for none.
    pub(crate) key: u64,
    /// The connection's id: the key may be another's by now.
    pub(crate) id: u64,
}

impl Tie {
    pub(crate) const NONE: Self = Self { key: 0, id: 0 };
}

/// Value of [`SSL_CALLS`]: arguments kept from a TLS library's call for its return.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct SslCall {
    /// The transfer; its `conn` is not used.
    pub(crate) call: Call,
    /// The session.
    pub(crate) ssl: Ssl,
    /// Where the call puts the number of bytes moved; 0 when it returns it.
    pub(crate) moved_at: u64,
    /// The watched connection on which the call has moved bytes.
    pub(crate) tie: Tie,
    /// 1 when it has used a socket that is not watched.
    pub(crate) elsewhere: u64,
}

impl SslCall {
    const IDLE: Self = Self {
        call: Call::IDLE,
        ssl: Ssl { tgid: 0, at: 0 },
        moved_at: 0,
        tie: Tie::NONE,
        elsewhere: 0,
    };
}

/// The calling thread's element of [`SSL_CALLS`], made if need be.
#[inline(always)]
pub(crate) fn ssl_call_of(pid_tgid: u64) -> Option<&'static mut SslCall> {
    if let Some(call) = SSL_CALLS.get_ptr_mut(pid_tgid) {
        // SAFETY: an element of this thread is used by this thread alone.
        return Some(unsafe { &mut *call });
    }
    if SSL_CALLS.insert(pid_tgid, SslCall::IDLE, 0).is_err() {
        count(Counter::CallsFull, 1);
        return None;
    }
    // SAFETY: as above.
    SSL_CALLS.get_ptr_mut(pid_tgid).map(|call| unsafe { &mut *call })
}

/// Notes that the thread is in a call of a TLS library.
#[inline(always)]
pub(crate) fn begin_ssl(pid_tgid: u64, call: &mut SslCall, op: u32) {
    if call.call.op == op::IDLE {
        add(&SSL_UNDER_WAY, pid_tgid as u32 & (SSL_UNDER_WAY_SIZE - 1), 1);
    }
    call.call.op = op;
}

/// The call is over; what it was.
#[inline(always)]
pub(crate) fn end_ssl(pid_tgid: u64, call: &mut SslCall) -> u32 {
    let op = core::mem::replace(&mut call.call.op, op::IDLE);
    if op != op::IDLE {
        add(
            &SSL_UNDER_WAY,
            pid_tgid as u32 & (SSL_UNDER_WAY_SIZE - 1),
            u64::MAX,
        );
    }
    op
}

/// The call of a TLS library that the thread is in.
#[inline(always)]
pub(crate) fn noted_ssl_call(pid_tgid: u64) -> Option<&'static mut SslCall> {
    // SAFETY: one aligned word.
    if SSL_UNDER_WAY.get(pid_tgid as u32 & (SSL_UNDER_WAY_SIZE - 1)) == Some(&0) {
        return None;
    }
    let call = SSL_CALLS.get_ptr_mut(pid_tgid)?;
    // SAFETY: an element of this thread is used by this thread alone.
    let call = unsafe { &mut *call };
    (call.call.op != op::IDLE).then_some(call)
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

/// Notes that the thread is in a call. Counted before it is noted, and taken back after: too much only costs a look.
#[inline(always)]
pub(crate) fn begin(pid_tgid: u64, call: &mut Call, op: u32) {
    if call.op == op::IDLE {
        count_under_way(pid_tgid, 1);
    }
    call.op = op;
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
fn count_under_way(pid_tgid: u64, by: u64) {
    add(&UNDER_WAY, pid_tgid as u32 & (UNDER_WAY_SIZE - 1), by);
}

/// The call under way, if it is one of ours, which it stays.
#[inline(always)]
pub(crate) fn noted_call(pid_tgid: u64) -> Option<&'static mut Call> {
    // SAFETY: one aligned word.
    if UNDER_WAY.get(pid_tgid as u32 & (UNDER_WAY_SIZE - 1)) == Some(&0) {
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
    if let Some(call) = noted_ssl_call(pid_tgid) {
        end_ssl(pid_tgid, call);
    }
    let _ = SSL_CALLS.remove(pid_tgid);
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

/// Counts a descriptor in its element of [`FD_HINTS`], or takes it away (`u64::MAX`).
#[inline(always)]
pub(crate) fn count_fd(tgid: u32, fd: u32, by: u64) {
    add(&FD_HINTS, fd_hint(tgid, fd), by);
}

#[inline(always)]
fn add(counts: &Array<u64>, element: u32, by: u64) {
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
