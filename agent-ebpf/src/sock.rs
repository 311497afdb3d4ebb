//! The kernel's structures, as far as the socket back ends read them: `struct sock`, `struct msghdr`, `struct iov_iter`.
//! Where their members are is in the `Layout`; nothing here knows a kernel's version.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use celeryscope_common::Layout;

use crate::address::{AF_INET, AF_INET6, Words, v4_mapped};
use crate::calls::{Call, op, shape};
use crate::filter;
use crate::maps::layout;

/// Reads a value at a kernel address.
#[inline(always)]
fn read<T>(at: u64) -> Option<T> {
    // SAFETY: the helper checks the address; the types read here are integers, for which any bytes are a value.
    unsafe { bpf_probe_read_kernel(at as *const T) }.ok()
}

/// Is the socket's peer at a broker's port? For programs that the kernel hands no typed pointer.
#[inline(always)]
pub(crate) fn is_watched(sk: u64) -> bool {
    read::<u16>(sk + u64::from(layout!(sock_dport))).is_some_and(|port| filter::port(u16::from_be(port)))
}

/// The peer's address and port.
#[inline(always)]
pub(crate) fn peer(sk: u64) -> Option<(Words, u16)> {
    let port = u16::from_be(read(sk + u64::from(layout!(sock_dport)))?);
    let v6 = u64::from(layout!(sock_v6_daddr));
    let addr = match read::<u16>(sk + u64::from(layout!(sock_family)))? {
        AF_INET => v4_mapped(read(sk + u64::from(layout!(sock_daddr)))?),
        AF_INET6 if v6 != 0 => read(sk + v6)?,
        _ => return None,
    };
    Some((addr, port))
}

/// The TCP sequence number of the next byte that a call of this kind moves.
#[inline(always)]
pub(crate) fn sequence(sk: u64, op: u32) -> Option<u32> {
    let member = if op == op::SEND {
        layout!(tcp_write_seq)
    } else {
        layout!(tcp_copied_seq)
    };
    read(sk + u64::from(member))
}

/// The `struct iov_iter` of a `struct msghdr`.
#[inline(always)]
pub(crate) fn message_iter(msg: u64) -> u64 {
    msg + u64::from(layout!(msg_iter))
}

/// A `struct iov_iter`: read as a whole, which takes about what it takes to read one of its members.
struct Iter([u64; Layout::ITER_SIZE / 8]);

impl Iter {
    /// The member at this offset, which the verifier knows to be a constant; the user half has made sure that it is inside.
    #[inline(always)]
    fn member<T: Copy>(&self, offset: u32) -> T {
        // SAFETY: the verifier checks that offset and size lie within.
        unsafe {
            (&raw const self.0)
                .cast::<u8>()
                .add(offset as usize)
                .cast::<T>()
                .read_volatile()
        }
    }
}

/// Notes where the bytes are that a call is about to move, and how many at most.
#[inline(always)]
pub(crate) fn note_segments(call: &mut Call, iter: u64) -> Option<()> {
    let iter = Iter(read(iter)?);
    call.skip = 0;
    call.len = iter.member(layout!(iter_count));
    let done: u64 = iter.member(layout!(iter_offset));
    let kind = iter.member::<u32>(layout!(iter_type)) & layout!(iter_type_mask);
    if kind == layout!(iter_ubuf) {
        call.shape = shape::BUFFER;
        call.ptr = iter.member::<u64>(layout!(iter_ubuf_base)) + done;
    } else if kind == layout!(iter_iovec) {
        let table = iter.member(layout!(iter_iov));
        let segments = iter.member(layout!(iter_nr_segs));
        if segments == 1 {
            call.shape = shape::BUFFER;
            // struct iovec: iov_base, iov_len
            call.ptr = read::<u64>(table)? + done;
        } else {
            call.shape = shape::KERNEL_VECTOR;
            (call.ptr, call.len, call.skip) = (table, segments, done);
        }
    } else {
        call.shape = shape::OPAQUE;
    }
    Some(())
}
