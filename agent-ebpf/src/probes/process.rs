//! Processes that begin, change and end.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use aya_log_ebpf::debug;

use super::{arg, field};
use crate::{filter, process};

const CLONE_THREAD: u64 = 0x1_0000;
const SIG_DFL: u64 = 0;
/// Signals whose default is not to end the process: SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG and
/// SIGWINCH, a bit for each. (Architectures on which they are numbered otherwise, as mips, are not supported.)
const HARMLESS: u64 = 1 << 17 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 23 | 1 << 28;

/// `task:task_newtask`: pid at 8, clone_flags at 32. Runs in the parent before the child does. Unlike
/// `sched:sched_process_fork` it tells threads from processes, and its layout never changed.
#[tracepoint]
pub(crate) fn newtask(ctx: TracePointContext) -> u32 {
    if field::<u64>(&ctx, 32) & CLONE_THREAD == 0 {
        let parent = filter::tgid(bpf_get_current_pid_tgid());
        let child = field::<u32>(&ctx, 8);
        if process::forked(parent, child) {
            debug!(&ctx, "process {} made {}", parent, child);
        }
    }
    0
}

twice! {
    /// `syscalls:sys_enter_exit_group`: error_code
    #[tracepoint]
    fn enter_exit_group, enter_exit_group_2(ctx: TracePointContext) -> u32 {
        let code = arg(&ctx, 0) as u32 & 0xff;
        process::ending(filter::tgid(bpf_get_current_pid_tgid()), code << 8);
        0
    }
}

/// `signal:signal_deliver`: sig at 8, sa_handler at 24. Runs in the thread that the signal is delivered to.
#[tracepoint]
pub(crate) fn signal_deliver(ctx: TracePointContext) -> u32 {
    let signal = field::<u32>(&ctx, 8);
    if field::<u64>(&ctx, 24) == SIG_DFL && signal < 64 && HARMLESS >> signal & 1 == 0 {
        process::ending(filter::tgid(bpf_get_current_pid_tgid()), signal);
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
