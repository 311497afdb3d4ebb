//! What the agent must be allowed to do.

use caps::{CapSet, Capability};
use rustix::process::{Resource, Rlimit, setrlimit};

/// Capabilities that capture needs, with what stands in for them.
const NEEDED: [(Capability, &str); 4] = [
    (Capability::CAP_BPF, "CAP_BPF"),
    (Capability::CAP_PERFMON, "CAP_PERFMON"),
    (Capability::CAP_SYS_PTRACE, "CAP_SYS_PTRACE"),
    (Capability::CAP_DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
];

/// Names of the capabilities that capture needs and this process does not hold: BPF and PERFMON to load and attach
/// programs (SYS_ADMIN covers both), SYS_PTRACE to see other processes' descriptors and environment,
/// DAC_READ_SEARCH to read tracefs and their /proc entries.
#[must_use]
pub(crate) fn missing_privileges() -> Vec<&'static str> {
    let holds = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let admin = holds(Capability::CAP_SYS_ADMIN);
    NEEDED
        .into_iter()
        .filter(|(capability, _)| {
            let covered = admin && matches!(capability, Capability::CAP_BPF | Capability::CAP_PERFMON);
            !covered && !holds(*capability)
        })
        .map(|(_, name)| name)
        .collect()
}

/// Lifts the limit on locked memory, against which kernels before 5.11 count maps. Later ones don't care, so a refusal
/// is none of our business.
pub(super) fn lift_memlock() {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    let _ = setrlimit(Resource::Memlock, unlimited);
}
