//! The hooks, one family a file. Entries are thin: they read the arguments and hand over.
//!
//! `fentry` and `kprobe` are back ends of their own on top of `tcp`; `send`, `recv` (or, where it can be, `at_return`), `transfer` and
//! `lifetime` are the tracepoint back end; `pipe`, `process` and `ssl` serve all three.
//!
//! What moves by other ways is not seen: for the tracepoint back end system calls made through the 32-bit entry points,
//! io_uring, sendmmsg, recvmmsg, sendfile and splice; for kprobe all of these but the first, counted as missed; for fentry
//! splice, counted likewise.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::programs::TracePointContext;

/// Defines a program and its second copy, for kernels that may move a program aside while it runs: they then pass over the same
/// program, for every other thread on that processor, until it is done. Of two copies one is all but always free. Running both is
/// the same as running one: what the first has done the second finds done. `AGAIN` tells the second.
macro_rules! twice {
    ($(#[$attribute:meta])* fn $name:ident, $second:ident($ctx:ident: $context:ty) -> $result:ty $body:block) => {
        $(#[$attribute])*
        pub(crate) fn $name($ctx: $context) -> $result {
            #[allow(dead_code, reason = "not every program asks")]
            const AGAIN: bool = false;
            $body
        }

        $(#[$attribute])*
        pub(crate) fn $second($ctx: $context) -> $result {
            #[allow(dead_code, reason = "not every program asks")]
            const AGAIN: bool = true;
            $body
        }
    };
}

mod at_return;
mod fentry;
mod kprobe;
mod lifetime;
pub(crate) mod pipe;
mod process;
mod recv;
mod send;
mod ssl;
mod tcp;
mod transfer;

/// MSG_OOB, MSG_PEEK, MSG_TRUNC (which drops bytes uncopied) and MSG_ERRQUEUE: reads with these move no byte of the stream to the
/// caller.
const NOT_STREAM: u32 = 0x1 | 0x2 | 0x20 | 0x2000;

/// Offset of a system call's `n`th argument in the context of its entry; of its result in that of its return.
const fn argument(n: usize) -> usize {
    16 + 8 * n
}

/// The `n`th argument (from 0) of the system call entered.
#[inline(always)]
fn arg(ctx: &TracePointContext, n: usize) -> u64 {
    field(ctx, argument(n))
}

/// The number of the system call entered or left.
#[inline(always)]
fn number(ctx: &TracePointContext) -> u32 {
    field(ctx, 8)
}

/// The result of the system call left.
#[inline(always)]
fn result(ctx: &TracePointContext) -> i64 {
    field(ctx, argument(0))
}

/// A field of the tracepoint's context. Read directly: `TracePointContext::read_at` copies kernel memory through a
/// helper that lockdown refuses.
#[inline(always)]
fn field<T: Copy>(ctx: &TracePointContext, offset: usize) -> T {
    // SAFETY: the verifier checks that offset and size lie within the context.
    unsafe { ctx.as_ptr().cast::<u8>().add(offset).cast::<T>().read_volatile() }
}
