//! A prefork pool's pipes, from the child's side: the tasks it reads, the answers it writes.
//!
//! Known by fixed bytes at fixed offsets of a pickled tuple, whatever the descriptor: opcode and protocol
//! (`80 04|05`), frame (`95` and 8 bytes of length), then the message type as `4b` and a byte. A child reads only
//! TASK (2); it writes ACK (0), READY (1), DEATH (4) and WORKER_UP (15). See billiard's `pool.py`.

use aya_ebpf::helpers::bpf_probe_read_user;
use celeryscope_common::{Header, Kind, flags};

use crate::calls::{Call, op, shape};
use crate::emit;

/// Bytes of a TASK that are copied: name, id, retries, root and parent stand in its first 366.
const TASK_HEAD: u64 = 512;
/// Bytes of an answer that are copied from its start.
const ANSWER_HEAD: u64 = 128;
/// Bytes of a longer answer that are copied from its end: the runtime is among them.
const ANSWER_TAIL: u64 = 32;
/// Length before a frame, when both are written at once.
const PREFIX: u64 = 4;
/// Bytes that must be there to know a frame.
const NEEDED: usize = 14;

/// A read or write of something that is not a tracked connection has returned.
#[inline(never)]
pub(super) fn exit(call: &Call, op: u32, moved: u64) -> Option<()> {
    if moved < NEEDED as u64 || call.shape != shape::BUFFER {
        return None;
    }
    let skip = if starts(call.ptr)? {
        0
    } else if op == op::SEND && moved >= PREFIX + NEEDED as u64 && starts(call.ptr + PREFIX)? {
        PREFIX
    } else {
        return None;
    };
    let (from, total) = (call.ptr + skip, moved - skip);
    // SAFETY: the helper checks the address.
    let kind: [u8; 3] = unsafe { bpf_probe_read_user((from + 11) as *const [u8; 3]) }.ok()?;
    if kind[0] != 0x4b {
        return None;
    }
    let (kind, head) = match (op, kind[1]) {
        (op::RECV, 2) if kind[2] == b'(' => (Kind::PipeRead, TASK_HEAD),
        (op::SEND, 0 | 1 | 4 | 15) => (Kind::PipeWrite, ANSWER_HEAD),
        _ => return None,
    };
    let mut header = Header {
        enter: call.enter,
        total: total as u32,
        ..emit::header_of(call.thread, kind, u64::from(call.fd))
    };
    let tailed = op == op::SEND && total > ANSWER_HEAD;
    header.flags = if tailed { 0 } else { flags::LAST };
    let _ = emit::user(&header, from, if total < head { total } else { head });
    if tailed {
        let at = if total - ANSWER_HEAD < ANSWER_TAIL {
            ANSWER_HEAD
        } else {
            total - ANSWER_TAIL
        };
        header.flags = flags::LAST;
        header.at = at as u32;
        let _ = emit::user(&header, from + at, total - at);
    }
    Some(())
}

/// Does a framed pickle begin here?
#[inline(always)]
fn starts(at: u64) -> Option<bool> {
    // SAFETY: the helper checks the address.
    let bytes = unsafe { bpf_probe_read_user(at as *const [u8; 3]) }.ok()?;
    Some(bytes[0] == 0x80 && (bytes[1] == 4 || bytes[1] == 5) && bytes[2] == 0x95)
}
