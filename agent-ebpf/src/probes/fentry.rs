//! The fentry back end: trampolines at the entry and the return of the kernel's functions.
//!
//! The kernel hands these programs typed pointers, so that the one question asked for every socket call on the host, whether
//! its peer is at a broker's port, is a plain load.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::{fentry, fexit};
use aya_ebpf::programs::{FEntryContext, FExitContext};

use super::tcp;
use crate::calls::{op, take_call};
use crate::maps::layout;
use crate::{conn, filter, process};

/// Is the peer of the `struct sock` in the first argument at a broker's port?
#[inline(always)]
fn is_watched(sk: u64) -> bool {
    // SAFETY: the verifier knows the pointer's type and checks the member; the kernel guards the load.
    let port = unsafe { ((sk + u64::from(layout!(sock_dport))) as *const u16).read_volatile() };
    filter::port(u16::from_be(port))
}

twice! {
    /// `int tcp_connect(struct sock *sk)`
    #[fentry]
    fn fentry_connect, fentry_connect_2(ctx: FEntryContext) -> i32 {
        let sk = ctx.arg::<u64>(0);
        if is_watched(sk) {
            conn::connecting(sk);
        }
        0
    }
}

twice! {
    /// `void tcp_close(struct sock *sk, long timeout)`. Whatever its port: a refused connect clears that.
    #[fentry]
    fn fentry_close, fentry_close_2(ctx: FEntryContext) -> i32 {
        conn::closing(ctx.arg(0));
        0
    }
}

twice! {
    /// `int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)`
    #[fentry]
    fn fentry_sendmsg, fentry_sendmsg_2(ctx: FEntryContext) -> i32 {
        let sk = ctx.arg::<u64>(0);
        if is_watched(sk) {
            let _ = tcp::enter_send::<AGAIN>(sk, ctx.arg(1));
        } else {
            tcp::elsewhere();
        }
        0
    }
}

twice! {
    /// The return of `tcp_sendmsg`.
    #[fexit]
    fn fexit_sendmsg, fexit_sendmsg_2(ctx: FExitContext) -> i32 {
        exit_socket(&ctx, 3);
        0
    }
}

twice! {
    /// `int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, int flags)`, before Linux 7.2 with an `int *addr_len`
    /// after these.
    #[fentry]
    fn fentry_recvmsg, fentry_recvmsg_2(ctx: FEntryContext) -> i32 {
        let sk = ctx.arg::<u64>(0);
        if is_watched(sk) {
            let _ = tcp::enter_recv::<AGAIN>(sk, ctx.arg(1), ctx.arg(3));
        } else {
            tcp::elsewhere();
        }
        0
    }
}

twice! {
    /// Before Linux 5.19, with an `int nonblock` before `flags`.
    #[fentry]
    fn fentry_recvmsg_nonblock, fentry_recvmsg_nonblock_2(ctx: FEntryContext) -> i32 {
        let sk = ctx.arg::<u64>(0);
        if is_watched(sk) {
            let _ = tcp::enter_recv::<AGAIN>(sk, ctx.arg(1), ctx.arg(4));
        } else {
            tcp::elsewhere();
        }
        0
    }
}

twice! {
    /// The return of a `tcp_recvmsg` of four parameters.
    #[fexit]
    fn fexit_recvmsg_4, fexit_recvmsg_4_2(ctx: FExitContext) -> i32 {
        exit_socket(&ctx, 4);
        0
    }
}

twice! {
    /// The return of one of five.
    #[fexit]
    fn fexit_recvmsg_5, fexit_recvmsg_5_2(ctx: FExitContext) -> i32 {
        exit_socket(&ctx, 5);
        0
    }
}

twice! {
    /// The return of one of six.
    #[fexit]
    fn fexit_recvmsg_6, fexit_recvmsg_6_2(ctx: FExitContext) -> i32 {
        exit_socket(&ctx, 6);
        0
    }
}

twice! {
    /// `ssize_t pipe_read(struct kiocb *iocb, struct iov_iter *to)`
    #[fentry]
    fn fentry_pipe_read, fentry_pipe_read_2(ctx: FEntryContext) -> i32 {
        tcp::enter_pipe::<AGAIN>(ctx.arg(1), op::RECV);
        0
    }
}

twice! {
    /// `ssize_t pipe_write(struct kiocb *iocb, struct iov_iter *from)`
    #[fentry]
    fn fentry_pipe_write, fentry_pipe_write_2(ctx: FEntryContext) -> i32 {
        tcp::enter_pipe::<AGAIN>(ctx.arg(1), op::SEND);
        0
    }
}

twice! {
    /// The return of `pipe_read`.
    #[fexit]
    fn fexit_pipe_read, fexit_pipe_read_2(ctx: FExitContext) -> i32 {
        exit_pipe(&ctx);
        0
    }
}

twice! {
    /// The return of `pipe_write`.
    #[fexit]
    fn fexit_pipe_write, fexit_pipe_write_2(ctx: FExitContext) -> i32 {
        exit_pipe(&ctx);
        0
    }
}

#[inline(always)]
fn exit_pipe(ctx: &FExitContext) {
    if filter::is_in_pool(filter::tgid(bpf_get_current_pid_tgid())) {
        exit(ctx.arg::<i64>(2));
    }
}

twice! {
    /// `void do_group_exit(int exit_code)`
    #[fentry]
    fn fentry_group_exit, fentry_group_exit_2(ctx: FEntryContext) -> i32 {
        process::ending(filter::tgid(bpf_get_current_pid_tgid()), ctx.arg(0));
        0
    }
}

/// A function of so many parameters has returned: its result comes after them.
#[inline(always)]
fn exit_socket(ctx: &FExitContext, parameters: usize) {
    if is_watched(ctx.arg(0)) {
        // An int: the register's upper half is anything.
        exit(i64::from(ctx.arg::<i32>(parameters)));
    }
}

#[inline(always)]
fn exit(result: i64) {
    if let Some((call, op)) = take_call(bpf_get_current_pid_tgid()) {
        let _ = tcp::exit(call, op, result);
    }
}
