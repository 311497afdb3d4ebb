//! Calls that write.

use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;

use super::arg;
use super::transfer::{Args, enter};
use crate::calls::{op, shape};

twice! {
    /// `syscalls:sys_enter_sendto`: fd, buff, len, flags, addr, addr_len
    #[tracepoint]
    fn enter_sendto, enter_sendto_2(ctx: TracePointContext) -> u32 {
        enter::<AGAIN>(&args(&ctx, shape::BUFFER, arg(&ctx, 2)), false);
        0
    }
}

twice! {
    /// `syscalls:sys_enter_sendmsg`: fd, msg, flags
    #[tracepoint]
    fn enter_sendmsg, enter_sendmsg_2(ctx: TracePointContext) -> u32 {
        enter::<AGAIN>(&args(&ctx, shape::MESSAGE, 0), false);
        0
    }
}

twice! {
    /// `syscalls:sys_enter_write`: fd, buf, count
    #[tracepoint]
    fn enter_write, enter_write_2(ctx: TracePointContext) -> u32 {
        enter::<AGAIN>(&args(&ctx, shape::BUFFER, arg(&ctx, 2)), true);
        0
    }
}

twice! {
    /// `syscalls:sys_enter_writev`: fd, vec, vlen
    #[tracepoint]
    fn enter_writev, enter_writev_2(ctx: TracePointContext) -> u32 {
        enter::<AGAIN>(&args(&ctx, shape::VECTOR, arg(&ctx, 2)), false);
        0
    }
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
