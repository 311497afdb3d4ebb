//! OpenSSL's calls: what moves inside TLS, for all three back ends.
//!
//! `SSL_read` and `SSL_write` in both their forms; a call's bytes are told when it has succeeded. Which connection a session
//! belongs to is told by the socket calls that the library makes inside its own, on the same thread. A session that makes none
//! keeps its sealed bytes in memory for somebody else to move (asyncio): it is a connection of its own, from the first write that
//! begins as a broker's client does, to nobody knows where.
//!
//! Not seen: `SSL_sendfile`, `SSL_write_early_data`, `SSL_read_early_data`, and other libraries than OpenSSL and what has its functions.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_get_attach_cookie;
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_user};
use aya_ebpf::macros::{uprobe, uretprobe};
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use celeryscope_common::maps::{Conn, Counter, Quiet, ssl as cookie, tls};
use celeryscope_common::{Addr, Header, Kind, flags};

use super::transfer;
use crate::calls::{Call, op, shape};
use crate::maps::{CONNS, count};
use crate::sessions::{
    SSL_CONNS, SSL_LOOSE, Ssl, SslCall, Tie, begin_ssl, end_ssl, noted_ssl_call, ssl_call_of,
};
use crate::{conn, emit, filter};

/// Transfers of an older connection that are looked at before it is taken for a plain one.
const JUDGED_ENOUGH: u8 = 16;
/// RFC 8446 §5.1: types of records are 20 to 23.
const APPLICATION_DATA: u8 = 23;
const NO_RECORD: u8 = 0;
/// Most bytes in one TLS record (RFC 8446 §5.1), and so in one read.
const RECORD: u64 = 16_384;

/// `int SSL_write(SSL *ssl, const void *buf, int num)`
#[uprobe]
pub(crate) fn ssl_write(ctx: ProbeContext) -> u32 {
    enter(&ctx, op::SEND, false);
    0
}

/// `int SSL_write_ex(SSL *ssl, const void *buf, size_t num, size_t *written)`
#[uprobe]
pub(crate) fn ssl_write_ex(ctx: ProbeContext) -> u32 {
    enter(&ctx, op::SEND, true);
    0
}

/// `int SSL_read(SSL *ssl, void *buf, int num)`
#[uprobe]
pub(crate) fn ssl_read(ctx: ProbeContext) -> u32 {
    enter(&ctx, op::RECV, false);
    0
}

/// `int SSL_read_ex(SSL *ssl, void *buf, size_t num, size_t *readbytes)`
#[uprobe]
pub(crate) fn ssl_read_ex(ctx: ProbeContext) -> u32 {
    enter(&ctx, op::RECV, true);
    0
}

/// The entry of any of them, where the kernel tells which.
#[uprobe]
pub(crate) fn ssl_enter(ctx: ProbeContext) -> u32 {
    // SAFETY: the context is this program's own.
    let which = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    let op = if which & cookie::WRITES != 0 {
        op::SEND
    } else {
        op::RECV
    };
    enter(&ctx, op, which & cookie::EXTENDED != 0);
    0
}

/// The return of any of them.
#[uretprobe]
pub(crate) fn ssl_return(ctx: RetProbeContext) -> u32 {
    let _ = exit(ctx.ret::<u64>() as i32);
    0
}

#[inline(always)]
fn arg(ctx: &ProbeContext, n: usize) -> u64 {
    ctx.arg(n).unwrap_or(0)
}

#[inline(always)]
fn session(pid_tgid: u64, at: u64) -> Ssl {
    Ssl {
        tgid: u64::from(filter::tgid(pid_tgid)),
        at,
    }
}

