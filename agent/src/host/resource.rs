//! Who a process is: the OpenTelemetry Resource of the service it belongs to, from /proc alone.
//!
//! A pool's children are one service with the process that forked them: a process is described by its *leader*, the
//! furthest ancestor it was forked from without an exec between. Command lines and environments may hold secrets, so
//! nothing of them is passed on but what is listed here: the program, its module or subcommand, and what stands in
//! `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`.

mod command;
mod container;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use command::Command;

/// Forks between a process and its leader that are followed.
const DEEPEST: usize = 8;
/// Bytes read of one file in /proc.
const FILE_LIMIT: u64 = 1 << 20;
/// Bytes of one key or value; the rest is cut off.
const TEXT_LIMIT: usize = 255;
/// Pairs of one process; those of the environment beyond it are left out.
const PAIR_LIMIT: usize = 64;
/// Pairs that are found out here, for which room is kept.
const OWN_PAIRS: usize = 11;

/// A process's service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Description {
    /// The process that leads it; the process itself where nobody else does.
    pub(crate) leader: u32,
    /// Resource attributes of the leader, `service.name` first.
    pub(crate) pairs: Vec<(String, String)>,
}

/// Describes a process; `proc_root` is `/proc` outside of tests. None when there is no such process (any more).
#[must_use]
pub(crate) fn describe(proc_root: &Path, pid: u32) -> Option<Description> {
    let leader = leader_of(proc_root, pid)?;
    let process = Process::read(proc_root, leader)?;
    Some(Description {
        leader,
        pairs: process.pairs(),
    })
}

fn leader_of(proc_root: &Path, pid: u32) -> Option<u32> {
    let mut child = Image::read(proc_root, pid)?;
    let mut leader = pid;
    for _ in 0..DEEPEST {
        let Some(parent) = Image::read(proc_root, child.parent) else {
            break;
        };
        if child.parent <= 1 || !child.is_fork_of(&parent) {
            break;
        }
        leader = child.parent;
        child = parent;
    }
    Some(leader)
}

/// What a fork inherits and an exec replaces.
struct Image {
    parent: u32,
    exe: Option<PathBuf>,
    /// The auxiliary vector: random addresses chosen at exec. Empty where it can't be read.
    auxv: Vec<u8>,
    cmdline: Vec<u8>,
}

impl Image {
    fn read(proc_root: &Path, pid: u32) -> Option<Self> {
        let dir = proc_root.join(pid.to_string());
        let stat = read(&dir.join("stat"))?;
        // pid (comm) state ppid …; the name may hold parentheses and blanks itself.
        let after_name = stat.get(stat.iter().rposition(|byte| *byte == b')')? + 1..)?;
        let mut fields = std::str::from_utf8(after_name).ok()?.split_ascii_whitespace();
        // Nothing but its number is left of a process that waits to be reaped.
        if matches!(fields.next()?, "Z" | "X" | "x") {
            return None;
        }
        let image = Self {
            parent: fields.next()?.parse().ok()?,
            exe: fs::read_link(dir.join("exe")).ok(),
            auxv: read(&dir.join("auxv")).unwrap_or_default(),
            cmdline: read(&dir.join("cmdline")).unwrap_or_default(),
        };
        // One that is ending has lost its memory before it is called a zombie.
        (image.exe.is_some() || !image.cmdline.is_empty()).then_some(image)
    }

    fn is_fork_of(&self, parent: &Self) -> bool {
        if self.exe.is_none() || self.exe != parent.exe {
            return false;
        }
        if !self.auxv.is_empty() && !parent.auxv.is_empty() {
            return self.auxv == parent.auxv;
        }
        self.cmdline == parent.cmdline || command::same_celery_title(&self.cmdline, &parent.cmdline)
    }
}

/// What is read of a leader.
struct Process {
    pid: u32,
    exe: Option<String>,
    comm: String,
    command: Command,
    cgroup: String,
    environ: Vec<u8>,
    host: String,
    directory: Option<String>,
}

