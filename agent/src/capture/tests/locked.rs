//! System calls of a thread that is locked down. They are here for what is `unsafe` about them; they need no privileges.

use std::io;

use aya_obj::generated::bpf_cmd;

use crate::lock_down::{self, Mode, Needs};

/// Scenario: on a locked-down thread, calls with arguments that the kernel would find fault with, each of those that would
/// start, enter, or change something else.
/// Guarantees: each is refused before its arguments are looked at; those that watching takes are not.
#[test]
fn refused_calls() {
    let locked = || {
        lock_down::watcher(Mode::On, Needs::default()).unwrap();
        for (name, call, arguments) in forbidden() {
            assert_eq!(errno(call, arguments), libc::EPERM, "{name}");
        }
        for (name, call, arguments) in allowed() {
            assert_ne!(errno(call, arguments), libc::EPERM, "{name}");
        }
        assert_eq!(errno(libc::SYS_clone3, [0; 3]), libc::ENOSYS);
    };
    std::thread::spawn(locked).join().unwrap();
}

/// Scenario: a kernel whose probes on TLS libraries go through performance events; one whose don't.
/// Guarantees: they are to be had on the first only.
#[test]
fn performance_events_where_needed() {
    for perf_events in [false, true] {
        let locked = move || {
            let needs = Needs {
                perf_events,
                ..Needs::default()
            };
            lock_down::watcher(Mode::On, needs).unwrap();
            let error = errno(libc::SYS_perf_event_open, [0; 3]);
            assert_eq!(error == libc::EPERM, !perf_events, "{error}");
        };
        std::thread::spawn(locked).join().unwrap();
    }
}

type Call = (&'static str, libc::c_long, [libc::c_long; 3]);

/// None would do anything where it is not refused: null pointers, numbers that nobody has.
fn forbidden() -> Vec<Call> {
    let nobody = libc::c_long::from(i32::MAX);
    let bpf = |command: bpf_cmd| [command as libc::c_long, 0, 0];
    let socket = |family: libc::c_int| [libc::c_long::from(family), -1, 0];
    vec![
        ("execve", libc::SYS_execve, [0; 3]),
        ("execveat", libc::SYS_execveat, [-1, 0, 0]),
        (
            "ptrace",
            libc::SYS_ptrace,
            [libc::PTRACE_ATTACH.into(), nobody, 0],
        ),
        ("process_vm_readv", libc::SYS_process_vm_readv, [nobody, 0, 0]),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, [-1, -1, 0]),
        ("kill", libc::SYS_kill, [nobody, 0, 0]),
        ("tgkill", libc::SYS_tgkill, [nobody, nobody, 0]),
        ("mount", libc::SYS_mount, [1, 1, 1]),
        ("umount2", libc::SYS_umount2, [1, -1, 0]),
        ("setns", libc::SYS_setns, [-1, 0, 0]),
        ("unshare", libc::SYS_unshare, [-1, 0, 0]),
        ("finit_module", libc::SYS_finit_module, [-1, 0, 0]),
        ("reboot", libc::SYS_reboot, [0; 3]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [0; 3]),
        ("keyctl", libc::SYS_keyctl, [-1, 0, 0]),
        ("bpf: make a map", libc::SYS_bpf, bpf(bpf_cmd::BPF_MAP_CREATE)),
        ("bpf: load", libc::SYS_bpf, bpf(bpf_cmd::BPF_PROG_LOAD)),
        (
            "bpf: others' maps",
            libc::SYS_bpf,
            bpf(bpf_cmd::BPF_MAP_GET_FD_BY_ID),
        ),
        ("AF_PACKET", libc::SYS_socket, socket(libc::AF_PACKET)),
        ("AF_ALG", libc::SYS_socket, socket(libc::AF_ALG)),
        ("AF_VSOCK", libc::SYS_socket, socket(libc::AF_VSOCK)),
        // A process: without CLONE_THREAD. Flags that the kernel refuses in any case.
        ("clone", libc::SYS_clone, [libc::CLONE_SIGHAND.into(), 0, 0]),
    ]
}

fn allowed() -> Vec<Call> {
    let mut calls: Vec<Call> = vec![
        ("socket", libc::SYS_socket, [libc::AF_INET.into(), -1, 0]),
        (
            "tgkill of its own",
            libc::SYS_tgkill,
            [std::process::id().into(), -1, 0],
        ),
    ];
    // Kernels before 5.18 let nobody else near them.
    if crate::capture::missing_privileges().is_empty() {
        let lookup = bpf_cmd::BPF_MAP_LOOKUP_ELEM as libc::c_long;
        calls.push(("bpf: look up", libc::SYS_bpf, [lookup, 0, 0]));
    }
    calls
}

/// What the call fails with.
fn errno(call: libc::c_long, [a, b, c]: [libc::c_long; 3]) -> i32 {
    // SAFETY: null pointers and numbers that refer to nothing; the kernel refuses all of them.
    let result = unsafe { libc::syscall(call, a, b, c, 0, 0, 0) };
    assert_eq!(result, -1, "call {call} succeeded");
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
