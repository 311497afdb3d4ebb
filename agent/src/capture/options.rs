//! What may be asked of a capture.

use crate::host::tls::TlsProcess;
use crate::lock_down;

/// What to capture, and how.
#[derive(Clone, Debug)]
pub(crate) struct LiveOptions {
    /// Remote ports to watch; 1 to 64 of them.
    pub(crate) ports: Vec<u16>,
    /// Those of them on which TLS is spoken.
    pub(crate) tls_ports: Vec<u16>,
    /// Processes whose TLS is read whatever port they talk to.
    pub(crate) tls_processes: Vec<TlsProcess>,
    /// Size of the ring buffer; rounded up to a power of two between 64 KiB and 1 GiB.
    pub(crate) ring_bytes: u32,
    /// Only processes in the agent's own network namespace.
    pub(crate) own_netns: bool,
    /// Pass the kernel half's own messages on to the log.
    pub(crate) kernel_log: bool,
    /// Which back end.
    pub(crate) probes: Probes,
    /// Calls that read are seen from their entry on, as on kernels that leave no choice: for tests of that.
    pub(crate) reads_from_entry: bool,
    /// What is given up once that is attached.
    pub(crate) lock_down: lock_down::Mode,
    /// The caller will make files while it runs.
    pub(crate) new_files: bool,
}

/// The back ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Probes {
    /// The best that this kernel allows.
    #[default]
    Auto,
    /// fentry and fexit.
    Fentry,
    /// Kprobes, returns by tracepoints.
    Kprobe,
    /// System call tracepoints.
    Tracepoint,
}
