//! Processes that are watched: those that connected to a broker, and their descendants.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::bpf_get_current_comm;
use celeryscope_common::maps::{Counter, SLOTS_PER_PROCESS, process as bits};
use celeryscope_common::{Header, Kind, flags};

use crate::calls::forget_calls;
use crate::maps::{EXPECTED, PROCS, STATUS, count, hint_at_pool};
use crate::sessions::forget_ssl_calls;
use crate::{conn, emit, filter};

/// The current process has to do with a broker. Gives whether there was room for it.
#[inline(always)]
pub(crate) fn watch(tgid: u32) -> bool {
    let watched = filter::process(tgid).is_some() || PROCS.insert(tgid, 0, u64::from(BPF_NOEXIST)).is_ok();
    if !watched {
        count(Counter::ProcsFull, 1);
    }
    watched
}

/// The current process made `child`, a process of its own: it has the same descriptors and is watched. False when the parent is
/// not watched.
#[inline(always)]
pub(crate) fn forked(parent: u32, child: u32) -> bool {
    let Some(own) = filter::process(parent) else {
        return false;
    };
    let inherited = bits::inherited(own);
    if inherited & bits::WATCH_PIPES != 0 {
        hint_at_pool(child);
    }
    if PROCS.insert(child, inherited, 0).is_err() {
        count(Counter::ProcsFull, 1);
        return false;
    }
    let mut slot = 0;
    while slot < SLOTS_PER_PROCESS {
        conn::inherit(parent, child, slot);
        slot += 1;
    }
    emit::bare(&emit::header(Kind::Fork, u64::from(child)), true);
    true
}

/// The current process runs another program. Python's sockets are close-on-exec, so all are taken to be; the user
/// half looks for those that are not, and decides anew what to watch.
#[inline(always)]
pub(crate) fn executed(tgid: u32) {
    if filter::process(tgid).is_none() {
        if is_expected() {
            let header = Header {
                flags: flags::STRANGER,
                ..emit::header(Kind::Exec, 0)
            };
            emit::bare(&header, true);
        }
        return;
    }
    conn::drop_all(tgid);
    let _ = PROCS.insert(tgid, 0, 0);
    // Its other threads were killed, which looked like its own end.
    let _ = STATUS.remove(tgid);
    emit::bare(&emit::header(Kind::Exec, 0), true);
}

/// Is the current process called what the user half waits for?
#[inline(always)]
fn is_expected() -> bool {
    let Ok(name) = bpf_get_current_comm() else {
        return false;
    };
    EXPECTED.get_ptr(name).is_some()
}

/// The current process is about to end with this wait status. The first to say so is right: what follows is the end
/// of its other threads.
#[inline(always)]
pub(crate) fn ending(tgid: u32, status: u32) {
    if filter::process(tgid).is_some() {
        let _ = STATUS.insert(tgid, status, u64::from(BPF_NOEXIST));
    }
}

/// The current thread ends; with the thread group's leader the process does.
#[inline(always)]
pub(crate) fn exited(pid_tgid: u64) {
    forget_calls(pid_tgid);
    forget_ssl_calls(pid_tgid);
    let tgid = filter::tgid(pid_tgid);
    if pid_tgid as u32 != tgid || filter::process(tgid).is_none() {
        return;
    }
    conn::drop_all(tgid);
    let _ = PROCS.remove(tgid);
    // SAFETY: one aligned word.
    let status = unsafe { STATUS.get(tgid) }.copied().unwrap_or_default();
    let _ = STATUS.remove(tgid);
    emit::bare(&emit::header(Kind::Exit, u64::from(status)), true);
}