/// A call begins. `extended`: in the form that puts the number of bytes where its fourth argument says.
#[inline(always)]
fn enter(ctx: &ProbeContext, op: u32, extended: bool) {
    let pid_tgid = bpf_get_current_pid_tgid();
    let Some(ssl_call) = ssl_call_of(pid_tgid) else {
        return;
    };
    ssl_call.ssl = session(pid_tgid, arg(ctx, 0));
    ssl_call.moved_at = if extended { arg(ctx, 3) } else { 0 };
    ssl_call.tie = Tie::NONE;
    ssl_call.elsewhere = 0;
    ssl_call.call.shape = shape::BUFFER;
    ssl_call.call.ptr = arg(ctx, 1);
    let len = if extended {
        arg(ctx, 2)
    } else {
        arg(ctx, 2) & 0x7fff_ffff
    };
    ssl_call.call.len = if op == op::RECV && len > RECORD {
        RECORD
    } else {
        len
    };
    // SAFETY: a helper without arguments.
    ssl_call.call.enter = unsafe { bpf_ktime_get_ns() };
    begin_ssl(pid_tgid, ssl_call, op);
}

#[inline(always)]
fn exit(result: i32) -> Option<()> {
    let pid_tgid = bpf_get_current_pid_tgid();
    let ssl_call = noted_ssl_call(pid_tgid)?;
    let op = end_ssl(pid_tgid, ssl_call);
    if result <= 0 {
        return None;
    }
    let moved = if ssl_call.moved_at == 0 {
        result as u64
    } else {
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_user(ssl_call.moved_at as *const u64) }.ok()?
    };
    if moved == 0 || moved > u64::from(u32::MAX) {
        return None;
    }
    let conn = match tied(ssl_call) {
        Some(conn) => conn,
        None => loose(ssl_call, op, moved)?,
    };
    transfer::tell_bytes(conn, &mut ssl_call.call, op, moved);
    Some(())
}

/// The connection on which the session's bytes go, sealed.
#[inline(always)]
fn tied(ssl_call: &mut SslCall) -> Option<&'static mut Conn> {
    // SAFETY: a torn read is a connection of another id.
    let known = unsafe { SSL_CONNS.get(ssl_call.ssl) }
        .copied()
        .unwrap_or(Tie::NONE);
    let tie = if ssl_call.tie.key == 0 {
        known
    } else {
        if known != ssl_call.tie {
            let _ = SSL_CONNS.insert(ssl_call.ssl, ssl_call.tie, 0);
        }
        ssl_call.tie
    };
    // SAFETY: what a connection counts has no order to keep between two calls at once.
    let conn = unsafe { &mut *CONNS.get_ptr_mut(tie.key)? };
    (conn.id == tie.id).then_some(conn)
}

/// The connection of a session without a socket.
#[inline(always)]
fn loose(ssl_call: &SslCall, op: u32, moved: u64) -> Option<&'static mut Conn> {
    let sends = op == op::SEND && ssl_call.elsewhere == 0;
    let begins = if sends {
        beginning(ssl_call.call.ptr, moved)
    } else {
        Beginning::Other
    };
    if let Some(conn) = SSL_LOOSE.get_ptr_mut(ssl_call.ssl) {
        // SAFETY: as in `tied`.
        let conn = unsafe { &mut *conn };
        if begins != Beginning::Connection {
            return Some(conn);
        }
        // The session ended unseen, and another has its place.
        emit::bare(&emit::header(Kind::Close, conn.id), false);
    }
    if begins == Beginning::Other {
        return None;
    }
    let id = conn::new_id()?;
    let unknown: Addr = [0; 16];
    SSL_LOOSE
        .insert(ssl_call.ssl, conn::unused(id, unknown, 0, tls::SEALED), 0)
        .ok()?;
    conn::tell_open(id, unknown, 0, flags::MIDSTREAM);
    // SAFETY: as in `tied`.
    SSL_LOOSE
        .get_ptr_mut(ssl_call.ssl)
        .map(|conn| unsafe { &mut *conn })
}

/// What something written is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beginning {
    /// The first that a client of AMQP sends.
    Connection,
    /// A command of RESP, or a whole frame of AMQP.
    Message,
    Other,
}

