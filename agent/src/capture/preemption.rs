//! May the kernel move a thread aside in the middle of a BPF program? Then programs are attached twice.
//!
//! At trampolines it may on every preemptible kernel. Programs at system calls' tracepoints ran with preemption off before
//! Linux 6.19; those at other tracepoints and at kprobes still do.

use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::plan::Backend;

/// Tells which of the models that it was built with a kernel runs: `none (voluntary) full`.
const MODEL: &str = "sched/preempt";
/// Where that is, where debugfs is mounted.
const DEBUGFS: &str = "/sys/kernel/debug";
/// From here on there is no other model than preemptible ones.
const ALWAYS_FROM: (u32, u32) = (7, 0);

/// The first in which a thread may be moved aside at a system call's tracepoint.
const TRACEPOINTS_FROM: (u32, u32) = (6, 19);

/// As far as this kernel tells; yes, where it does not.
pub(super) fn is_possible(backend: Backend) -> bool {
    let release = super::kernel_release::current();
    if backend != Backend::Fentry && release.is_some_and(|release| release < TRACEPOINTS_FROM) {
        return false;
    }
    let uname = rustix::system::uname();
    decide(release, &uname.version().to_string_lossy(), model().as_deref())
}

/// What [`MODEL`] says. Where debugfs is not mounted, as in a container, it is for us alone, and nowhere, for as long as that takes.
fn model() -> Option<String> {
    std::fs::read_to_string(Path::new(DEBUGFS).join(MODEL))
        .or_else(|_| {
            let debugfs = fsopen("debugfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_create(&debugfs)?;
            let root = fsmount(
                &debugfs,
                FsMountFlags::FSMOUNT_CLOEXEC,
                MountAttrFlags::MOUNT_ATTR_RDONLY,
            )?;
            let file = openat(root, MODEL, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            std::io::read_to_string(std::fs::File::from(file))
        })
        .ok()
}

/// `build`: the kernel's version string, `#1 SMP PREEMPT_DYNAMIC Debian …`.
fn decide(release: Option<(u32, u32)>, build: &str, model: Option<&str>) -> bool {
    if release.is_some_and(|release| release >= ALWAYS_FROM) {
        return true;
    }
    match model.and_then(|model| model.split_once('(')) {
        Some((_, chosen)) => !chosen.starts_with("none)") && !chosen.starts_with("voluntary)"),
        None => build.contains("PREEMPT"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: kernels built without preemption, with one model, and with a choice of them; new ones.
    /// Guarantees: no only where the kernel's own words rule it out.
    #[test]
    fn models() {
        let dynamic = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1";
        assert!(!decide(Some((5, 10)), "#1 SMP Debian 5.10.223-1", None));
        assert!(!decide(Some((6, 1)), dynamic, Some("none (voluntary) full\n")));
        assert!(decide(Some((6, 1)), dynamic, Some("none voluntary (full)\n")));
        assert!(decide(
            Some((6, 14)),
            dynamic,
            Some("none voluntary full (lazy)\n")
        ));
        assert!(decide(Some((6, 1)), dynamic, None));
        assert!(decide(Some((6, 6)), "#1 SMP PREEMPT Arch", None));
        assert!(decide(Some((7, 2)), "#1 SMP next", None));
    }
}
