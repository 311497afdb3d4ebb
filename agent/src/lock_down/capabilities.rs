//! Which capabilities are kept, and how the others go.

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability};

use super::Needs;

/// Said where the bounding set stays.
pub(super) const NO_SETPCAP: &str = "the bounding set stays, for want of CAP_SETPCAP";

/// What a watcher does later, and what it takes.
const WATCHING: [Capability; 5] = [
    // Maps (before Linux 5.18 any use of them), links.
    Capability::CAP_BPF,
    // Probes in processes that come later.
    Capability::CAP_PERFMON,
    // /proc/PID/{fd,maps,environ,root,exe} of other users' processes.
    Capability::CAP_SYS_PTRACE,
    // Files below /proc/PID/root that only their owner reads.
    Capability::CAP_DAC_READ_SEARCH,
    // /proc/PID/map_files: a library whose file has been exchanged since.
    Capability::CAP_CHECKPOINT_RESTORE,
];

/// For which of these CAP_SYS_ADMIN stands in where they are not held.
const OF_ADMIN: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_CHECKPOINT_RESTORE,
];

/// What a watcher keeps of what this thread holds. TLS is recognised on every watched port, so what reading it takes is among
/// it whatever ports the user names. CAP_SYS_ADMIN stays where nothing smaller is held, as with container runtimes that don't
/// know CAP_BPF, and where performance events are needed, which before Linux 6.6 ask for it to probe a library.
pub(super) fn to_keep(needs: Needs) -> Vec<Capability> {
    let held = caps::read(None, CapSet::Permitted).unwrap_or_default();
    let lacks = |capability: &Capability| !held.contains(capability);
    // Without map_files a few libraries can't be read: not worth the capability that allows everything.
    let needs_admin = needs.perf_events || OF_ADMIN[..2].iter().any(lacks);
    let admin = (needs_admin && !lacks(&Capability::CAP_SYS_ADMIN)).then_some(Capability::CAP_SYS_ADMIN);
    let mut kept: Vec<Capability> = WATCHING.into_iter().filter(|own| !lacks(own)).collect();
    if admin.is_some() {
        kept.retain(|own| !OF_ADMIN.contains(own));
    }
    kept.extend(admin);
    let owner = Capability::CAP_DAC_OVERRIDE;
    kept.extend((needs.new_files && !lacks(&owner)).then_some(owner));
    kept
}

/// Gives up all capabilities of this thread but these, and those that an executed program could get. False where the bounding
/// set could not be emptied; nothing can be executed, so that is no more than a second lock.
///
/// # Errors
/// The kernel refuses.
pub(super) fn keep_only(keep: &[Capability]) -> Result<bool> {
    let keep: HashSet<Capability> = keep.iter().copied().collect();
    // While the capability to do so is still there.
    let bounding = caps::clear(None, CapSet::Bounding).is_ok();
    let drop = || -> Result<(), caps::errors::CapsError> {
        if caps::runtime::ambient_set_supported().is_ok() {
            caps::clear(None, CapSet::Ambient)?;
        }
        caps::clear(None, CapSet::Inheritable)?;
        caps::set(None, CapSet::Effective, &keep)?;
        caps::set(None, CapSet::Permitted, &keep)
    };
    drop().context("can't lock down: the kernel lets no capability be dropped")?;
    Ok(bounding || is_empty(CapSet::Bounding))
}

/// Could [`keep_only`] empty the bounding set?
pub(super) fn bounding_can_be_dropped() -> bool {
    is_empty(CapSet::Bounding)
        || caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false)
}

/// As text: `CAP_BPF CAP_PERFMON`.
pub(super) fn names(capabilities: &[Capability]) -> String {
    if capabilities.is_empty() {
        return "no capability".to_owned();
    }
    let names: Vec<String> = capabilities.iter().map(Capability::to_string).collect();
    names.join(" ")
}

fn is_empty(set: CapSet) -> bool {
    caps::read(None, set).is_ok_and(|held| held.is_empty())
}
