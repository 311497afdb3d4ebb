//! Live capture: a stand-in that refuses to start until the kernel half is there.

use celeryscope_common::Record;
use celeryscope_core::Output;

/// Which back end to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probes {
    /// The best that loads.
    Auto,
    /// fentry/fexit.
    Fentry,
    /// kprobe/kretprobe.
    Kprobe,
    /// System call tracepoints.
    Tracepoint,
}

/// What to capture and how.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Broker ports.
    pub ports: Vec<u16>,
    /// Size of the ring buffer in bytes.
    pub ring_bytes: u32,
    /// Pass the kernel half's log on.
    pub kernel_log: bool,
    /// Back end.
    pub probes: Probes,
}

/// What was attached.
#[derive(Clone, Debug)]
pub struct Attached {
    /// Name of the back end.
    pub backend: &'static str,
    /// Watched ports.
    pub ports: Vec<u16>,
    /// Processes found at start.
    pub processes: usize,
    /// Connections found at start.
    pub connections: usize,
}

/// A running capture.
#[derive(Debug)]
pub struct Live {
    attached: Attached,
}

impl Live {
    /// Attaches the probes.
    pub fn start(options: &LiveOptions) -> anyhow::Result<Self> {
        anyhow::bail!("no capture back end in this build for ports {:?}", options.ports)
    }

    /// What was attached.
    pub fn attached(&self) -> &Attached {
        &self.attached
    }

    /// Waits for records.
    pub async fn ready(&mut self) {
        std::future::pending::<()>().await;
    }

    /// Takes what has come.
    pub fn drain(&mut self, _sink: &mut dyn FnMut(&Record<'_>)) {}

    /// Acts on what the core found.
    pub fn apply(&mut self, _output: &Output) {}

    /// Name, meaning and value of each counter.
    pub fn counters(&mut self) -> Vec<(&'static str, &'static str, u64)> {
        Vec::new()
    }
}

/// Capabilities this process lacks.
pub fn missing_privileges() -> Vec<&'static str> {
    let effective = caps::read(None, caps::CapSet::Effective).unwrap_or_default();
    [
        caps::Capability::CAP_BPF,
        caps::Capability::CAP_PERFMON,
        caps::Capability::CAP_SYS_PTRACE,
    ]
    .into_iter()
    .filter(|cap| !effective.contains(cap))
    .map(|cap| match cap {
        caps::Capability::CAP_BPF => "CAP_BPF",
        caps::Capability::CAP_PERFMON => "CAP_PERFMON",
        _ => "CAP_SYS_PTRACE",
    })
    .collect()
}
