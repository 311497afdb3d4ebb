//! What the two socket back ends have in common: TCP's own functions tell which socket, its iterator where the bytes are.
//! No descriptor is followed: whoever uses a socket is seen, however it came by it.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use celeryscope_common::maps::{Conn, Counter, tls};

use super::transfer::flows;
use super::{NOT_STREAM, pipe, ssl, transfer};
use crate::calls::{Call, begin, call_of, just_noted, mark, op};
use crate::maps::{CONNS, count};
use crate::{conn, filter, process, sock};

/// `tcp_sendmsg` begins on a watched socket. Gives the call, if it is noted.
#[inline(always)]
pub(super) fn enter_send<const AGAIN: bool>(sk: u64, msg: u64) -> Option<&'static mut Call> {
    enter::<AGAIN>(sk, msg, op::SEND)
}

/// `tcp_recvmsg` begins on a watched socket; likewise.
#[inline(always)]
pub(super) fn enter_recv<const AGAIN: bool>(sk: u64, msg: u64, flags: u32) -> Option<&'static mut Call> {
    if flags & NOT_STREAM != 0 {
        return None;
    }
    enter::<AGAIN>(sk, msg, op::RECV)
}

#[inline(always)]
fn enter<const AGAIN: bool>(sk: u64, msg: u64, op: u32) -> Option<&'static mut Call> {
    let pid_tgid = bpf_get_current_pid_tgid();
    if AGAIN && just_noted(pid_tgid) {
        return None;
    }
    let conn = conn::of_socket(sk)?;
    let tgid = filter::tgid(pid_tgid);
    if conn.user != tgid && process::watch(tgid) {
        conn.user = tgid;
    }
    let call = call_of(pid_tgid)?;
    sock::note_segments(call, sock::message_iter(msg))?;
    call.seq = sock::sequence(sk, op)?;
    skip_missed(conn, op, call.seq, pid_tgid as u32);
    begin(pid_tgid, call, op);
    call.mark = mark::own(AGAIN);
    call.conn = sk;
    call.fd = 0;
    // SAFETY: a helper without arguments.
    call.enter = unsafe { bpf_ktime_get_ns() };
    Some(call)
}

/// Steps over bytes that moved since the last call that was seen. While another thread is at the same (programs that talk
/// to a broker don't do that), what it has moved so far is no loss.
#[inline(always)]
fn skip_missed(conn: &mut Conn, op: u32, seq: u32, thread: u32) {
    let sealed = conn.tls == tls::SEALED;
    let (flow, _) = flows(conn, op);
    let alone = flow.thread == 0 || flow.thread == thread;
    if flow.known == 0 || alone {
        let missed = seq.wrapping_sub(flow.seq);
        if flow.known != 0 && missed != 0 && missed < 1 << 31 {
            count(Counter::MissedBytes, u64::from(missed));
            // What moves inside TLS is counted where it does.
            flow.bytes += if sealed { 0 } else { u64::from(missed) };
        }
        flow.seq = seq;
    }
    (flow.known, flow.thread) = (1, thread);
}

/// A function begins on a socket that is not watched.
#[inline(always)]
pub(super) fn elsewhere() {
    ssl::elsewhere(bpf_get_current_pid_tgid());
}

/// A call that was noted has returned, if TCP's sequence numbers agree: otherwise this is another call's return, whose entry no
/// probe saw as none saw the return of the one that was noted. A function of its own: see that of `transfer`.
#[inline(never)]
pub(super) fn exit(call: &mut Call, op: u32, moved: i64) -> Option<()> {
    if op != op::SEND && op != op::RECV {
        return None;
    }
    if call.conn == 0 {
        return if moved > 0 {
            pipe::exit(call, op, moved as u64)
        } else {
            None
        };
    }
    // SAFETY: an element of CONNS; two calls at once in one direction have no order to keep.
    let conn = unsafe { &mut *CONNS.get_ptr_mut(call.conn)? };
    let (flow, _) = flows(conn, op);
    flow.thread = 0;
    if moved <= 0 {
        return None;
    }
    let counted = sock::sequence(call.conn, op)?.wrapping_sub(call.seq);
    // A FIN that comes with the last bytes counts as one more.
    let with_fin = op == op::RECV && counted == (moved as u32).wrapping_add(1);
    if counted != moved as u32 && !with_fin {
        count(Counter::ReturnsMissed, 1);
        return None;
    }
    flow.seq = flow.seq.wrapping_add(counted);
    transfer::tell(conn, call, op, moved as u64);
    Some(())
}

/// A pipe's function begins: is it a worker's process?
#[inline(always)]
pub(super) fn enter_pipe<const AGAIN: bool>(iter: u64, op: u32) {
    let _ = try_enter_pipe::<AGAIN>(iter, op);
}

#[inline(always)]
fn try_enter_pipe<const AGAIN: bool>(iter: u64, op: u32) -> Option<()> {
    let pid_tgid = bpf_get_current_pid_tgid();
    if !filter::is_in_pool(filter::tgid(pid_tgid)) || AGAIN && just_noted(pid_tgid) {
        return None;
    }
    let call = call_of(pid_tgid)?;
    sock::note_segments(call, iter)?;
    begin(pid_tgid, call, op);
    call.mark = mark::own(AGAIN);
    call.conn = 0;
    call.fd = 0;
    // SAFETY: a helper without arguments.
    call.enter = unsafe { bpf_ktime_get_ns() };
    Some(())
}
