//! `celeryscope doctor`.

use std::process::ExitCode;

use clap::Args;

/// Say what this kernel and host allow, what is missing and how to get it
#[derive(Args, Debug)]
pub struct DoctorArgs {}

/// Looks and tells.
pub fn run(_args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("doctor is not in this build")
}
