//! A child process that cannot outlive its test.
//!
//! It leads a process group of its own; dropping the guard ends the whole group. Should the test program itself be
//! killed, the kernel sends the child SIGTERM (`setpriv --pdeathsig`, where util-linux is installed).

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::patience::patient;

/// How often the rig looks again at what it waits for.
pub(crate) const GLANCE: Duration = Duration::from_millis(20);

/// A running child, its log, and its group.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    status: Option<ExitStatus>,
}

/// What /proc says a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time, in seconds.
    pub(crate) cpu: f64,
    /// Resident memory at its highest, in MiB.
    pub(crate) peak_rss: f64,
}

impl Process {
    /// Starts `command`; stdout (unless `stdout` is given) and stderr go to `<folder>/<name>.log`.
    pub(crate) fn spawn(name: &str, command: &Command, folder: &Path, stdout: Option<Stdio>) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).unwrap_or_else(|e| panic!("cannot create {}: {e}", log.display()));
        let mut command = tied_to_us(command);
        command
            .process_group(0)
            .stdin(if stdout.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(stdout.unwrap_or_else(|| file.try_clone().expect("clone of the log's descriptor").into()))
            .stderr(file);
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        Self {
            child,
            name: name.to_owned(),
            log,
            status: None,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// What it has written so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("wait for a child of ours");
        }
        self.status
    }

    /// Waits for it to end by itself; `None` when `limit` passes first.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        within(limit, || self.ended())
    }

    /// SIGTERM to the leader alone, as an init system sends it.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// A signal to the leader alone.
    pub(crate) fn signal(&self, name: &str) {
        signal(name, &self.pid().to_string());
    }

    /// What it has used so far; zeros once it has ended.
    pub(crate) fn usage(&self) -> Usage {
        usage(self.pid())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The leader may be gone and leave pool children behind: the group is ended either way.
        let group = format!("-{}", self.pid());
        if self.ended().is_none() {
            signal("TERM", &group);
            self.wait(Duration::from_secs(2));
        }
        signal("KILL", &group);
        self.wait(Duration::from_secs(2));
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(40)..].join("\n");
            eprintln!(
                "--- the end of {}'s log ({}):\n{tail}",
                self.name,
                self.log.display()
            );
        }
    }
}

/// What any process has used so far; zeros when there is none.
pub(crate) fn usage(pid: u32) -> Usage {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    // utime and stime, counted after the parenthesised name; in ticks, of which Linux has 100 a second.
    let stat = read("stat");
    let after = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks: u64 = after
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|n| n.parse::<u64>().ok())
        .sum();
    let status = read("status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|v| v.trim().trim_end_matches(" kB").parse::<u32>().ok());
    Usage {
        cpu: ticks as f64 / 100.0,
        peak_rss: f64::from(kib.unwrap_or(0)) / 1024.0,
    }
}

/// Waits until `found` gives something.
///
/// # Panics
/// After `limit`, naming `what`.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, found: impl FnMut() -> Option<T>) -> T {
    within(limit, found).unwrap_or_else(|| panic!("{what}: not within {limit:?}"))
}

/// Waits until `found` gives something; `None` when `limit` passes first.
pub(crate) fn within<T>(limit: Duration, mut found: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patient(limit);
    loop {
        let value = found();
        if value.is_some() || Instant::now() > deadline {
            return value;
        }
        sleep(GLANCE);
    }
}

fn signal(name: &str, target: &str) {
    // A target that is gone already is what is wanted: the outcome is not looked at.
    let _ = Command::new("kill")
        .args([&format!("-{name}"), "--", target])
        .stderr(Stdio::null())
        .status();
}

/// The same command, behind `setpriv --pdeathsig` where there is one.
fn tied_to_us(command: &Command) -> Command {
    static SETPRIV: OnceLock<bool> = OnceLock::new();
    let tie = *SETPRIV.get_or_init(|| {
        let probe = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "true"])
            .stderr(Stdio::null())
            .status();
        probe.is_ok_and(|status| status.success())
    });
    let mut tied = if tie {
        Command::new("setpriv")
    } else {
        Command::new(command.get_program())
    };
    if tie {
        tied.args(["--pdeathsig", "TERM", "--"])
            .arg(command.get_program());
    }
    tied.args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => tied.env(key, value),
            None => tied.env_remove(key),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        tied.current_dir(dir);
    }
    tied
}
