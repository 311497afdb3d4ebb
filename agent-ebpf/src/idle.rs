//! What an idle program moves is not told: polls that find nothing, and heartbeats.
//!
//! A poll is left out when it is the same, byte for byte, as the last that was told of its connection, and what is read next is the
//! answer that says that there is nothing. So it is held back until the next transfer. Where that is something else, the poll is
//! told as a record without its bytes, before it ([`flags::IMPLIED`]); the poll after it is told in full again, so that a reader
//! who has missed something finds his way within two. Of a heartbeat py-amqp reads first the head and then the last byte, so
//! its head is held back likewise.
//!
//! How many bytes were left out is told before the next record of the connection, in an Idle record: offsets have no holes.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_user};
use celeryscope_common::maps::{Conn, Counter, Quiet, held};
use celeryscope_common::{Header, Kind, LeftOut, flags};

use crate::calls::{Call, op, shape};
use crate::maps::count;
use crate::{emit, filter};

/// [`Call::fate`]: the transfer is to be told.
const TOLD: u64 = 0;
/// It is a poll; to be told with this flag, and if that succeeds the one that the next may repeat.
pub(crate) const POLL: u64 = flags::IMPLIED as u64;
/// It is not to be told.
pub(crate) const LEFT_OUT: u64 = 1 << 32;

/// Shorter polls are always told: kombu's name four lists at least.
const POLL_MIN: u64 = 32;
/// And longer ones.
const POLL_MAX: u64 = 512;
/// A frame's type, channel and length; its last byte follows (AMQP 0-9-1 §4.2.3, §4.2.7).
const HEARTBEAT: [u8; 8] = [8, 0, 0, 0, 0, 0, 0, 0xce];
const HEARTBEAT_HEAD: u64 = 7;

/// What a transfer is, by its bytes alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Poll,
    /// The answer to a poll that found nothing.
    Nothing,
    Heartbeat,
    HeartbeatHead,
    HeartbeatEnd,
    Other,
}

/// Nothing is left out or held back any more, and no poll repeats an earlier one. Only the words that say so are written: every transfer
/// of a connection that is ignored does it, and on this target the whole would be cleared byte by byte.
#[inline(always)]
pub(crate) fn forget(quiet: &mut Quiet) {
    (quiet.idle.sent.bytes, quiet.idle.received.bytes) = (0, 0);
    (quiet.held, quiet.poll_len) = (held::NOTHING, 0);
}

/// Decides what becomes of a transfer that is not counted yet. Where it is to be told, what was left out before it has been by
/// then. A function of its own, so that the verifier's paths through it are not multiplied by what follows.
#[inline(never)]
pub(crate) fn judge(conn: &mut Conn, call: &mut Call, op: u32) {
    let shape = shape_of(call, op, conn.quiet.held);
    let hash = if shape == Shape::Poll {
        hash(call)
    } else {
        UNREADABLE
    };
    if shape != Shape::Other && joins(conn, call, op, shape, hash) {
        call.fate = LEFT_OUT;
        return;
    }
    tell(conn);
    if hash == UNREADABLE {
        call.fate = TOLD;
    } else {
        (conn.quiet.poll, conn.quiet.poll_len) = (hash, 0);
        call.fate = POLL;
    }
}

