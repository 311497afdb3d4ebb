//! Running single programs as root: directly when we are, through sudo when not.
//!
//! Only what needs it runs as root (the package manager, the agent, tests that load BPF programs); building never does.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::util;

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes sure that [`command`] will work: asks for sudo's password now, in the foreground, and says what for.
///
/// # Errors
/// When we are not root and there is no sudo, or it refuses.
pub(crate) fn obtain(purpose: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    if util::find_program("sudo").is_none() {
        bail!("{purpose} needs root: run this command as root, or install sudo");
    }
    util::say(
        "sudo",
        format!("{purpose} needs root; nothing else here runs as root"),
    );
    if Command::new("sudo")
        .args(["-n", "-v"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
    {
        return Ok(());
    }
    if !Command::new("sudo")
        .arg("-v")
        .status()
        .is_ok_and(|status| status.success())
    {
        bail!("{purpose} needs root and sudo refused: run this command as root, or as a user who may sudo");
    }
    Ok(())
}

/// A command that runs `program` as root with our environment, as far as sudo lets it through, and the given variables.
/// Call [`obtain`] first.
pub(crate) fn command(program: impl AsRef<OsStr>, variables: &[(String, String)]) -> Command {
    if is_root() {
        let mut command = Command::new(program);
        command.envs(variables.iter().cloned());
        return command;
    }
    let mut command = Command::new("sudo");
    let names: Vec<&str> = variables.iter().map(|(name, _)| name.as_str()).collect();
    // Values may be secret: in sudo's environment they are, on its command line everybody would see them.
    command.arg("-n");
    if !names.is_empty() {
        command.arg(format!("--preserve-env={}", names.join(",")));
    }
    command.arg("--").envs(variables.iter().cloned());
    if let Some((_, path)) = variables.iter().find(|(name, _)| name == "PATH") {
        // sudo has a PATH of its own; env(1) puts ours back.
        command.arg("env").arg(format!("PATH={path}"));
    }
    command.arg(program);
    command
}