impl Process {
    fn read(proc_root: &Path, pid: u32) -> Option<Self> {
        let dir = proc_root.join(pid.to_string());
        let text = |path: PathBuf| read(&path).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        let name = |link: &str| {
            let target = fs::read_link(dir.join(link)).ok()?;
            let name = target.file_name()?.to_string_lossy().into_owned();
            Some(name.trim_end_matches(" (deleted)").to_owned())
        };
        Some(Self {
            pid,
            exe: name("exe"),
            comm: text(dir.join("comm"))?,
            command: Command::parse(&read(&dir.join("cmdline"))?),
            cgroup: text(dir.join("cgroup")).unwrap_or_default(),
            environ: read(&dir.join("environ")).unwrap_or_default(),
            host: text(proc_root.join("sys/kernel/hostname")).unwrap_or_default(),
            directory: name("cwd"),
        })
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.environ
            .split(|byte| *byte == 0)
            .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .filter(|value| !value.is_empty())
    }

    fn pairs(&self) -> Vec<(String, String)> {
        let mut pairs = Pairs::default();
        pairs.add("service.name", self.variable("OTEL_SERVICE_NAME"));
        // The user's own words outrank what is found out below.
        let attributes = self.variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        for (key, value) in resource_attributes(&attributes).take(PAIR_LIMIT - OWN_PAIRS) {
            pairs.add(&key, Some(value));
        }
        let executable = self.exe.clone().unwrap_or_else(|| self.comm.clone());
        let service = self
            .command
            .service
            .clone()
            .or_else(|| {
                self.command
                    .by_directory
                    .then(|| self.directory.clone())
                    .flatten()
            })
            .or_else(|| self.command.flask.then(|| self.variable("FLASK_APP")).flatten())
            .unwrap_or_else(|| executable.clone());
        pairs.add("service.name", Some(service));
        let host = self.variable("HOSTNAME").unwrap_or_else(|| self.host.clone());
        let worker = self.command.worker_name(&host);
        pairs.add(
            "service.instance.id",
            Some(worker.unwrap_or_else(|| format!("{host}:{}", self.pid))),
        );
        pairs.add("process.pid", Some(self.pid.to_string()));
        pairs.add("process.command", self.command.shown.clone());
        pairs.add("process.executable.name", Some(executable));
        let (runtime, version) = runtime(self.exe.as_deref().unwrap_or_default());
        pairs.add("process.runtime.name", runtime);
        pairs.add("process.runtime.version", version);
        pairs.add("container.id", container::id(&self.cgroup));
        pairs.add("k8s.pod.uid", container::pod_uid(&self.cgroup));
        // For the core, which keeps it from the resource.
        pairs.add("celery.pool", self.command.pool.map(str::to_owned));
        pairs.add("host.name", Some(self.host.clone()));
        pairs.in_order()
    }
}

/// The first value given for a key stays.
#[derive(Default)]
struct Pairs(Vec<(String, String)>);

impl Pairs {
    fn add(&mut self, key: &str, value: Option<String>) {
        let cut = |text: &str| text[..text.floor_char_boundary(TEXT_LIMIT)].to_owned();
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            return;
        };
        if !self.0.iter().any(|(known, _)| known == key) {
            self.0.push((cut(key), cut(&value)));
        }
    }

    fn in_order(mut self) -> Vec<(String, String)> {
        self.0.sort_by_key(|(key, _)| key != "service.name");
        self.0
    }
}

/// `OTEL_RESOURCE_ATTRIBUTES`: `key=value` pairs with commas between, percent-encoded.
fn resource_attributes(text: &str) -> impl Iterator<Item = (String, String)> {
    text.split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), percent_decoded(value.trim())))
        .filter(|(key, _)| !key.is_empty())
}

fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(code) if byte == b'%' => {
                out.push(code);
                rest = &after[2..];
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Interpreter and version, where the executable's name tells.
fn runtime(exe: &str) -> (Option<String>, Option<String>) {
    let (name, rest) = match (exe.strip_prefix("python"), exe.strip_prefix("pypy")) {
        (Some(rest), _) => ("cpython", rest),
        (_, Some(rest)) => ("pypy", rest),
        _ => return (None, None),
    };
    let version: String = rest
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    (Some(name.to_owned()), Some(version))
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(FILE_LIMIT)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests;
