//! Calls that read. Those that only peek, or fetch errors, move no byte of the stream and are passed over.

use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;

use super::arg;
use super::transfer::{Args, enter};
use crate::maps::{op, shape};

/// MSG_OOB, MSG_PEEK, MSG_TRUNC (which drops bytes uncopied) and MSG_ERRQUEUE.
const NOT_STREAM: u64 = 0x1 | 0x2 | 0x20 | 0x2000;

/// `syscalls:sys_enter_recvfrom`: fd, ubuf, size, flags, addr, addr_len
#[tracepoint]
pub(crate) fn enter_recvfrom(ctx: TracePointContext) -> u32 {
    if arg(&ctx, 3) & NOT_STREAM == 0 {
        enter(&args(&ctx, shape::BUFFER, arg(&ctx, 2)), false);
    }
    0
}

/// `syscalls:sys_enter_recvmsg`: fd, msg, flags
#[tracepoint]
pub(crate) fn enter_recvmsg(ctx: TracePointContext) -> u32 {
    if arg(&ctx, 2) & NOT_STREAM == 0 {
        enter(&args(&ctx, shape::MESSAGE, 0), false);
    }
    0
}

/// `syscalls:sys_enter_read`: fd, buf, count
#[tracepoint]
pub(crate) fn enter_read(ctx: TracePointContext) -> u32 {
    enter(&args(&ctx, shape::BUFFER, arg(&ctx, 2)), true);
    0
}

/// `syscalls:sys_enter_readv`: fd, vec, vlen
#[tracepoint]
pub(crate) fn enter_readv(ctx: TracePointContext) -> u32 {
    enter(&args(&ctx, shape::VECTOR, arg(&ctx, 2)), false);
    0
}

#[inline(always)]
fn args(ctx: &TracePointContext, shape: u32, len: u64) -> Args {
    Args {
        op: op::RECV,
        shape,
        fd: arg(ctx, 0) as u32,
        ptr: arg(ctx, 1),
        len,
    }
}
