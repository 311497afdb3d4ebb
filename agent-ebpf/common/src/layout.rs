//! Where the running kernel keeps what the socket back ends read: offsets in bytes and values of enumerations.
//!
//! They differ from kernel to kernel. The user half takes them from the kernel's own description of its types (BTF) and
//! sets them before it loads the programs, which then see constants.

/// Global of the kernel half that holds the [`Layout`].
pub const GLOBAL: &str = "LAYOUT";

/// Offsets are from the start of the structure that a probe is handed; all are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Layout {
    /// `struct sock`: `__sk_common.skc_dport`, the peer's port in network order.
    pub sock_dport: u32,
    /// `struct sock`: `__sk_common.skc_family`.
    pub sock_family: u32,
    /// `struct sock`: `__sk_common.skc_daddr`, the peer's IPv4 address.
    pub sock_daddr: u32,
    /// `struct sock`: `__sk_common.skc_v6_daddr`; 0 in a kernel without IPv6.
    pub sock_v6_daddr: u32,
    /// `struct tcp_sock`: `write_seq`, the number of the next byte to be written.
    pub tcp_write_seq: u32,
    /// `struct tcp_sock`: `copied_seq`, the number of the next byte to be read.
    pub tcp_copied_seq: u32,
    /// `struct msghdr`: `msg_iter`.
    pub msg_iter: u32,
    /// `struct iov_iter`: `iter_type`, before Linux 5.14 `type`.
    pub iter_type: u32,
    /// Bits of the 32 read there that tell the kind.
    pub iter_type_mask: u32,
    /// `ITER_IOVEC`: segments in the caller's memory.
    pub iter_iovec: u32,
    /// `ITER_UBUF`: one buffer in the caller's memory; before Linux 6.0 [`NO_UBUF`](Self::NO_UBUF).
    pub iter_ubuf: u32,
    /// `struct iov_iter`: `iov_offset`, bytes of the first segment that are done.
    pub iter_offset: u32,
    /// `struct iov_iter`: `count`, bytes left to move.
    pub iter_count: u32,
    /// `struct iov_iter`: `__iov`, before Linux 6.4 `iov`: the segments left.
    pub iter_iov: u32,
    /// `struct iov_iter`: `ubuf`.
    pub iter_ubuf_base: u32,
    /// `struct iov_iter`: `nr_segs`, how many segments are left.
    pub iter_nr_segs: u32,
}

impl Layout {
    /// No kind of iterator has this number.
    pub const NO_UBUF: u32 = u32::MAX;
    /// Bytes of a `struct iov_iter`; its members lie within.
    pub const ITER_SIZE: usize = 40;
}
