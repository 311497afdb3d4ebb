//! Addresses as records have them: IPv6, or IPv4 in its v4-mapped form.

use celeryscope_common::Addr;

pub(crate) const AF_INET: u16 = 2;
pub(crate) const AF_INET6: u16 = 10;

/// An [`Addr`] in four words, each in network order.
pub(crate) type Words = [u32; 4];

/// An IPv4 address.
#[inline(always)]
pub(crate) fn v4_mapped(addr: u32) -> Words {
    [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), addr]
}

#[inline(always)]
pub(crate) fn of_words(words: Words) -> Addr {
    // SAFETY: both are 16 bytes without padding.
    unsafe { core::mem::transmute::<Words, Addr>(words) }
}
