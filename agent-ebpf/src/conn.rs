//! Connections: made, shared, dropped.
//!
//! In the tracepoint back end a connection counts its descriptors over all processes. Concurrent drops may both see none
//! left; the one whose removal of the element succeeds tells it. In the others a connection is its socket, from `tcp_connect`,
//! or from the first use of one that is older than the agent, to `tcp_close`.

use aya_ebpf::bindings::{BPF_EXIST, BPF_NOEXIST};
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_smp_processor_id};
use celeryscope_common::maps::{Conn, Counter, Fd, Flow, NO_SLOT, Quiet, SLOTS_PER_PROCESS, fd_key, tls};
use celeryscope_common::{Addr, Endpoint, Header, Kind, flags};

use crate::calls::op;
use crate::maps::{CONNS, FDS, NEXT_ID, SLOTS, atomic_add, count, count_fd};
use crate::{address, emit, filter, process, sock};

const NOEXIST: u64 = BPF_NOEXIST as u64;

/// The process has connected `fd` to a watched port. A descriptor that is connected again before any byte moved
/// (non-blocking connect asks twice) stays the same connection.
#[inline(always)]
pub(crate) fn opened(tgid: u32, fd: u32, addr: Addr, port: u16) {
    if let Some(known) = filter::descriptor(tgid, fd) {
        // SAFETY: torn counters would only be both non-zero.
        if let Some(conn) = unsafe { CONNS.get(known.conn) }
            && conn.tx.bytes == 0
            && conn.rx.bytes == 0
            && conn.port == port
            && conn.addr == addr
        {
            return;
        }
        drop_fd(tgid, fd);
    }
    let Some(id) = new_id() else { return };
    if CONNS
        .insert(id, unused(id, addr, port, tls::FRESH), NOEXIST)
        .is_err()
    {
        return count(Counter::ConnsFull, 1);
    }
    process::watch(tgid);
    if !add_fd(tgid, fd, id) {
        let _ = CONNS.remove(id);
        return;
    }
    tell_open(id, addr, port, 0);
}

/// The current thread connects a socket to a watched port: whatever the socket was before, this is a new connection.
#[inline(always)]
pub(crate) fn connecting(sk: u64) {
    // The SYN that goes out now counts as a byte.
    let Some(seq) = sock::sequence(sk, op::SEND).map(|seq| seq.wrapping_add(1)) else {
        return;
    };
    // SAFETY: torn counters would only be both non-zero.
    if let Some(conn) = unsafe { CONNS.get(sk) }
        && conn.tx.known != 0
        && conn.tx.seq == seq
        && conn.tx.bytes == 0
        && conn.rx.bytes == 0
    {
        return;
    }
    closing(sk);
    if let Some(conn) = adopt(sk, 0) {
        (conn.tx.known, conn.tx.seq) = (1, seq);
    }
}

/// The connection of a socket. One that nobody saw connect is older than the agent.
#[inline(always)]
pub(crate) fn of_socket(sk: u64) -> Option<&'static mut Conn> {
    if let Some(conn) = CONNS.get_ptr_mut(sk) {
        // SAFETY: what a connection counts has no order to keep between two calls at once.
        return Some(unsafe { &mut *conn });
    }
    adopt(sk, flags::MIDSTREAM)
}

#[inline(always)]
fn adopt(sk: u64, open_flags: u16) -> Option<&'static mut Conn> {
    let (addr, port) = sock::peer(sk)?;
    let addr = address::of_words(addr);
    let id = new_id()?;
    let tls = if open_flags & flags::MIDSTREAM != 0 {
        tls::JOINED
    } else {
        tls::FRESH
    };
    if CONNS.insert(sk, unused(id, addr, port, tls), 0).is_err() {
        count(Counter::ConnsFull, 1);
        return None;
    }
    process::watch(filter::tgid(bpf_get_current_pid_tgid()));
    tell_open(id, addr, port, open_flags);
    // SAFETY: as above.
    CONNS.get_ptr_mut(sk).map(|conn| unsafe { &mut *conn })
}

/// Bytes of a connection passed unseen, nobody knows how many: for those who read the records it is another one from here on.
#[inline(always)]
pub(crate) fn start_over(conn: &mut Conn) {
    // Of one that speaks TLS no byte of what is inside was in that call.
    if conn.tls == tls::SEALED {
        return;
    }
    let Some(id) = new_id() else { return };
    emit::bare(&emit::header(Kind::Close, conn.id), false);
    conn.id = id;
    (conn.tx, conn.rx) = (Flow::NONE, Flow::NONE);
    conn.quiet = Quiet::NONE;
    tell_open(id, conn.addr, conn.port, flags::MIDSTREAM);
}

/// The kernel closes a socket: nobody has a descriptor of it any more.
#[inline(always)]
pub(crate) fn closing(sk: u64) {
    // SAFETY: one aligned word.
    let Some(id) = (unsafe { CONNS.get(sk) }).map(|conn| conn.id) else {
        return;
    };
    if CONNS.remove(sk).is_ok() {
        emit::bare(&emit::header(Kind::Close, id), false);
    }
}

#[inline(always)]
pub(crate) fn unused(id: u64, addr: Addr, port: u16, tls: u8) -> Conn {
    Conn {
        id,
        tx: Flow::NONE,
        rx: Flow::NONE,
        refs: 0,
        addr,
        port,
        tls,
        judged: 0,
        user: 0,
        unread: 0,
        reserved: [0; 7],
        quiet: Quiet::NONE,
    }
}

