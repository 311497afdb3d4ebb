//! What sends and receives have in common: arguments kept at the entry, bytes copied at the return.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_user};
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use celeryscope_common::maps::{Conn, Counter, Flow, tls};
use celeryscope_common::{Header, Kind, flags};

use super::{pipe, ssl};
use crate::calls::{Call, begin, call_of, end, mark, noted_call, op, shape, take_call};
use crate::iter::{self, PIECE_TAIL, Segments};
use crate::maps::{CONNS, count};
use crate::{conn, emit, filter, idle};

/// A run in one direction past this many bytes is one big message: of its further pieces only the tail is copied.
const LONG_RUN: u32 = 65_536;

/// Arguments of a transfer.
pub(super) struct Args {
    pub(super) op: u32,
    pub(super) shape: u32,
    pub(super) fd: u32,
    pub(super) ptr: u64,
    pub(super) len: u64,
}

/// A transfer begins. `pipes`: the descriptor may be a pool's pipe.
#[inline(always)]
pub(super) fn enter<const AGAIN: bool>(args: &Args, pipes: bool) {
    let pid_tgid = bpf_get_current_pid_tgid();
    if let Some(call) = noted_call(pid_tgid) {
        if call.mark == mark::other(AGAIN) {
            call.mark = mark::SEEN;
            return;
        }
        return_missed(pid_tgid, call);
    }
    let Some(conn) = connection(pid_tgid, args.fd, pipes) else {
        return;
    };
    let Some(call) = call_of(pid_tgid) else {
        return;
    };
    begin(pid_tgid, call, args.op);
    call.mark = mark::own(AGAIN);
    note(call, args, conn);
}

/// The connection behind the thread's descriptor, or 0 when it may be a pool's pipe (`pipes`); nothing when it is neither.
#[inline(always)]
pub(super) fn connection(pid_tgid: u64, fd: u32, pipes: bool) -> Option<u64> {
    let tgid = filter::tgid(pid_tgid);
    match filter::descriptor(tgid, fd) {
        Some(known) => Some(known.conn),
        None if pipes && filter::is_in_pool(tgid) => Some(0),
        None => {
            ssl::elsewhere(pid_tgid);
            None
        }
    }
}

/// Keeps a transfer's arguments, and that it is now.
#[inline(always)]
pub(super) fn note(call: &mut Call, args: &Args, conn: u64) {
    call.shape = args.shape;
    call.conn = conn;
    call.ptr = args.ptr;
    call.len = args.len;
    call.fd = args.fd;
    // SAFETY: a helper without arguments.
    call.enter = unsafe { bpf_ktime_get_ns() };
}

/// The thread is in another call, so its last one is over, and no probe saw it return. How much was moved is not known, so
/// what follows is told as another connection, joined in the middle. A function of its own: it is rare, and every program would be twice
/// as long with it.
#[inline(never)]
fn return_missed(pid_tgid: u64, call: &mut Call) {
    let op = end(pid_tgid, call);
    if op != op::SEND && op != op::RECV {
        return;
    }
    count(Counter::ReturnsMissed, 1);
    if let Some(conn) = CONNS.get_ptr_mut(call.conn) {
        // SAFETY: what a connection counts has no order to keep between two calls at once.
        conn::start_over(unsafe { &mut *conn });
    }
}

twice! {
    /// `syscalls:sys_exit_{sendto,sendmsg,write,writev,recvfrom,recvmsg,read,readv}`
    #[tracepoint]
    fn exit_transfer, exit_transfer_2(ctx: TracePointContext) -> u32 {
        if let Some((call, op)) = take_call(bpf_get_current_pid_tgid())
            && (op == op::SEND || op == op::RECV)
        {
            let result = super::result(&ctx);
            if result > 0 {
                let _ = moved(call, op, result as u64);
            }
        }
        0
    }
}

/// A transfer is over. A function of its own: what runs at every return on the host, which is hardly ever ours, is to fit a cache line or two.
#[inline(never)]
pub(super) fn moved(call: &mut Call, op: u32, moved: u64) -> Option<()> {
    if call.conn == 0 {
        return pipe::exit(call, op, moved);
    }
    // SAFETY: an element of CONNS; two calls at once in one direction have no order to keep.
    let conn = unsafe { &mut *CONNS.get_ptr_mut(call.conn)? };
    tell(conn, call, op, moved);
    Some(())
}

