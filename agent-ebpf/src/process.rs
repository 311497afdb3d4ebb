//! Processes that are watched: those that connected to a broker, and their descendants.

use celeryscope_common::Kind;
use celeryscope_common::maps::{Counter, SLOTS_PER_PROCESS};

use crate::maps::{CALLS, PROCS, count};
use crate::{conn, emit, filter};

/// The current process made `child`, a process of its own: it has the same descriptors and is watched alike.
#[inline(always)]
pub(crate) fn forked(parent: u32, child: u32) {
    let Some(bits) = filter::process(parent) else {
        return;
    };
    if PROCS.insert(child, bits, 0).is_err() {
        return count(Counter::ProcsFull, 1);
    }
    let mut slot = 0;
    while slot < SLOTS_PER_PROCESS {
        conn::inherit(parent, child, slot);
        slot += 1;
    }
    emit::bare(&emit::header(Kind::Fork, u64::from(child)), true);
}

/// The current process runs another program. Python's sockets are close-on-exec, so all are taken to be; the user
/// half looks for those that are not, and decides anew what to watch.
#[inline(always)]
pub(crate) fn executed(tgid: u32) {
    if filter::process(tgid).is_none() {
        return;
    }
    conn::drop_all(tgid);
    let _ = PROCS.insert(tgid, 0, 0);
    emit::bare(&emit::header(Kind::Exec, 0), true);
}

/// The current thread ends; with the thread group's leader the process does.
#[inline(always)]
pub(crate) fn exited(pid_tgid: u64) {
    let _ = CALLS.remove(pid_tgid);
    let tgid = filter::tgid(pid_tgid);
    if pid_tgid as u32 != tgid || filter::process(tgid).is_none() {
        return;
    }
    conn::drop_all(tgid);
    let _ = PROCS.remove(tgid);
    emit::bare(&emit::header(Kind::Exit, 0), true);
}
