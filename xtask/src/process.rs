//! Programs that run beside us for a while, and the certainty that they end when we do.
//!
//! Each service gets a process group of its own, so that Ctrl-C reaches only us; we then stop the services in the
//! reverse order of their start, by dropping them. What a service prints goes to a log file whose end is shown when it
//! fails.

use std::fmt;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::privilege;
use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

const POLL: Duration = Duration::from_millis(50);
/// How long a service may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(8);
/// How much of a failed service's log is shown.
const LOG_LINES: usize = 15;

/// The user (or a supervisor) asked us to stop.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted: everything that was started has been stopped")
    }
}

impl std::error::Error for Interrupted {}

/// Notes SIGINT, SIGTERM and SIGHUP instead of dying of them, from now on.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes over the three signals.
    pub(crate) fn install() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("cannot handle signals")?;
        }
        Ok(Self(flag))
    }

    /// Fails with [`Interrupted`] once a signal came.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            Err(Interrupted.into())
        } else {
            Ok(())
        }
    }

    /// Asks `done` again and again until it says yes. `Ok(false)` when the time is over; `Duration::MAX` is never over.
    pub(crate) fn wait(&self, limit: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<bool> {
        let end = Instant::now().checked_add(limit);
        loop {
            self.check()?;
            if done()? {
                return Ok(true);
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                return Ok(false);
            }
            thread::sleep(POLL);
        }
    }
}

/// A program running beside us. Dropping it stops it.
pub(crate) struct Service {
    name: &'static str,
    child: Child,
    log: PathBuf,
    /// Only root may signal what sudo started.
    through_sudo: bool,
    status: Option<ExitStatus>,
}

impl Service {
    /// Starts `command` with all it prints in `<dir>/<name>.log`.
    pub(crate) fn start(name: &'static str, command: &mut Command, dir: &Path) -> Result<Self> {
        let log = Self::log_file(name, dir)?;
        let stdout = log.1.try_clone()?;
        Self::spawn(name, command.stdout(stdout), log)
    }

    /// Starts `command` with its standard output on ours and its standard error in `<dir>/<name>.log`.
    pub(crate) fn start_showing(name: &'static str, command: &mut Command, dir: &Path) -> Result<Self> {
        let log = Self::log_file(name, dir)?;
        Self::spawn(name, command.stdout(Stdio::inherit()), log)
    }

    fn log_file(name: &str, dir: &Path) -> Result<(PathBuf, File)> {
        let path = dir.join(format!("{name}.log"));
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok((path, file))
    }

    fn spawn(name: &'static str, command: &mut Command, (log, file): (PathBuf, File)) -> Result<Self> {
        let through_sudo = command.get_program() == "sudo";
        let child = command
            .stdin(Stdio::null())
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", command.get_program().display()))?;
        Ok(Self {
            name,
            child,
            log,
            through_sudo,
            status: None,
        })
    }

    /// Waits until `ready` says yes.
    ///
    /// # Errors
    /// When the service ends before, or is not ready in time: with the end of its log.
    pub(crate) fn wait_ready(
        &mut self,
        interrupt: &Interrupt,
        limit: Duration,
        mut ready: impl FnMut(&Self) -> bool,
    ) -> Result<()> {
        let up = interrupt.wait(limit, || {
            self.check_alive()?;
            Ok(ready(self))
        })?;
        if !up {
            bail!(
                "{} is not ready after {} s{}",
                self.name,
                limit.as_secs(),
                self.log_end()
            );
        }
        Ok(())
    }

    /// Fails, with the end of the log, when the service has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                self.status = Some(status);
                Err(anyhow!("{} ended early ({status}){}", self.name, self.log_end()))
            }
        }
    }

    /// What the service has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Asks the service to end, waits, and kills it with all its children when it won't.
    pub(crate) fn stop(&mut self) -> Option<ExitStatus> {
        if self.status.is_some() {
            return self.status;
        }
        self.signal(Signal::TERM, false);
        if !self.wait_end() {
            self.signal(Signal::KILL, true);
            if !self.wait_end() {
                eprintln!(
                    "{} (process {}) does not end; it is left behind",
                    self.name,
                    self.child.id()
                );
            }
        }
        self.status
    }

    /// Waits for the end for [`GRACE`].
    fn wait_end(&mut self) -> bool {
        let end = Instant::now() + GRACE;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                self.status = Some(status);
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            thread::sleep(POLL);
        }
    }

    fn signal(&self, signal: Signal, group: bool) {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else {
            return;
        };
        if self.through_sudo {
            let target = if group { format!("-{pid}") } else { pid.to_string() };
            let number = signal.as_raw().to_string();
            // The shell's own kill: not every system has a program of that name. A failure shows by itself, in the wait
            // that follows.
            let mut kill = privilege::command("sh", &[]);
            let _ = kill
                .args(["-c", "kill -s \"$0\" -- \"$1\"", &number, &target])
                .status();
            return;
        }
        // An error means that the process is gone, which is what we want.
        let _ = if group {
            kill_process_group(pid, signal)
        } else {
            kill_process(pid, signal)
        };
    }

    /// The end of the log, to go behind an error message.
    pub(crate) fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines
            .get(lines.len().saturating_sub(LOG_LINES)..)
            .unwrap_or_default();
        if last.is_empty() {
            return String::new();
        }
        format!("; the end of its log:\n    {}", last.join("\n    "))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port of the loopback interface that is free now.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    /// Scenario: a service says on its log that it is up and is then stopped.
    /// Guarantees: the wait sees the line, and the process ends by the signal it was asked with.
    #[test]
    fn service_is_waited_for_and_stopped() {
        let dir = tempfile::tempdir().expect("a directory");
        let interrupt = Interrupt(Arc::default());
        let mut service =
            Service::start("up", &mut shell("echo up; exec sleep 60"), dir.path()).expect("starts");
        service
            .wait_ready(&interrupt, GRACE, |service| service.log().contains("up"))
            .expect("gets ready");
        let status = service.stop().expect("has a status");
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(SIGTERM)
        );
    }

    /// Scenario: a service prints a reason and ends before it is ready.
    /// Guarantees: the wait fails at once and shows the reason.
    #[test]
    fn early_end_shows_the_log() {
        let dir = tempfile::tempdir().expect("a directory");
        let interrupt = Interrupt(Arc::default());
        let mut service =
            Service::start("bad", &mut shell("echo no such port >&2; exit 3"), dir.path()).expect("starts");
        let error = service
            .wait_ready(&interrupt, GRACE, |_| false)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("bad ended early") && error.contains("no such port"),
            "{error}"
        );
    }

    /// Scenario: the user presses Ctrl-C during a wait.
    /// Guarantees: the wait ends with [`Interrupted`], whatever it waits for.
    #[test]
    fn interrupt_ends_a_wait() {
        let interrupt = Interrupt(Arc::default());
        let flag = Arc::clone(&interrupt.0);
        let error = interrupt.wait(Duration::MAX, || {
            flag.store(true, Ordering::Relaxed);
            Ok(false)
        });
        assert!(error.unwrap_err().is::<Interrupted>());
    }
}
