//! The system calls that nobody in the agent makes after it has attached, refused by seccomp.
//!
//! A list of what is refused and not of what is allowed: what the runtime, the C library and a TLS stack call changes from
//! release to release, what an intruder would call does not.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use aya_obj::generated::bpf_cmd;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::Needs;

/// Said where there is none.
pub(super) const NONE: &str = "the kernel has no seccomp filters";

/// There since seccomp filters can be asked what they can do (Linux 4.14).
const ACTIONS: &str = "/proc/sys/kernel/seccomp/actions_avail";

/// Never made.
const REFUSED: &[libc::c_long] = &[
    // Other programs: none is executed, no process is made.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes: looked at through /proc only.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kcmp,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    // File systems and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_userfaultfd,
    libc::SYS_personality,
    // It makes system calls that no filter sees.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
];

/// What is done with maps, and links for processes that come later.
const BPF: [bpf_cmd; 5] = [
    bpf_cmd::BPF_MAP_LOOKUP_ELEM,
    bpf_cmd::BPF_MAP_UPDATE_ELEM,
    bpf_cmd::BPF_MAP_DELETE_ELEM,
    bpf_cmd::BPF_MAP_GET_NEXT_KEY,
    bpf_cmd::BPF_LINK_CREATE,
];

/// To a collector, a name server, and what a C library asks to resolve names.
const FAMILIES: [libc::c_int; 4] = [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX, libc::AF_NETLINK];

/// Another numbering of the same calls, where the kernel has it; a filter that names only the usual would let them pass.
#[cfg(target_arch = "x86_64")]
const X32: libc::c_long = 0x4000_0000;
/// Calls that have numbers of their own there (execve, ptrace, kexec_load, process_vm_readv, process_vm_writev, execveat).
#[cfg(target_arch = "x86_64")]
const X32_OWN: [libc::c_long; 6] = [520, 521, 528, 539, 540, 545];

/// Does this kernel have such filters?
pub(super) fn supported() -> bool {
    Path::new(ACTIONS).exists()
}

/// Refuses them to this thread and to those that it will start.
///
/// # Errors
/// The kernel takes no filter.
pub(super) fn confine(needs: Needs) -> Result<()> {
    let install = || -> Result<()> {
        for (rules, error) in [(refused(needs)?, libc::EPERM), (absent(), libc::ENOSYS)] {
            let filter: BpfProgram = SeccompFilter::new(
                rules,
                SeccompAction::Allow,
                SeccompAction::Errno(error.cast_unsigned()),
                TargetArch::try_from(std::env::consts::ARCH)?,
            )?
            .try_into()?;
            seccompiler::apply_filter(&filter)?;
        }
        Ok(())
    };
    install().context("can't lock down: the kernel refuses a seccomp filter")
}

type Rules = BTreeMap<libc::c_long, Vec<SeccompRule>>;

fn refused(needs: Needs) -> Result<Rules> {
    let own = u64::from(std::process::id());
    let mut rules: Rules = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    rules.insert(
        libc::SYS_bpf,
        vec![none_of(0, BPF.map(|command| u64::from(command as u32)))?],
    );
    rules.insert(
        libc::SYS_socket,
        vec![none_of(
            0,
            FAMILIES.map(|family| u64::from(family.cast_unsigned())),
        )?],
    );
    // How a thread ends itself, and with it the program.
    rules.insert(libc::SYS_tgkill, vec![none_of(0, [own])?]);
    // Threads, no processes.
    let thread = u64::from(libc::CLONE_THREAD.cast_unsigned());
    let process = SeccompCondition::new(
        0,
        seccompiler::SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(thread),
        0,
    )?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![process])?]);
    if !needs.perf_events {
        rules.insert(libc::SYS_perf_event_open, Vec::new());
    }
    #[cfg(target_arch = "x86_64")]
    {
        let usual: Vec<_> = rules
            .iter()
            .map(|(call, rules)| (call | X32, rules.clone()))
            .collect();
        rules.extend(usual);
        rules.extend(X32_OWN.map(|call| (call | X32, Vec::new())));
    }
    Ok(rules)
}

/// Calls whose arguments can't be looked at. C libraries take the older ones where these are not there.
fn absent() -> Rules {
    BTreeMap::from([
        (libc::SYS_clone3, Vec::new()),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_clone3 | X32, Vec::new()),
    ])
}

/// The argument is none of these.
fn none_of<const N: usize>(argument: u8, values: [u64; N]) -> Result<SeccompRule> {
    let conditions = values.map(|value| {
        SeccompCondition::new(
            argument,
            seccompiler::SeccompCmpArgLen::Dword,
            SeccompCmpOp::Ne,
            value,
        )
    });
    let conditions: Result<Vec<_>, _> = conditions.into_iter().collect();
    Ok(SeccompRule::new(conditions?)?)
}
