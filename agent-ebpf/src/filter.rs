//! Is this process, this descriptor, this port ours? Asked first by every probe: nearly always the answer is no.

use celeryscope_common::maps::{Fd, fd_hint, fd_key, ignored_hint, pool_hint, port_bit, process as bits};

use crate::maps::{FD_HINTS, FDS, IGNORED, IGNORED_HINTS, POOL_HINTS, PORTS, PROCS};

/// Bits of `maps::process` when the process is watched.
#[inline(always)]
pub(crate) fn process(tgid: u32) -> Option<u32> {
    // SAFETY: one aligned word.
    unsafe { PROCS.get(tgid) }.copied()
}

/// May the process's pipes be those to a pool's main process?
#[inline(always)]
pub(crate) fn is_in_pool(tgid: u32) -> bool {
    // SAFETY: one aligned word.
    POOL_HINTS.get(pool_hint(tgid)) != Some(&0) && process(tgid).is_some_and(|of| of & bits::WATCH_PIPES != 0)
}

/// The connection behind a descriptor.
#[inline(always)]
pub(crate) fn descriptor(tgid: u32, fd: u32) -> Option<Fd> {
    // SAFETY: one aligned word.
    if FD_HINTS.get(fd_hint(tgid, fd)) == Some(&0) {
        return None;
    }
    // SAFETY: a torn read could only mix two generations of the same descriptor of one process.
    unsafe { FDS.get(fd_key(tgid, fd)) }.copied()
}

/// Is the connection not Celery's, so that its bytes are not copied?
#[inline(always)]
pub(crate) fn ignored(conn: u64) -> bool {
    IGNORED_HINTS.get(ignored_hint(conn)) != Some(&0) && IGNORED.get_ptr(conn).is_some()
}

/// Is it a broker's port?
#[inline(always)]
pub(crate) fn port(port: u16) -> bool {
    let (word, bit) = port_bit(port);
    // SAFETY: one aligned word.
    PORTS.get(word).is_some_and(|bits| bits & bit != 0)
}

/// The process id in the upper half of `bpf_get_current_pid_tgid`.
#[inline(always)]
pub(crate) fn tgid(pid_tgid: u64) -> u32 {
    (pid_tgid >> 32) as u32
}
