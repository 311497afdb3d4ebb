//! Every system call, at the two tracepoints that all of them pass: the tracepoint back end's way on x86-64 where the kernel lets a program see
//! the registers that it saved when a call was entered (Linux 5.15, with BTF), and moves no thread aside while a program runs: what is
//! passed over would not be missed by anybody. Elsewhere [`send`](super::send), [`recv`](super::recv) and what belongs to them are attached
//! to each call by itself, where the kernel takes four times as long to get to a program as here.
//!
//! At a return the registers still hold what the call was given, so calls are looked at there, and nothing is kept of them but when a
//! write began: a publish begins when its write does. Whose bytes they are is known by the descriptor when the call returns. A thread that
//! closes a connection while another reads from it, and has opened the next by the same number before that read returns, has what was read
//! told of the next.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_ebpf::macros::{map, raw_tracepoint};
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::RawTracePointContext;
use aya_log_ebpf::debug;

use super::transfer::{Args, connection, moved, note};
use super::{NOT_STREAM, lifetime, process as lives};
use crate::calls::{Call, op, shape};
use crate::{conn, filter};

/// The call that has returned on this CPU, for as long as the program runs.
#[map]
static RETURNED: PerCpuArray<Call> = PerCpuArray::with_max_entries(1, 0);

/// Some bits of a thread's id → its write. Threads share an element: of two that write at once the one that began first is taken to
/// have begun when it returned.
#[map]
static WRITES: Array<Write> = Array::with_max_entries(WRITES_SIZE, 0);

/// A power of two.
const WRITES_SIZE: u32 = 16_384;

/// Value of [`WRITES`].
#[derive(Clone, Copy)]
#[repr(C)]
struct Write {
    /// Who began it, as `pid_tgid`.
    thread: u64,
    /// When.
    enter: u64,
}

/// Numbers of x86-64's system calls.
mod number {
    pub(super) const READ: u64 = 0;
    pub(super) const WRITE: u64 = 1;
    pub(super) const CLOSE: u64 = 3;
    pub(super) const READV: u64 = 19;
    pub(super) const WRITEV: u64 = 20;
    pub(super) const DUP: u64 = 32;
    pub(super) const DUP2: u64 = 33;
    pub(super) const CONNECT: u64 = 42;
    pub(super) const SENDTO: u64 = 44;
    pub(super) const RECVFROM: u64 = 45;
    pub(super) const SENDMSG: u64 = 46;
    pub(super) const RECVMSG: u64 = 47;
    pub(super) const FCNTL: u64 = 72;
    pub(super) const EXIT_GROUP: u64 = 231;
    pub(super) const DUP3: u64 = 292;
    pub(super) const CLOSE_RANGE: u64 = 436;
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
    orig_ax: u64,
}

/// The beginning of `struct task_struct`: x86's `struct thread_info`.
#[repr(C)]
struct Task {
    flags: u64,
    syscall_work: u64,
    status: u32,
}

/// `sys_enter`: regs, id
#[raw_tracepoint(tracepoint = "sys_enter")]
pub(crate) fn enter_any(ctx: RawTracePointContext) -> i32 {
    match ctx.arg::<u64>(1) {
        call @ (number::WRITE | number::WRITEV | number::SENDTO | number::SENDMSG) => writes(call),
        call @ (number::CLOSE | number::CLOSE_RANGE | number::EXIT_GROUP) if is_64_bit() => {
            let registers = registers();
            let (first, second, third) = (registers.di as u32, registers.si as u32, registers.dx as u32);
            let tgid = filter::tgid(bpf_get_current_pid_tgid());
            match call {
                // The descriptor goes whatever the result, and after the return its number may already be another thread's.
                number::CLOSE => conn::drop_fd(tgid, first),
                number::CLOSE_RANGE => lifetime::close_range(tgid, first, second, third),
                _ => lives::ending(tgid, first),
            }
        }
        _ => {}
    }
    0
}

/// `sys_exit`: regs, ret
#[raw_tracepoint(tracepoint = "sys_exit")]
pub(crate) fn exit_any(ctx: RawTracePointContext) -> i32 {
    let result = ctx.arg::<i64>(1);
    let registers = registers();
    match registers.orig_ax {
        call @ (number::READ | number::RECVFROM | number::RECVMSG | number::READV) => {
            if result > 0 {
                let _ = returned(call, op::RECV, registers, result as u64);
            }
        }
        call @ (number::WRITE | number::SENDTO | number::SENDMSG | number::WRITEV) => {
            if result > 0 {
                let _ = returned(call, op::SEND, registers, result as u64);
            }
        }
        number::CONNECT => {
            let fd = registers.di as u32;
            if lifetime::is_under_way(result) && is_64_bit() && connected(fd, registers.si) {
                let tgid = filter::tgid(bpf_get_current_pid_tgid());
                debug!(&ctx, "process {} connected {}", tgid, fd);
            }
        }
        call @ (number::DUP | number::DUP2 | number::DUP3 | number::FCNTL) => {
            let (old, second) = (registers.di as u32, registers.si as u32);
            let copies = match call {
                number::FCNTL => lifetime::copies(second),
                number::DUP => true,
                _ => old != second,
            };
            if result >= 0 && copies && is_64_bit() {
                let replaces = call == number::DUP2 || call == number::DUP3;
                duplicated(old, result as u32, replaces);
            }
        }
        _ => {}
    }
    0
}

