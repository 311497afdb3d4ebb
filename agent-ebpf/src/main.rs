//! celeryscope's kernel half: copies what the watched processes exchange with a broker into one ring buffer.
//!
//! Knows sockets, descriptors and processes, and nothing of RESP, AMQP or Celery beyond the fixed bytes that tell a
//! pool's frames ([`probes::pipe`]) and what an idle program moves ([`idle`]). Needs Linux 5.8. Three back ends share everything but their hooks: `fentry` and `kprobe`
//! watch TCP's own functions and read the kernel's structures; `tracepoint` reads only the arguments of system calls and the
//! caller's memory, so that it runs where the kernel is locked down.
//!
//! On any other target than BPF this is an empty program, so that the workspace builds and lints as a whole.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod address;
#[cfg(target_arch = "bpf")]
mod calls;
#[cfg(target_arch = "bpf")]
mod conn;
#[cfg(target_arch = "bpf")]
mod emit;
#[cfg(target_arch = "bpf")]
mod filter;
#[cfg(target_arch = "bpf")]
mod idle;
#[cfg(target_arch = "bpf")]
mod iter;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod probes;
#[cfg(target_arch = "bpf")]
mod process;
#[cfg(target_arch = "bpf")]
mod sessions;
#[cfg(target_arch = "bpf")]
mod sock;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

/// A reachable panic becomes an endless loop, which the verifier refuses.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers such as `bpf_probe_read_user` are open to GPL-compatible programs only; this one is under both licences.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
