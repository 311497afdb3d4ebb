//! The kprobe back end: breakpoints at the entry of the kernel's functions.
//!
//! Returns are the returns of the system calls, by tracepoints, not kretprobes: of those the kernel keeps a fixed number for a
//! function, as few as it has processors, each taken for as long as a call lasts. A few idle connections and pool children,
//! which wait in `tcp_recvmsg` and `pipe_read`, would use them up, and nothing more would be seen.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel};
use aya_ebpf::macros::{kprobe, tracepoint};
use aya_ebpf::programs::{ProbeContext, TracePointContext};
use celeryscope_common::maps::Counter;

use super::tcp;
use crate::calls::{Call, VECTOR_LIMIT, VECTORS, Vector, op, shape, take_call};
use crate::maps::count;
use crate::{conn, filter, process, sock};

/// The `n`th argument (from 0) of the function entered.
#[inline(always)]
fn arg(ctx: &ProbeContext, n: usize) -> u64 {
    ctx.arg(n).unwrap_or(0)
}

/// `int tcp_connect(struct sock *sk)`
#[kprobe]
pub(crate) fn kprobe_connect(ctx: ProbeContext) -> u32 {
    let sk = arg(&ctx, 0);
    if sock::is_watched(sk) {
        conn::connecting(sk);
    }
    0
}

/// `void tcp_close(struct sock *sk, long timeout)`. Whatever its port: a refused connect clears that.
#[kprobe]
pub(crate) fn kprobe_close(ctx: ProbeContext) -> u32 {
    conn::closing(arg(&ctx, 0));
    0
}

/// `int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)`
#[kprobe]
pub(crate) fn kprobe_sendmsg(ctx: ProbeContext) -> u32 {
    let sk = arg(&ctx, 0);
    if sock::is_watched(sk) {
        if let Some(call) = tcp::enter_send::<false>(sk, arg(&ctx, 1)) {
            keep_segments(call);
        }
    } else {
        tcp::elsewhere();
    }
    0
}

/// `int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, int flags)`, before Linux 7.2 with an `int *addr_len`
/// after these.
#[kprobe]
pub(crate) fn kprobe_recvmsg(ctx: ProbeContext) -> u32 {
    recv(&ctx, 3);
    0
}

/// Before Linux 5.19, with an `int nonblock` before `flags`.
#[kprobe]
pub(crate) fn kprobe_recvmsg_nonblock(ctx: ProbeContext) -> u32 {
    recv(&ctx, 4);
    0
}

#[inline(always)]
fn recv(ctx: &ProbeContext, flags: usize) {
    let sk = arg(ctx, 0);
    if sock::is_watched(sk) {
        if let Some(call) = tcp::enter_recv::<false>(sk, arg(ctx, 1), arg(ctx, flags) as u32) {
            keep_segments(call);
        }
    } else {
        tcp::elsewhere();
    }
}

/// `ssize_t pipe_read(struct kiocb *iocb, struct iov_iter *to)`
#[kprobe]
pub(crate) fn kprobe_pipe_read(ctx: ProbeContext) -> u32 {
    tcp::enter_pipe::<false>(arg(&ctx, 1), op::RECV);
    0
}

/// `ssize_t pipe_write(struct kiocb *iocb, struct iov_iter *from)`
#[kprobe]
pub(crate) fn kprobe_pipe_write(ctx: ProbeContext) -> u32 {
    tcp::enter_pipe::<false>(arg(&ctx, 1), op::SEND);
    0
}

/// `void do_group_exit(int exit_code)`
#[kprobe]
pub(crate) fn kprobe_group_exit(ctx: ProbeContext) -> u32 {
    process::ending(filter::tgid(bpf_get_current_pid_tgid()), arg(&ctx, 0) as u32);
    0
}

twice! {
    /// `syscalls:sys_exit_{sendto,sendmsg,write,writev,recvfrom,recvmsg,read,readv}`
    #[tracepoint]
    fn kprobe_return, kprobe_return_2(ctx: TracePointContext) -> u32 {
        if let Some((call, op)) = take_call(bpf_get_current_pid_tgid()) {
            let _ = tcp::exit(call, op, super::result(&ctx));
        }
        0
    }
}

/// Copies the segments of the call that has just been noted: the kernel's list is gone when the system call returns.
#[inline(always)]
fn keep_segments(call: &mut Call) {
    let pid_tgid = call.thread;
    if call.shape != shape::KERNEL_VECTOR {
        return;
    }
    if VECTORS.get_ptr_mut(pid_tgid).is_none()
        && VECTORS
            .insert(pid_tgid, const { [[0; 2]; VECTOR_LIMIT] }, 0)
            .is_err()
    {
        call.shape = shape::OPAQUE;
        return;
    }
    let Some(kept) = VECTORS.get_ptr_mut(pid_tgid) else {
        call.shape = shape::OPAQUE;
        return;
    };
    let mut at = 0;
    while at < VECTOR_LIMIT {
        if at as u64 >= call.len {
            break;
        }
        // SAFETY: the helper checks the address; `at` lies within the element.
        unsafe {
            let Ok(segment) = bpf_probe_read_kernel((call.ptr as *const [u64; 2]).add(at)) else {
                count(Counter::Unreadable, 1);
                break;
            };
            kept.cast::<[u64; 2]>().add(at).write(segment);
        }
        at += 1;
    }
    call.ptr = kept as u64;
    call.len = at as u64;
}