/// What the current thread's call was given.
#[inline(always)]
fn registers() -> &'static Registers {
    // SAFETY: of the current thread, which is in a system call and so has them; the verifier checks that there is what is read.
    unsafe { &*(bpf_task_pt_regs(bpf_get_current_task_btf()) as *const Registers) }
}

/// Is the current thread's call made as 64-bit programs make it? What others number is another call.
#[inline(always)]
fn is_64_bit() -> bool {
    const TS_COMPAT: u32 = 2;
    // SAFETY: the verifier knows the pointer's type and checks the member; the kernel guards the load.
    let status =
        unsafe { (&raw const (*(bpf_get_current_task_btf() as *const Task)).status).read_volatile() };
    status & TS_COMPAT == 0
}

/// The current thread begins to write something. When, is kept where the hints say that it may be ours: to know would cost more than to
/// keep it, and to read the clock more than to ask them.
#[inline(always)]
fn writes(number: u64) {
    let thread = bpf_get_current_pid_tgid();
    let tgid = filter::tgid(thread);
    if !(number == number::WRITE && filter::may_be_in_pool(tgid))
        && !filter::may_be_known(tgid, registers().di as u32)
    {
        return;
    }
    if let Some(write) = WRITES.get_ptr_mut(element(thread)) {
        // SAFETY: a helper without arguments; an element's two words, of which another thread may have put one there, which only
        // makes that thread's time be given up.
        unsafe {
            let enter = bpf_ktime_get_ns();
            *write = Write { thread, enter };
        }
    }
}

/// The thread's element of [`WRITES`]. Neighbours are not to share a cache line.
#[inline(always)]
fn element(thread: u64) -> u32 {
    (thread as u32).wrapping_mul(0x9e37_79b1) >> 18
}

/// A read or a write moved so many bytes. Arguments: fd; buffer, vector or message; length; flags.
#[inline(always)]
fn returned(number: u64, op: u32, registers: &Registers, bytes: u64) -> Option<()> {
    let thread = bpf_get_current_pid_tgid();
    let fd = registers.di as u32;
    let conn = connection(thread, fd, number == number::READ || number == number::WRITE)?;
    let (shape, len, flags) = match number {
        number::READ | number::WRITE => (shape::BUFFER, registers.dx, 0),
        number::READV | number::WRITEV => (shape::VECTOR, registers.dx, 0),
        number::RECVFROM => (shape::BUFFER, registers.dx, registers.r10),
        number::RECVMSG => (shape::MESSAGE, 0, registers.dx),
        number::SENDTO => (shape::BUFFER, registers.dx, 0),
        _ => (shape::MESSAGE, 0, 0),
    };
    if flags as u32 & NOT_STREAM != 0 || !is_64_bit() {
        return None;
    }
    // SAFETY: this CPU's own, and nothing else runs on it before this program ends.
    let call = unsafe { &mut *RETURNED.get_ptr_mut(0)? };
    call.thread = thread;
    let args = Args {
        op,
        shape,
        fd,
        ptr: registers.si,
        len,
    };
    note(call, &args, conn);
    if op == op::SEND
        && let Some(write) = WRITES.get(element(thread))
        && write.thread == thread
    {
        call.enter = write.enter;
    }
    moved(call, op, bytes)
}

/// The current process has connected a descriptor to the peer at this user address. Gives whether that is a broker. A function of its own:
/// its stack is not to be there for all calls.
#[inline(never)]
fn connected(fd: u32, peer: u64) -> bool {
    let Some((addr, port)) = lifetime::peer(peer) else {
        return false;
    };
    if !filter::port(port) {
        return false;
    }
    lifetime::connected(filter::tgid(bpf_get_current_pid_tgid()), fd, addr, port);
    true
}

/// `new` is `old` from here on; where it `replaces`, it was something else before.
#[inline(never)]
fn duplicated(old: u32, new: u32, replaces: bool) {
    let tgid = filter::tgid(bpf_get_current_pid_tgid());
    if replaces {
        conn::drop_fd(tgid, new);
    }
    if let Some(known) = filter::descriptor(tgid, old) {
        conn::add_fd(tgid, new, known.conn);
    }
}