/// Does the transfer follow what is left out, with nothing that is told in between? Then it is left out, too, or held back.
#[inline(always)]
fn joins(conn: &mut Conn, call: &Call, op: u32, shape: Shape, hash: u64) -> bool {
    let moved = call.moved();
    let (sent, received) = (conn.tx.bytes, conn.rx.bytes);
    // A client that alternates has read before it polls. If not, the next answer may be another command's.
    let alternates = conn.tx.run == 0;
    let quiet = &mut conn.quiet;
    let poll_len = u64::from(quiet.poll_len);
    if quiet.held == held::NOTHING && quiet.idle.sent.bytes | quiet.idle.received.bytes == 0 {
        (quiet.idle.sent.start, quiet.idle.received.start) = (sent, received);
    }
    let (held_sent, held_received) = match quiet.held {
        held::POLL => (poll_len, 0),
        held::HEARTBEAT => (0, HEARTBEAT_HEAD),
        _ => (0, 0),
    };
    // Bytes that passed unseen are in neither.
    if end(&quiet.idle.sent) + held_sent != sent || end(&quiet.idle.received) + held_received != received {
        return false;
    }
    match (shape, quiet.held) {
        (Shape::Poll, held::NOTHING) => {
            if !alternates || moved != poll_len || hash != quiet.poll || hash == UNREADABLE {
                return false;
            }
            hold(quiet, call, held::POLL);
        }
        (Shape::Nothing, held::POLL) => {
            quiet.held = held::NOTHING;
            quiet.idle.sent.bytes += poll_len;
            quiet.idle.received.bytes += moved;
            count(Counter::IdlePolls, 1);
            count(Counter::IdleBytes, poll_len + moved);
        }
        (Shape::HeartbeatHead, held::NOTHING) => hold(quiet, call, held::HEARTBEAT),
        (Shape::HeartbeatEnd, held::HEARTBEAT) | (Shape::Heartbeat, held::NOTHING) => {
            quiet.held = held::NOTHING;
            let len = HEARTBEAT.len() as u64;
            if op == op::SEND {
                quiet.idle.sent.bytes += len;
            } else {
                quiet.idle.received.bytes += len;
            }
            count(Counter::Heartbeats, 1);
            count(Counter::IdleBytes, len);
        }
        _ => return false,
    }
    true
}

#[inline(always)]
fn end(left_out: &LeftOut) -> u64 {
    left_out.start + left_out.bytes
}

#[inline(always)]
fn hold(quiet: &mut Quiet, call: &Call, what: u32) {
    quiet.held = what;
    quiet.held_enter = call.enter;
    // SAFETY: a helper without arguments.
    quiet.held_exit = unsafe { bpf_ktime_get_ns() };
    quiet.held_by = bpf_get_current_pid_tgid();
}

/// Tells what was left out, and what is held back.
#[inline(always)]
fn tell(conn: &mut Conn) {
    let id = conn.id;
    let quiet = &mut conn.quiet;
    if quiet.idle.sent.bytes | quiet.idle.received.bytes != 0 {
        emit::idle(&emit::header(Kind::Idle, id), &quiet.idle);
    }
    if quiet.held != held::NOTHING {
        let (kind, start, total) = if quiet.held == held::POLL {
            (Kind::Send, end(&quiet.idle.sent), quiet.poll_len)
        } else {
            (Kind::Recv, end(&quiet.idle.received), HEARTBEAT_HEAD as u32)
        };
        let header = Header {
            flags: flags::LAST | flags::IMPLIED,
            enter: quiet.held_enter,
            exit: quiet.held_exit,
            pid: (quiet.held_by >> 32) as u32,
            tid: quiet.held_by as u32,
            start,
            total,
            ..emit::header(kind, id)
        };
        emit::bare(&header, false);
        // It answers for one alone.
        (quiet.held, quiet.poll_len) = (held::NOTHING, 0);
    }
    (quiet.idle.sent.bytes, quiet.idle.received.bytes) = (0, 0);
}

