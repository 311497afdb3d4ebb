//! Processes that begin, change and end.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;

use super::field;
use crate::{filter, process};

const CLONE_THREAD: u64 = 0x1_0000;

/// `task:task_newtask`: pid at 8, clone_flags at 32. Runs in the parent before the child does. Unlike
/// `sched:sched_process_fork` it tells threads from processes, and its layout never changed.
#[tracepoint]
pub(crate) fn newtask(ctx: TracePointContext) -> u32 {
    if field::<u64>(&ctx, 32) & CLONE_THREAD == 0 {
        process::forked(filter::tgid(bpf_get_current_pid_tgid()), field(&ctx, 8));
    }
    0
}

/// `sched:sched_process_exec`
#[tracepoint]
pub(crate) fn exec(_ctx: TracePointContext) -> u32 {
    process::executed(filter::tgid(bpf_get_current_pid_tgid()));
    0
}

/// `sched:sched_process_exit`
#[tracepoint]
pub(crate) fn exit(_ctx: TracePointContext) -> u32 {
    process::exited(bpf_get_current_pid_tgid());
    0
}
