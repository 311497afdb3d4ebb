//! Calls of TLS libraries under way, and which connection a TLS session belongs to.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, LruHashMap};
use celeryscope_common::maps::{Conn, Counter};

use crate::calls::{Call, count_under_way, op, under_way};
use crate::maps::count;

/// `pid_tgid` → the call of a TLS library that the thread is in, which may make calls of its own. The element stays for the next;
/// removed when the thread exits.
#[map]
pub(crate) static SSL_CALLS: HashMap<u64, SslCall> = HashMap::with_max_entries(8192, 0);

/// TLS session → its connection. Found by the socket calls that a TLS library's calls make; what is pushed out is found again by
/// the next.
#[map]
pub(crate) static SSL_CONNS: LruHashMap<Ssl, Tie> = LruHashMap::with_max_entries(16_384, 0);

/// TLS session → connection, where the library's calls make no socket calls (the bytes go through memory) and the first bytes are
/// those of a broker's client.
#[map]
pub(crate) static SSL_LOOSE: LruHashMap<Ssl, Conn> = LruHashMap::with_max_entries(1024, 0);

/// One call of a TLS library in the words that count what is under way.
const UNDER_WAY: u64 = 1 << 32;

/// A TLS session: the process, and the address of its `SSL` in it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Ssl {
    pub(crate) tgid: u64,
    pub(crate) at: u64,
}

/// Value of [`SSL_CONNS`].
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Tie {
    /// Key in [`CONNS`]; 0 for none.
    pub(crate) key: u64,
    /// The connection's id: the key may be another's by now.
    pub(crate) id: u64,
}

impl Tie {
    pub(crate) const NONE: Self = Self { key: 0, id: 0 };
}

/// Value of [`SSL_CALLS`]: arguments kept from a TLS library's call for its return.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct SslCall {
    /// The transfer; its `conn` is not used.
    pub(crate) call: Call,
    /// The session.
    pub(crate) ssl: Ssl,
    /// Where the call puts the number of bytes moved; 0 when it returns it.
    pub(crate) moved_at: u64,
    /// The watched connection on which the call has moved bytes.
    pub(crate) tie: Tie,
    /// 1 when it has used a socket that is not watched.
    pub(crate) elsewhere: u64,
}

impl SslCall {
    const IDLE: Self = Self {
        call: Call::IDLE,
        ssl: Ssl { tgid: 0, at: 0 },
        moved_at: 0,
        tie: Tie::NONE,
        elsewhere: 0,
    };
}

/// The calling thread's element of [`SSL_CALLS`], made if need be.
#[inline(always)]
pub(crate) fn ssl_call_of(pid_tgid: u64) -> Option<&'static mut SslCall> {
    if let Some(call) = SSL_CALLS.get_ptr_mut(pid_tgid) {
        // SAFETY: an element of this thread is used by this thread alone.
        return Some(unsafe { &mut *call });
    }
    if SSL_CALLS.insert(pid_tgid, SslCall::IDLE, 0).is_err() {
        count(Counter::CallsFull, 1);
        return None;
    }
    // SAFETY: as above.
    SSL_CALLS.get_ptr_mut(pid_tgid).map(|call| unsafe { &mut *call })
}

/// Notes that the thread is in a call of a TLS library.
#[inline(always)]
pub(crate) fn begin_ssl(pid_tgid: u64, call: &mut SslCall, op: u32) {
    if call.call.op == op::IDLE {
        count_under_way(pid_tgid, UNDER_WAY);
    }
    (call.call.op, call.call.thread) = (op, pid_tgid);
}

/// The call is over; what it was.
#[inline(always)]
pub(crate) fn end_ssl(pid_tgid: u64, call: &mut SslCall) -> u32 {
    let op = core::mem::replace(&mut call.call.op, op::IDLE);
    if op != op::IDLE {
        count_under_way(pid_tgid, UNDER_WAY.wrapping_neg());
    }
    op
}

/// The call of a TLS library that the thread is in.
#[inline(always)]
pub(crate) fn noted_ssl_call(pid_tgid: u64) -> Option<&'static mut SslCall> {
    if under_way(pid_tgid) < UNDER_WAY {
        return None;
    }
    let call = SSL_CALLS.get_ptr_mut(pid_tgid)?;
    // SAFETY: an element of this thread is used by this thread alone.
    let call = unsafe { &mut *call };
    (call.call.op != op::IDLE).then_some(call)
}

/// The thread ends.
#[inline(always)]
pub(crate) fn forget_ssl_calls(pid_tgid: u64) {
    if let Some(call) = noted_ssl_call(pid_tgid) {
        end_ssl(pid_tgid, call);
    }
    let _ = SSL_CALLS.remove(pid_tgid);
}