#[inline(always)]
fn shape_of(call: &Call, op: u32, held: u32) -> Shape {
    if call.shape != shape::BUFFER {
        return Shape::Other;
    }
    let moved = call.moved();
    let at = call.ptr;
    if op == op::SEND {
        // What is sent in part goes on.
        if call.len != moved {
            return Shape::Other;
        }
        if moved == HEARTBEAT.len() as u64 {
            return heartbeat(at);
        }
        if moved < POLL_MIN || moved > POLL_MAX || !begins_poll(at) {
            return Shape::Other;
        }
        return Shape::Poll;
    }
    // SAFETY: the helper checks the address; so below.
    match moved {
        3 if held == held::POLL => match unsafe { bpf_probe_read_user(at as *const [u8; 3]) } {
            Ok([b'_', b'\r', b'\n']) => Shape::Nothing,
            _ => Shape::Other,
        },
        5 if held == held::POLL => match unsafe { bpf_probe_read_user(at as *const [u8; 5]) } {
            Ok([b'*', b'-', b'1', b'\r', b'\n']) => Shape::Nothing,
            _ => Shape::Other,
        },
        1 if held == held::HEARTBEAT => match unsafe { bpf_probe_read_user(at as *const u8) } {
            Ok(0xce) => Shape::HeartbeatEnd,
            _ => Shape::Other,
        },
        HEARTBEAT_HEAD => match unsafe { bpf_probe_read_user(at as *const [u8; 7]) } {
            Ok([8, 0, 0, 0, 0, 0, 0]) => Shape::HeartbeatHead,
            _ => Shape::Other,
        },
        8 => heartbeat(at),
        _ => Shape::Other,
    }
}

#[inline(always)]
fn heartbeat(at: u64) -> Shape {
    // SAFETY: the helper checks the address.
    match unsafe { bpf_probe_read_user(at as *const u64) } {
        Ok(word) if word == u64::from_ne_bytes(HEARTBEAT) => Shape::Heartbeat,
        _ => Shape::Other,
    }
}

/// Does a command of up to 99 strings begin here whose name is BRPOP?
#[inline(always)]
fn begins_poll(at: u64) -> bool {
    // SAFETY: the helper checks the address.
    let Ok(first) = (unsafe { bpf_probe_read_user(at as *const [u8; 16]) }) else {
        return false;
    };
    if first[0] != b'*' || !first[1].is_ascii_digit() {
        return false;
    }
    if first[2].is_ascii_digit() {
        is_poll::<3>(&first)
    } else {
        is_poll::<2>(&first)
    }
}

#[inline(always)]
fn is_poll<const AT: usize>(first: &[u8; 16]) -> bool {
    first[AT] == b'\r'
        && first[AT + 1] == b'\n'
        && first[AT + 2] == b'$'
        && first[AT + 3] == b'5'
        && first[AT + 4] == b'\r'
        && first[AT + 5] == b'\n'
        && first[AT + 6] == b'B'
        && first[AT + 7] == b'R'
        && first[AT + 8] == b'P'
        && first[AT + 9] == b'O'
        && first[AT + 10] == b'P'
        && first[AT + 11] == b'\r'
        && first[AT + 12] == b'\n'
}

/// No hash is this.
const UNREADABLE: u64 = 0;

/// A hash of the bytes moved, [`POLL_MIN`] to [`POLL_MAX`] of them, and of the process: another's poll tells that it polls, too.
/// Read in pieces of one length, the last overlaps the one before: a length that is not constant would double the verifier's
/// paths with each piece.
#[inline(never)]
fn hash(call: &Call) -> u64 {
    let (at, len) = (call.ptr, call.moved());
    let mut hash = u64::from(filter::tgid(bpf_get_current_pid_tgid()));
    let mut done = 0;
    while done < POLL_MAX {
        if done + POLL_MIN > len {
            break;
        }
        let Some(mixed) = mix(hash, at + done) else {
            return UNREADABLE;
        };
        hash = mixed;
        done += POLL_MIN;
    }
    // Read again: of this one the verifier does not know how many rounds it took.
    match mix(hash, at + call.moved() - POLL_MIN) {
        Some(mixed) => mixed | 1,
        None => UNREADABLE,
    }
}

/// Adds the [`POLL_MIN`] bytes at a user address to a hash.
#[inline(always)]
fn mix(mut hash: u64, at: u64) -> Option<u64> {
    // SAFETY: the helper checks the address.
    let words = unsafe { bpf_probe_read_user(at as *const [u64; 4]) }.ok()?;
    for word in words {
        // 2^64 divided by the golden ratio.
        hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
    }
    Some(hash)
}
