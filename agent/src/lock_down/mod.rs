//! What the agent gives up once its probes are attached, so that a fault in it is worth little to whoever finds it.
//!
//! Privileges are a thread's, and a new thread has those of the one that starts it. So there are two tiers, and an order:
//!
//! - *Watchers* (the loop, and the thread that puts probes into TLS libraries) go on reading other processes' /proc and changing
//!   BPF maps. They keep the few capabilities for that and lose every system call that starts, enters or changes anything else.
//! - *Outputs* (every thread that talks to a collector, serves metrics or writes spans) need none of that: no capability at
//!   all, and Landlock on top. Landlock can't be had for watchers: the kernel lets nobody who is under it look into processes
//!   that are not (`/proc/PID/{fd,root,exe,ns}`), and a rule for the agent's own root says nothing of other mount namespaces.
//!
//! The main thread attaches, locks itself down as a watcher, and only then starts the others ([`Locked::outputs`]). What needs
//! more (files to write, ports to listen on) is opened before.
//!
//! What is forbidden fails (EPERM) and does not kill: a C library that tries something new must not take the agent down.

mod capabilities;
mod files;
mod syscalls;
#[cfg(test)]
mod tests;

use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::thread::set_no_new_privs;

/// How much is given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing.
    Off,
    /// What this kernel lets be given up.
    #[default]
    On,
    /// All of it, or the agent does not start.
    Strict,
}

/// What is done after locking down, where kernels differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Probes on TLS libraries go through performance events (before Linux 6.6).
    pub(crate) perf_events: bool,
    /// Files will be made (the next one of a recording), in whosever folder.
    pub(crate) new_files: bool,
}

/// This thread, and all that it will start, are locked down.
#[derive(Debug)]
pub(crate) struct Locked {
    mode: Mode,
}

/// Locks this thread down as a watcher, and says so. All threads that live on must be started from it, later.
///
/// # Errors
/// With [`Mode::Strict`]: this kernel, or who started the agent, does not let something be given up.
pub(crate) fn watcher(mode: Mode, needs: Needs) -> Result<Locked> {
    let locked = Locked { mode };
    if mode == Mode::Off {
        tracing::info!("not locked down (--lock-down off)");
        return Ok(locked);
    }
    let kept = capabilities::to_keep(needs);
    let missing = confine(&kept, needs)?;
    let outputs = files::describe();
    let lacking: Vec<&str> = missing
        .iter()
        .map(String::as_str)
        .chain(outputs.is_none().then_some(files::NONE))
        .collect();
    if mode == Mode::Strict && !lacking.is_empty() {
        bail!(
            "--lock-down strict: {}; --lock-down on does without",
            lacking.join("; ")
        );
    }
    let landlock = outputs.unwrap_or("no Landlock");
    tracing::info!(
        "locked down: watching keeps {}, outputs no capability, {landlock}; no new privileges{}",
        capabilities::names(&kept),
        if syscalls::supported() { "; seccomp" } else { "" }
    );
    if !lacking.is_empty() {
        tracing::info!("not locked down as far as could be: {}", lacking.join("; "));
    }
    Ok(locked)
}

impl Locked {
    /// Calls `start` on a thread that is locked down as an output; what it starts, is so too.
    ///
    /// # Errors
    /// Those of `start`, and those of locking down.
    pub(crate) fn outputs<T: Send>(&self, start: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        if self.mode == Mode::Off {
            return start();
        }
        let confined = || {
            files::confine()?;
            confine(&[], Needs::default())?;
            start()
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name("outputs".to_owned())
                .spawn_scoped(scope, confined)
                .context("can't start a thread")?;
            thread
                .join()
                .unwrap_or_else(|_| Err(anyhow!("the thread that starts the outputs has panicked")))
        })
    }
}

/// What `doctor` tells: what would be given up here, and what this kernel lacks for giving up more.
pub(crate) fn prospect(needs: Needs) -> (String, Vec<&'static str>) {
    let mut lacking = Vec::new();
    let kept = capabilities::names(&capabilities::to_keep(needs));
    let mut parts = vec![format!("watching keeps {kept}"), "no new privileges".to_owned()];
    if syscalls::supported() {
        parts.push("seccomp".to_owned());
    } else {
        lacking.push(syscalls::NONE);
    }
    parts.push("outputs no capability".to_owned());
    match files::describe() {
        Some(landlock) => parts.push(landlock.to_owned()),
        None => lacking.push(files::NONE),
    }
    if !capabilities::bounding_can_be_dropped() {
        lacking.push(capabilities::NO_SETPCAP);
    }
    (parts.join(", "), lacking)
}

/// Keeps these capabilities and only harmless system calls, on this thread. Gives what could not be given up.
fn confine(keep: &[caps::Capability], needs: Needs) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    // First: without capabilities it is what lets a filter be put in.
    set_no_new_privs(true).context("can't lock down: no_new_privs is refused")?;
    if !capabilities::keep_only(keep)? {
        missing.push(capabilities::NO_SETPCAP.to_owned());
    }
    if syscalls::supported() {
        syscalls::confine(needs)?;
    } else {
        missing.push(syscalls::NONE.to_owned());
    }
    Ok(missing)
}
