//! Calls that make, copy and close descriptors.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user};
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use aya_log_ebpf::debug;
use celeryscope_common::maps::SLOTS_PER_PROCESS;

use super::{arg, result};
use crate::address::{self, AF_INET, AF_INET6, Words, v4_mapped};
use crate::calls::{begin, call_of, op, take_call};
use crate::{conn, filter};

/// The connection is under way (EINPROGRESS), or goes on although a signal ended the wait (EINTR).
const UNDER_WAY: [i64; 2] = [-115, -4];
const F_DUPFD: u32 = 0;
const F_DUPFD_CLOEXEC: u32 = 1030;
const CLOSE_RANGE_CLOEXEC: u32 = 4;

twice! {
    /// `syscalls:sys_enter_connect`: fd, uservaddr, addrlen
    #[tracepoint]
    fn enter_connect, enter_connect_2(ctx: TracePointContext) -> u32 {
        let _ = try_enter_connect(&ctx);
        0
    }
}

#[inline(always)]
fn try_enter_connect(ctx: &TracePointContext) -> Option<()> {
    let (addr, port) = peer(arg(ctx, 1))?;
    if !filter::port(port) {
        return None;
    }
    let pid_tgid = bpf_get_current_pid_tgid();
    let call = call_of(pid_tgid)?;
    begin(pid_tgid, call, op::CONNECT);
    call.fd = arg(ctx, 0) as u32;
    call.addr = addr;
    call.port = u32::from(port);
    Some(())
}

/// The address and the port of the struct sockaddr_in or sockaddr_in6 at this user address.
#[inline(always)]
fn peer(at: u64) -> Option<(Words, u16)> {
    // SAFETY: the helper checks the address; so below.
    let [family, port] = unsafe { bpf_probe_read_user(at as *const [u16; 2]) }.ok()?;
    let addr = match family {
        AF_INET => v4_mapped(unsafe { bpf_probe_read_user((at + 4) as *const u32) }.ok()?),
        AF_INET6 => unsafe { bpf_probe_read_user((at + 8) as *const Words) }.ok()?,
        _ => return None,
    };
    Some((addr, u16::from_be(port)))
}

twice! {
    /// `syscalls:sys_exit_connect`
    #[tracepoint]
    fn exit_connect, exit_connect_2(ctx: TracePointContext) -> u32 {
        let pid_tgid = bpf_get_current_pid_tgid();
        let result = result(&ctx);
        if let Some((call, op::CONNECT)) = take_call(pid_tgid)
            && (result == 0 || result == UNDER_WAY[0] || result == UNDER_WAY[1])
        {
            debug!(
                &ctx,
                "process {} connected {} to port {}",
                filter::tgid(pid_tgid),
                call.fd,
                call.port
            );
            conn::opened(filter::tgid(pid_tgid), call.fd, address::of_words(call.addr), call.port as u16);
        }
        0
    }
}

twice! {
    /// `syscalls:sys_enter_close`: fd. At the entry: the descriptor goes whatever the result, and after the return its
    /// number may already be another thread's.
    #[tracepoint]
    fn enter_close, enter_close_2(ctx: TracePointContext) -> u32 {
        conn::drop_fd(filter::tgid(bpf_get_current_pid_tgid()), arg(&ctx, 0) as u32);
        0
    }
}

twice! {
    /// `syscalls:sys_enter_close_range`: fd, max_fd, flags
    #[tracepoint]
    fn enter_close_range, enter_close_range_2(ctx: TracePointContext) -> u32 {
        let tgid = filter::tgid(bpf_get_current_pid_tgid());
        if filter::process(tgid).is_none() || arg(&ctx, 2) as u32 & CLOSE_RANGE_CLOEXEC != 0 {
            return 0;
        }
        let (first, last) = (arg(&ctx, 0) as u32, arg(&ctx, 1) as u32);
        let mut slot = 0;
        while slot < SLOTS_PER_PROCESS {
            if let Some(fd) = conn::in_slot(tgid, slot)
                && fd >= first
                && fd <= last
            {
                conn::drop_fd(tgid, fd);
            }
            slot += 1;
        }
        0
    }
}

twice! {
    /// `syscalls:sys_enter_dup`: fildes
    #[tracepoint]
    fn enter_dup, enter_dup_2(ctx: TracePointContext) -> u32 {
        let _ = duplicating(arg(&ctx, 0) as u32);
        0
    }
}

twice! {
    /// `syscalls:sys_enter_fcntl`: fd, cmd, arg
    #[tracepoint]
    fn enter_fcntl, enter_fcntl_2(ctx: TracePointContext) -> u32 {
        let command = arg(&ctx, 1) as u32;
        if command == F_DUPFD || command == F_DUPFD_CLOEXEC {
            let _ = duplicating(arg(&ctx, 0) as u32);
        }
        0
    }
}

twice! {
    /// `syscalls:sys_enter_dup2`, `sys_enter_dup3`: oldfd, newfd. The new descriptor is closed first, if it is another.
    #[tracepoint]
    fn enter_dup2, enter_dup2_2(ctx: TracePointContext) -> u32 {
        let (old, new) = (arg(&ctx, 0) as u32, arg(&ctx, 1) as u32);
        if old != new {
            let _ = duplicating(old);
            conn::drop_fd(filter::tgid(bpf_get_current_pid_tgid()), new);
        }
        0
    }
}

#[inline(always)]
fn duplicating(old: u32) -> Option<()> {
    let pid_tgid = bpf_get_current_pid_tgid();
    let tgid = filter::tgid(pid_tgid);
    let known = filter::descriptor(tgid, old)?;
    let call = call_of(pid_tgid)?;
    begin(pid_tgid, call, op::DUP);
    call.conn = known.conn;
    Some(())
}

twice! {
    /// `syscalls:sys_exit_{dup,dup2,dup3,fcntl}`: the new descriptor
    #[tracepoint]
    fn exit_dup, exit_dup_2(ctx: TracePointContext) -> u32 {
        let pid_tgid = bpf_get_current_pid_tgid();
        let result = result(&ctx);
        if let Some((call, op::DUP)) = take_call(pid_tgid)
            && result >= 0
        {
            conn::add_fd(filter::tgid(pid_tgid), result as u32, call.conn);
        }
        0
    }
}
