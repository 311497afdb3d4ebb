//! The kernel half as it is embedded in this program.

/// The object file, aligned as the loader wants it.
pub(super) static BYTES: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/celeryscope.bpf.o"));

/// SHA-256 of the embedded object, in hex.
pub(crate) const SHA256: &str = env!("CELERYSCOPE_EBPF_SHA256");

/// What it was built by, or `prebuilt`.
pub(crate) const ORIGIN: &str = env!("CELERYSCOPE_EBPF_ORIGIN");
