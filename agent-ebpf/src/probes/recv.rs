//! Calls that read. Those that only peek, or fetch errors, move no byte of the stream and are passed over.

use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;

use super::transfer::{Args, enter};
use super::{NOT_STREAM, arg};
use crate::calls::{op, shape};

twice! {
    /// `syscalls:sys_enter_recvfrom`: fd, ubuf, size, flags, addr, addr_len
    #[tracepoint]
    fn enter_recvfrom, enter_recvfrom_2(ctx: TracePointContext) -> u32 {
        if arg(&ctx, 3) as u32 & NOT_STREAM == 0 {
            enter::<AGAIN>(&args(&ctx, shape::BUFFER, arg(&ctx, 2)), false);
        }
        0
    }
}

twice! {
    /// `syscalls:sys_enter_recvmsg`: fd, msg, flags
    #[tracepoint]
    fn enter_recvmsg, enter_recvmsg_2(ctx: TracePointContext) -> u32 {
        if arg(&ctx, 2) as u32 & NOT_STREAM == 0 {
            enter::<AGAIN>(&args(&ctx, shape::MESSAGE, 0), false);
        }
        0
    }
}

twice! {
    /// `syscalls:sys_enter_read`: fd, buf, count
    #[tracepoint]
    fn enter_read, enter_read_2(ctx: TracePointContext) -> u32 {
        enter::<AGAIN>(&args(&ctx, shape::BUFFER, arg(&ctx, 2)), true);
        0
    }
}

twice! {
    /// `syscalls:sys_enter_readv`: fd, vec, vlen
    #[tracepoint]
    fn enter_readv, enter_readv_2(ctx: TracePointContext) -> u32 {
        enter::<AGAIN>(&args(&ctx, shape::VECTOR, arg(&ctx, 2)), false);
        0
    }
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