#[inline(always)]
pub(crate) fn tell_open(id: u64, addr: Addr, port: u16, flags: u16) {
    let endpoint = Endpoint {
        addr,
        port,
        reserved: 0,
        comm: bpf_get_current_comm().unwrap_or_default(),
    };
    let header = Header {
        flags,
        ..emit::header(Kind::Open, id)
    };
    emit::open(&header, &endpoint);
}

/// Makes `fd` refer to `conn`, in the first free slot. False when the maps are full.
#[inline(always)]
pub(crate) fn add_fd(tgid: u32, fd: u32, conn: u64) -> bool {
    let mut slot = 0;
    while slot < SLOTS_PER_PROCESS {
        if SLOTS.insert(fd_key(tgid, slot), fd, NOEXIST).is_ok() {
            break;
        }
        slot += 1;
    }
    if slot == SLOTS_PER_PROCESS {
        slot = NO_SLOT;
        count(Counter::SlotsFull, 1);
    }
    link(tgid, fd, conn, slot)
}

/// Gives `child` what its parent's slot refers to.
#[inline(always)]
pub(crate) fn inherit(parent: u32, child: u32, slot: u32) {
    // SAFETY: one aligned word.
    let Some(&fd) = (unsafe { SLOTS.get(fd_key(parent, slot)) }) else {
        return;
    };
    let Some(known) = filter::descriptor(parent, fd) else {
        return;
    };
    let slot = if SLOTS.insert(fd_key(child, slot), fd, 0).is_ok() {
        slot
    } else {
        count(Counter::SlotsFull, 1);
        NO_SLOT
    };
    link(child, fd, known.conn, slot);
}

#[inline(always)]
fn link(tgid: u32, fd: u32, conn: u64, slot: u32) -> bool {
    let value = Fd {
        conn,
        slot,
        reserved: 0,
    };
    let key = fd_key(tgid, fd);
    count_fd(tgid, fd, 1);
    if FDS.insert(key, value, NOEXIST).is_err() {
        count_fd(tgid, fd, u64::MAX);
        // One that is there already lost its connection unseen.
        if FDS.insert(key, value, u64::from(BPF_EXIST)).is_err() {
            count(Counter::FdsFull, 1);
            let _ = SLOTS.remove(fd_key(tgid, slot));
            return false;
        }
    }
    add_refs(conn, 1);
    true
}

/// The descriptor in this slot of the process, if there is one.
#[inline(always)]
pub(crate) fn in_slot(tgid: u32, slot: u32) -> Option<u32> {
    // SAFETY: one aligned word.
    unsafe { SLOTS.get(fd_key(tgid, slot)) }.copied()
}

/// The process no longer has `fd`. Tells the close when it was the connection's last.
#[inline(always)]
pub(crate) fn drop_fd(tgid: u32, fd: u32) {
    let Some(known) = filter::descriptor(tgid, fd) else {
        return;
    };
    if FDS.remove(fd_key(tgid, fd)).is_err() {
        return;
    }
    count_fd(tgid, fd, u64::MAX);
    if known.slot != NO_SLOT {
        let _ = SLOTS.remove(fd_key(tgid, known.slot));
    }
    // SAFETY: one aligned word.
    let id = unsafe { CONNS.get(known.conn) }.map_or(known.conn, |conn| conn.id);
    if add_refs(known.conn, u64::MAX) == 0 && CONNS.remove(known.conn).is_ok() {
        emit::bare(&emit::header(Kind::Close, id), false);
    }
}

/// Drops every descriptor of the process that has a slot.
#[inline(always)]
pub(crate) fn drop_all(tgid: u32) {
    let mut slot = 0;
    while slot < SLOTS_PER_PROCESS {
        if let Some(fd) = in_slot(tgid, slot) {
            drop_fd(tgid, fd);
        }
        slot += 1;
    }
}

/// Adds to a connection's count of descriptors (`u64::MAX` takes one away); what it is afterwards, or 1 when there is
/// no such connection.
#[inline(always)]
fn add_refs(conn: u64, by: u64) -> u64 {
    let Some(conn) = CONNS.get_ptr_mut(conn) else {
        return 1;
    };
    // The result of a fetch-and-add is not to be had before Linux 5.12 (nor from `core` on this target), so the sum is
    // read again.
    // SAFETY: an aligned word in a map element, written by atomic additions alone.
    unsafe {
        let refs = &raw mut (*conn).refs;
        atomic_add(refs, by);
        refs.read_volatile()
    }
}

/// An id that was never used: the CPU's number, its count, and the thread, because another may be given the same count
/// between the two steps (see [`add_refs`]).
#[inline(always)]
pub(crate) fn new_id() -> Option<u64> {
    let next = NEXT_ID.get_ptr_mut(0)?;
    // SAFETY: an aligned word in a map element, written by atomic additions alone.
    let count = unsafe {
        atomic_add(next, 1);
        next.read_volatile()
    };
    // SAFETY: a helper without arguments.
    let cpu = u64::from(unsafe { bpf_get_smp_processor_id() });
    let thread = bpf_get_current_pid_tgid() & 0xffff;
    Some((cpu + 1) << 48 | (count & 0xffff_ffff) << 16 | thread)
}
