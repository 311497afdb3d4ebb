//! Writes records into `EVENTS`; nothing else does.
//!
//! A record is reserved in one of a few sizes (the verifier wants a constant), filled in place and submitted. The
//! reader is not woken for it unless it matters at once or the ring fills up: it comes by on its own.

use core::arch::asm;
use core::mem::offset_of;

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, generated};
use celeryscope_common::maps::Counter;
use celeryscope_common::{Endpoint, Header, Idle, Kind};

use crate::maps::{EVENTS, count, count_slot, wake_above};

/// Most payload bytes in one record.
pub(crate) const CHUNK: u64 = 16_384;

/// A header of nothing.
pub(crate) const NO_HEADER: Header = Header {
    kind: 0,
    flags: 0,
    len: 0,
    enter: 0,
    exit: 0,
    pid: 0,
    tid: 0,
    conn: 0,
    start: 0,
    at: 0,
    total: 0,
};

/// A record with room for `N` bytes of payload.
#[repr(C)]
struct Slot<const N: usize> {
    header: Header,
    payload: [u8; N],
}

/// A record's header with everything but the payload's place; ids are the current thread's.
#[inline(always)]
pub(crate) fn header(kind: Kind, conn: u64) -> Header {
    header_of(bpf_get_current_pid_tgid(), kind, conn)
}

/// The same where the current thread is known.
#[inline(always)]
pub(crate) fn header_of(pid_tgid: u64, kind: Kind, conn: u64) -> Header {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    Header {
        kind: kind as u16,
        enter: now,
        exit: now,
        pid: (pid_tgid >> 32) as u32,
        tid: pid_tgid as u32,
        conn,
        ..NO_HEADER
    }
}

/// A record without payload. `urgent` wakes the reader.
#[inline(always)]
pub(crate) fn bare(header: &Header, urgent: bool) {
    let _ = put::<0>(header, 0, 0, urgent);
}

/// A record whose payload is `len` (at most [`CHUNK`]) bytes at the user address `from`. Bytes that cannot be read
/// are counted, and the record says that it has none. Gives whether it was told with its bytes. A function of its own: inlined
/// it would be most of every program.
#[inline(never)]
pub(crate) fn user(header: &Header, from: u64, len: u64) -> bool {
    if len <= 64 {
        put::<64>(header, from, len, false)
    } else if len <= 256 {
        put::<256>(header, from, len, false)
    } else if len <= 1024 {
        put::<1024>(header, from, len, false)
    } else if len <= 2048 {
        put::<2048>(header, from, len, false)
    } else if len <= 4096 {
        put::<4096>(header, from, len, false)
    } else {
        put::<{ CHUNK as usize }>(header, from, len, false)
    }
}

/// An Idle record: nobody waits for it.
#[inline(always)]
pub(crate) fn idle(header: &Header, idle: &Idle) {
    let Some(mut slot) = EVENTS.reserve::<Slot<{ Idle::SIZE }>>(0) else {
        return lost(header.kind);
    };
    let slot_ptr = slot.as_mut_ptr();
    // SAFETY: the slot has room for both, the second where the first ends, aligned like it.
    unsafe {
        (&raw mut (*slot_ptr).header).write(Header {
            len: Idle::SIZE as u32,
            ..*header
        });
        (&raw mut (*slot_ptr).payload).cast::<Idle>().write(*idle);
    }
    slot.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// An Open record.
#[inline(always)]
pub(crate) fn open(header: &Header, endpoint: &Endpoint) {
    let Some(mut slot) = EVENTS.reserve::<Slot<{ Endpoint::SIZE }>>(0) else {
        return lost(header.kind);
    };
    let slot_ptr = slot.as_mut_ptr();
    // SAFETY: the slot has room for both; an Endpoint needs no more alignment than the header before it leaves.
    unsafe {
        (&raw mut (*slot_ptr).header).write(Header {
            len: Endpoint::SIZE as u32,
            ..*header
        });
        (&raw mut (*slot_ptr).payload).cast::<Endpoint>().write(*endpoint);
    }
    slot.submit(u64::from(BPF_RB_FORCE_WAKEUP));
}

#[inline(always)]
fn put<const N: usize>(header: &Header, from: u64, len: u64, urgent: bool) -> bool {
    let Some(mut slot) = EVENTS.reserve::<Slot<N>>(0) else {
        lost(header.kind);
        return false;
    };
    let slot_ptr = slot.as_mut_ptr();
    let mut told = true;
    let mut len = clamp::<N>(len);
    if N > 0 && len > 0 {
        // SAFETY: the payload has room for N bytes and `len` is at most that; the helper checks the user address.
        let failed = unsafe {
            generated::bpf_probe_read_user(
                slot_ptr.cast::<u8>().add(offset_of!(Slot<N>, payload)).cast(),
                len as u32,
                from as *const _,
            )
        };
        if failed != 0 {
            count(Counter::Unreadable, 1);
            len = 0;
            told = false;
        }
    }
    // SAFETY: the slot begins with a header.
    unsafe {
        (&raw mut (*slot_ptr).header).write(Header {
            len: len as u32,
            ..*header
        });
    }
    let wake = urgent || EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) > wake_above();
    slot.submit(u64::from(if wake {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    }));
    told
}

#[inline(always)]
fn lost(kind: u16) {
    count_slot(usize::from(kind), 1);
}

/// `value`, at most `MAX`, in a way that the compiler cannot prove away and the verifier sees.
#[inline(always)]
fn clamp<const MAX: usize>(value: u64) -> u64 {
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
