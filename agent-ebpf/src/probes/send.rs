//! Calls that write.

use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;

use super::arg;
use super::transfer::{Args, enter};
use crate::maps::{op, shape};

/// `syscalls:sys_enter_sendto`: fd, buff, len, flags, addr, addr_len
#[tracepoint]
pub(crate) fn enter_sendto(ctx: TracePointContext) -> u32 {
    enter(&args(&ctx, shape::BUFFER, arg(&ctx, 2)), false);
    0
}

/// `syscalls:sys_enter_sendmsg`: fd, msg, flags
#[tracepoint]
pub(crate) fn enter_sendmsg(ctx: TracePointContext) -> u32 {
    enter(&args(&ctx, shape::MESSAGE, 0), false);
    0
}

/// `syscalls:sys_enter_write`: fd, buf, count
#[tracepoint]
pub(crate) fn enter_write(ctx: TracePointContext) -> u32 {
    enter(&args(&ctx, shape::BUFFER, arg(&ctx, 2)), true);
    0
}

/// `syscalls:sys_enter_writev`: fd, vec, vlen
#[tracepoint]
pub(crate) fn enter_writev(ctx: TracePointContext) -> u32 {
    enter(&args(&ctx, shape::VECTOR, arg(&ctx, 2)), false);
    0
}

#[inline(always)]
fn args(ctx: &TracePointContext, shape: u32, len: u64) -> Args {
    Args {
        op: op::SEND,
        shape,
        fd: arg(ctx, 0) as u32,
        ptr: arg(ctx, 1),
        len,
    }
}