#[inline(always)]
fn beginning(at: u64, len: u64) -> Beginning {
    const FRAME_END: u8 = 0xce;
    if len < 8 {
        return Beginning::Other;
    }
    // SAFETY: the helper checks the address.
    let Ok(first) = (unsafe { bpf_probe_read_user(at as *const [u8; 8]) }) else {
        return Beginning::Other;
    };
    let is_message = match first[0] {
        b'A' if first[1] == b'M' && first[2] == b'Q' && first[3] == b'P' && first[4] == 0 => {
            return Beginning::Connection;
        }
        b'*' => {
            let digit = first[1] >= b'1' && first[1] <= b'9';
            let one = first[2] == b'\r' && first[3] == b'\n' && first[4] == b'$';
            let two = first[3] == b'\r' && first[4] == b'\n' && first[5] == b'$';
            digit && (one || two)
        }
        1 | 2 | 8 => {
            let size = u64::from(u32::from_be_bytes([first[3], first[4], first[5], first[6]]));
            if size + 8 > len {
                return Beginning::Other;
            }
            // SAFETY: as above.
            let end: Result<u8, i32> = unsafe { bpf_probe_read_user((at + 7 + size) as *const u8) };
            end == Ok(FRAME_END)
        }
        _ => false,
    };
    if is_message {
        Beginning::Message
    } else {
        Beginning::Other
    }
}

/// A socket call has moved bytes on a connection that is not known to be plain: are they TLS's? If a TLS library made the call, the
/// connection is its session's. A function of its own: most transfers are of plain connections.
#[inline(never)]
pub(super) fn seals(conn: &mut Conn, call: &Call, op: u32, moved: u64) -> bool {
    // A call from before the library's is one whose return passed unseen; this is another's.
    if let Some(ssl_call) = noted_ssl_call(bpf_get_current_pid_tgid())
        && call.enter >= ssl_call.call.enter
    {
        ssl_call.tie = Tie {
            key: call.conn,
            id: conn.id,
        };
        seal(conn);
        return true;
    }
    let record = record_type(call, moved);
    if conn.tls == tls::SEALED || record != NO_RECORD {
        count(Counter::SealedBytes, moved);
        seal(conn);
        // A client's first data. (What TLS 1.3 seals of its handshake goes out behind a record of another type.)
        if record == APPLICATION_DATA && op == op::SEND {
            conn.unread = 1;
        }
        if conn.unread != 0 {
            count(Counter::UnreadBytes, moved);
            let (flow, _) = transfer::flows(conn, op);
            flow.bytes += moved;
        }
        return true;
    }
    conn.judged += 1;
    if (conn.tls == tls::FRESH && op == op::SEND) || conn.judged >= JUDGED_ENOUGH {
        conn.tls = tls::PLAIN;
    }
    false
}

/// From here on only what is inside is told.
#[inline(always)]
fn seal(conn: &mut Conn) {
    if conn.tls == tls::SEALED {
        return;
    }
    let flags = if conn.tls == tls::JOINED {
        flags::MIDSTREAM
    } else {
        0
    };
    conn.tls = tls::SEALED;
    (conn.tx.bytes, conn.tx.run, conn.tx.more) = (0, 0, 0);
    (conn.rx.bytes, conn.rx.run, conn.rx.more) = (0, 0, 0);
    conn.quiet = Quiet::NONE;
    let header = Header {
        flags,
        ..emit::header(Kind::Tls, conn.id)
    };
    emit::bare(&header, true);
}

/// The type of the TLS record that begins with what was moved: RFC 8446 §5.1 has it first, then the version, 3 and at most 4.
#[inline(always)]
fn record_type(call: &Call, moved: u64) -> u8 {
    if moved < 3 || call.shape != shape::BUFFER {
        return NO_RECORD;
    }
    // SAFETY: the helper checks the address.
    match unsafe { bpf_probe_read_user(call.ptr as *const [u8; 3]) } {
        Ok([kind @ 20..=APPLICATION_DATA, 3, 0..=4]) => kind,
        _ => NO_RECORD,
    }
}

/// The thread uses a socket that is not watched: if it does so inside a TLS library's call, the session is none of ours.
#[inline(always)]
pub(super) fn elsewhere(pid_tgid: u64) {
    if let Some(ssl_call) = noted_ssl_call(pid_tgid) {
        ssl_call.elsewhere = 1;
    }
}
