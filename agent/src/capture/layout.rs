//! The running kernel's [`Layout`], from its BTF.

use anyhow::{Context as _, Result, ensure};
use celeryscope_common::Layout;

use super::btf::Btf;

/// Everything that the socket back ends read, where this kernel has it.
///
/// # Errors
/// Names the member that the kernel does not have.
pub(super) fn of(btf: &Btf) -> Result<Layout> {
    // struct sock begins with its struct sock_common.
    let sock = |member| btf.offset("sock", &format!("__sk_common.{member}"));
    let iter = |member: &'static str| {
        let offset = btf.offset("iov_iter", member)?;
        // Those that are read take eight bytes, but the kind, which takes four.
        ensure!(
            offset as usize + 8 <= Layout::ITER_SIZE,
            "the kernel's struct iov_iter has {member} at {offset}: this kernel needs another build of celeryscope"
        );
        Ok(offset)
    };
    // Linux 5.14 made of `unsigned int type`, in which bit 0 is the direction, `u8 iter_type`.
    let (iter_type, iter_type_mask) = match iter("iter_type") {
        Ok(offset) => (offset, 0xff),
        Err(_) => (iter("type")?, !1),
    };
    let kind = |name| btf.value("iter_type", name);
    let iter_ubuf = kind("ITER_UBUF").unwrap_or(Layout::NO_UBUF);
    Ok(Layout {
        sock_dport: sock("skc_dport")?,
        sock_family: sock("skc_family")?,
        sock_daddr: sock("skc_daddr")?,
        sock_v6_daddr: sock("skc_v6_daddr").unwrap_or(0),
        tcp_write_seq: btf.offset("tcp_sock", "write_seq")?,
        tcp_copied_seq: btf.offset("tcp_sock", "copied_seq")?,
        msg_iter: btf.offset("msghdr", "msg_iter")?,
        iter_type,
        iter_type_mask,
        iter_iovec: kind("ITER_IOVEC").context("the kernel's enum iter_type has no ITER_IOVEC")?,
        iter_ubuf,
        iter_offset: iter("iov_offset")?,
        iter_count: iter("count")?,
        iter_iov: iter("__iov").or_else(|_| iter("iov"))?,
        iter_ubuf_base: if iter_ubuf == Layout::NO_UBUF {
            0
        } else {
            iter("ubuf")?
        },
        iter_nr_segs: iter("nr_segs")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::btf::tests::Builder;

    const UNION: u32 = 5;

    fn sockets(builder: &mut Builder, ipv6: bool) {
        let mut members = vec![("skc_daddr", 0, 0), ("skc_dport", 12, 0), ("skc_family", 16, 0)];
        if ipv6 {
            members.push(("skc_v6_daddr", 56, 0));
        }
        let common = builder.structure("sock_common", &members);
        builder.structure("sock", &[("__sk_common", 0, common)]);
        builder.structure("tcp_sock", &[("copied_seq", 1480, 0), ("write_seq", 1500, 0)]);
        builder.structure("msghdr", &[("msg_name", 0, 0), ("msg_iter", 16, 0)]);
    }

    /// Scenario: `struct iov_iter` as in Linux 5.10, and as in 6.4 and later.
    /// Guarantees: the kind is read from the right member, by the right bits, with that kernel's numbers; the segments are
    /// found under both names.
    #[test]
    fn iterators_of_old_and_new_kernels() {
        let mut old = Builder::default();
        sockets(&mut old, true);
        old.structure(
            "iov_iter",
            &[
                ("type", 0, 0),
                ("iov_offset", 8, 0),
                ("count", 16, 0),
                ("iov", 24, 0),
                ("nr_segs", 32, 0),
            ],
        );
        old.enumeration("iter_type", &[("ITER_IOVEC", 4), ("ITER_KVEC", 8)]);
        let old = of(&old.btf()).unwrap();
        assert_eq!((old.iter_type, old.iter_type_mask, old.iter_iovec), (0, !1, 4));
        assert_eq!(
            (old.iter_ubuf, old.iter_iov, old.iter_nr_segs),
            (Layout::NO_UBUF, 24, 32)
        );

        let mut new = Builder::default();
        sockets(&mut new, false);
        let pointers = new.compound(UNION, "", &[("__iov", 0, 0), ("ubuf", 0, 0)]);
        let buffer = new.structure("", &[("", 0, pointers), ("count", 8, 0)]);
        let either = new.compound(UNION, "", &[("__ubuf_iovec", 0, 0), ("", 0, buffer)]);
        new.structure(
            "iov_iter",
            &[
                ("iter_type", 0, 0),
                ("iov_offset", 8, 0),
                ("", 16, either),
                ("nr_segs", 32, 0),
            ],
        );
        new.enumeration("iter_type", &[("ITER_UBUF", 0), ("ITER_IOVEC", 1)]);
        let new = of(&new.btf()).unwrap();
        assert_eq!((new.iter_type_mask, new.iter_ubuf, new.iter_iovec), (0xff, 0, 1));
        assert_eq!((new.iter_iov, new.iter_ubuf_base, new.iter_count), (16, 16, 24));
        assert_eq!(new.sock_v6_daddr, 0, "a kernel without IPv6");
    }

    /// Scenario: a kernel whose `struct tcp_sock` lacks a member.
    /// Guarantees: the error names structure and member.
    #[test]
    fn what_is_missing_is_named() {
        let mut builder = Builder::default();
        let common = builder.structure(
            "sock_common",
            &[("skc_daddr", 0, 0), ("skc_dport", 12, 0), ("skc_family", 16, 0)],
        );
        builder.structure("sock", &[("__sk_common", 0, common)]);
        builder.structure("tcp_sock", &[("copied_seq", 1480, 0)]);
        builder.structure("iov_iter", &[("iter_type", 0, 0)]);
        let error = of(&builder.btf()).unwrap_err().to_string();
        assert_eq!(error, "the kernel's struct tcp_sock has no member write_seq");
    }
}
