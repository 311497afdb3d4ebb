//! Calls that read, seen at their return alone: what they were given still stands in the registers that the kernel saved when it was
//! entered. Half the hooks of [`recv`](super::recv), and nothing to be kept between two of them. For kernels that let a program see
//! those registers (Linux 5.15, with BTF), on x86-64, and that move no thread aside while a program runs: a return that
//! is passed over would not be missed by anybody.
//!
//! Whose bytes they are is known by the descriptor when the call returns. A thread that closes a connection while another reads from it,
//! and has opened the next by the same number before that read returns, has what was read told of the next.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};
use aya_ebpf::macros::{map, tracepoint};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::TracePointContext;

use super::transfer::{Args, connection, moved, note};
use super::{NOT_STREAM, result};
use crate::calls::{Call, op, shape};

/// The call that has returned on this CPU, for as long as the program runs.
#[map]
static RETURNED: PerCpuArray<Call> = PerCpuArray::with_max_entries(1, 0);

/// Numbers of x86-64's system calls.
mod number {
    pub(super) const READ: u32 = 0;
    pub(super) const READV: u32 = 19;
    pub(super) const RECVFROM: u32 = 45;
    pub(super) const RECVMSG: u32 = 47;
}

/// x86-64's `struct pt_regs`, as far as it is read.
#[repr(C)]
struct Registers {
    before: [u64; 7],
    r10: u64,
    between: [u64; 4],
    dx: u64,
    si: u64,
    di: u64,
}

/// `syscalls:sys_exit_{recvfrom,recvmsg,read,readv}`
#[tracepoint]
pub(crate) fn read_returned(ctx: TracePointContext) -> u32 {
    let result = result(&ctx);
    if result > 0 {
        let _ = returned(super::number(&ctx), result as u64);
    }
    0
}

/// A read moved so many bytes. Arguments: fd; buffer, vector or message; length; flags.
#[inline(always)]
fn returned(number: u32, bytes: u64) -> Option<()> {
    let pid_tgid = bpf_get_current_pid_tgid();
    // SAFETY: of the current thread, which is in a system call and so has them; the verifier checks that there is what is read.
    let registers = unsafe { &*(bpf_task_pt_regs(bpf_get_current_task_btf()) as *const Registers) };
    let fd = registers.di as u32;
    let conn = connection(pid_tgid, fd, number == number::READ)?;
    let (shape, len, flags) = match number {
        number::READ => (shape::BUFFER, registers.dx, 0),
        number::READV => (shape::VECTOR, registers.dx, 0),
        number::RECVFROM => (shape::BUFFER, registers.dx, registers.r10),
        number::RECVMSG => (shape::MESSAGE, 0, registers.dx),
        _ => return None,
    };
    if flags as u32 & NOT_STREAM != 0 {
        return None;
    }
    // SAFETY: this CPU's own, and nothing else runs on it before this program ends.
    let call = unsafe { &mut *RETURNED.get_ptr_mut(0)? };
    call.thread = pid_tgid;
    let args = Args {
        op: op::RECV,
        shape,
        fd,
        ptr: registers.si,
        len,
    };
    note(call, &args, conn);
    moved(call, args.op, bytes)
}