/// Tells what a socket call has moved, unless it is sealed.
#[inline(always)]
pub(super) fn tell(conn: &mut Conn, call: &mut Call, op: u32, moved: u64) {
    if conn.tls == tls::PLAIN || !ssl::seals(conn, call, op, moved) {
        tell_bytes(conn, call, op, moved);
    }
}

/// Tells what a call has moved.
#[inline(always)]
pub(super) fn tell_bytes(conn: &mut Conn, call: &mut Call, op: u32, moved: u64) {
    call.moved = moved;
    if filter::ignored(conn.id) {
        idle::forget(&mut conn.quiet);
        call.fate = idle::LEFT_OUT;
        count(Counter::Ignored, 1);
    } else {
        idle::judge(conn, call, op);
    }
    if call.shape == shape::BUFFER && moved <= PIECE_TAIL {
        tell_whole(conn, call, op);
    } else {
        let _ = tell_parts(conn, call, op);
    }
}

/// Nearly every transfer: from one buffer into one record. Up to [`PIECE_TAIL`] bytes, since so much is copied of anything, of a big
/// message's further pieces too.
#[inline(never)]
fn tell_whole(conn: &mut Conn, call: &mut Call, op: u32) {
    let (moved, fate) = (call.moved(), call.fate());
    let (kind, start, _) = account(conn, op, moved, call.len);
    if fate == idle::LEFT_OUT {
        return;
    }
    let header = Header {
        flags: fate as u16 | flags::LAST,
        ..header(conn, call, kind, start)
    };
    if emit::user(&header, call.ptr, moved) && fate == idle::POLL {
        conn.quiet.poll_len = moved as u32;
    }
}

/// Any other. No poll is among them.
#[inline(never)]
fn tell_parts(conn: &mut Conn, call: &mut Call, op: u32) -> Option<()> {
    let moved = call.moved();
    let (segments, asked) = segments(call, moved)?;
    let (kind, start, continues) = account(conn, op, moved, asked);
    if call.fate() == idle::LEFT_OUT {
        return None;
    }
    let header = header(conn, call, kind, start);
    iter::emit(&mut call.transfer, &header, &segments, continues);
    Some(())
}

#[inline(always)]
fn header(conn: &Conn, call: &Call, kind: Kind, start: u64) -> Header {
    Header {
        enter: call.enter,
        start,
        total: call.moved() as u32,
        ..emit::header_of(call.thread, kind, conn.id)
    }
}

/// Where the bytes are, and how many the call asked to move (of a vector: unknown, taken as what it moved).
#[inline(always)]
fn segments(call: &Call, moved: u64) -> Option<(Segments, u64)> {
    match call.shape {
        shape::BUFFER => return Some((Segments::buffer(call.ptr), call.len)),
        shape::KERNEL_VECTOR => {
            return Some((Segments::kernel(call.ptr, call.len, call.skip), moved));
        }
        shape::OPAQUE => return Some((Segments::NOWHERE, call.len)),
        _ => {}
    }
    let (table, count) = if call.shape == shape::MESSAGE {
        // struct user_msghdr: msg_name, msg_namelen, msg_iov, msg_iovlen
        // SAFETY: the helper checks the address.
        let [table, count] = unsafe { bpf_probe_read_user((call.ptr + 16) as *const [u64; 2]) }.ok()?;
        (table, count)
    } else {
        (call.ptr, call.len)
    };
    Some((Segments::user(table, count), moved))
}

/// Moves the stream on. Gives the record's kind, the transfer's offset, and whether it only goes on with a big
/// message whose head is already captured.
#[inline(always)]
fn account(conn: &mut Conn, op: u32, moved: u64, asked: u64) -> (Kind, u64, bool) {
    let add = if moved > 1 << 30 { 1 << 30 } else { moved as u32 };
    let (flow, other) = flows(conn, op);
    let start = flow.bytes;
    let continues = flow.more != 0 && flow.run > LONG_RUN;
    flow.bytes = start + moved;
    flow.run = flow.run.saturating_add(add);
    (other.run, other.more) = (0, 0);
    let (kind, more) = if op == op::SEND {
        (Kind::Send, moved < asked)
    } else {
        (Kind::Recv, moved >= asked)
    };
    flow.more = u8::from(more);
    (kind, start, continues)
}

/// The direction of a call of this kind, and the other.
#[inline(always)]
pub(super) fn flows(conn: &mut Conn, op: u32) -> (&mut Flow, &mut Flow) {
    if op == op::SEND {
        (&mut conn.tx, &mut conn.rx)
    } else {
        (&mut conn.rx, &mut conn.tx)
    }
}
