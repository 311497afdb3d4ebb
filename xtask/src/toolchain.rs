//! The BPF toolchain.

/// Gets what building the kernel half needs.
pub(crate) fn ensure() -> anyhow::Result<()> {
    Ok(())
}
