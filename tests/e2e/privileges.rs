//! Who may run the agent, and what it says to those who may not.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::rig::agent::{binary, run_once};
use crate::rig::loopback::free_port;
use crate::rig::scene::live;
use crate::rig::{Agent, Scene};

/// Scenario: a user without any capability starts `celeryscope run`.
/// Guarantees: one line that names the missing capabilities, and exit code 1.
#[test]
fn without_capabilities() {
    let Some(_alone) = live("privileges") else { return };
    // A copy, because nobody may be barred from the folder that cargo builds in.
    let copy = Copy::new();
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--bounding-set=-all",
            "--inh-caps=-all",
        ])
        .arg("--")
        .arg(&copy.0)
        .args(["run", "--broker-port", "1", "--output", "tree"]);
    let (status, stdout, stderr) = run_once(&mut command);
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "more than one line: {stderr}");
    for capability in ["CAP_BPF", "CAP_PERFMON"] {
        assert!(stderr.contains(capability), "{capability} is not named: {stderr}");
    }
    assert!(stdout.is_empty(), "{stdout}");
}

/// Scenario: `celeryscope doctor` where the live tests run.
/// Guarantees: it finds that this host will do (exit code 0) and says which back end would run.
#[test]
fn doctor_is_content() {
    let Some(_alone) = live("doctor") else { return };
    let (status, stdout, stderr) = run_once(Command::new(binary()).arg("doctor"));
    assert!(status.success(), "{stdout}{stderr}");
    assert!(
        ["fentry", "kprobe", "tracepoint"]
            .iter()
            .any(|backend| stdout.contains(backend)),
        "{stdout}"
    );
}

/// Scenario: an agent with a collector's address, a file and an endpoint for Prometheus, once it is ready; the same with
/// `--lock-down off`; a recording agent.
/// Guarantees: in every thread nothing can be gained any more and seccomp filters; those that watch hold exactly the
/// capabilities for that, those that talk to others none. Off leaves everything.
#[test]
fn every_thread_is_locked_down() {
    let Some(scene) = Scene::set("lock-down", "celery57") else {
        return;
    };
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    let all = ["--output", "otlp", "--otlp-endpoint", &endpoint];
    let threads = |name: &str, more: &[&str]| {
        let listen = format!("127.0.0.1:{}", free_port());
        let more = [&all[..], &["--metrics-listen", &listen], more].concat();
        let agent = Agent::start(scene.folder(), name, &[scene.port()], &more);
        let threads = Thread::all_of(agent.pid());
        assert!(threads.len() >= 5, "{threads:#?}");
        (agent, threads)
    };
    let (agent, locked) = threads("locked", &["--lock-down", "on"]);
    assert!(agent.log().contains("locked down: "), "{}", agent.log());
    let watching = 1 << 2 | 1 << 19 | 1 << 38 | 1 << 39 | 1 << 40;
    for thread in &locked {
        let watches = ["celeryscope", "tls"].contains(&thread.name.as_str());
        let kept = if watches { watching } else { 0 };
        assert_eq!(
            (
                thread.effective,
                thread.permitted,
                thread.others,
                thread.privileges,
                thread.seccomp
            ),
            (kept, kept, 0, 1, 2),
            "{thread:#?}"
        );
    }
    let (_off, open) = threads("open", &["--lock-down", "off"]);
    for thread in &open {
        assert_eq!((thread.privileges, thread.seccomp), (0, 0), "{thread:#?}");
        assert_ne!(thread.effective & !watching, 0, "{thread:#?}");
    }
    let recording = scene.folder().join("locked.rec");
    let mut command = Command::new(binary());
    command
        .args(["record", "--broker-port", &scene.port().to_string(), "-o"])
        .arg(&recording);
    let recorder = Agent::spawn(scene.folder(), "recorder", &command, recording);
    for thread in Thread::all_of(recorder.pid()) {
        assert_eq!(
            (thread.effective, thread.others, thread.seccomp),
            (watching, 0, 2),
            "{thread:#?}"
        );
    }
}

/// Scenario: `--lock-down strict`, by root, and by a user that has the capabilities to watch but CAP_SETPCAP; the latter with
/// `on`, too.
/// Guarantees: the first works; the second ends with code 1 and says what is missing; the third works and says so.
#[test]
fn strict_is_strict() {
    let Some(scene) = Scene::set("lock-down-strict", "celery57") else {
        return;
    };
    let (_, told, _) = run_once(Command::new(binary()).arg("doctor"));
    if told.contains("but ") && told.contains("no Landlock") {
        eprintln!("skipped: this kernel has no Landlock, so strict can't be had");
        return;
    }
    let strict = Agent::start(
        scene.folder(),
        "strict",
        &[scene.port()],
        &["--lock-down", "strict"],
    );
    assert!(!strict.log().contains("not locked down"), "{}", strict.log());
    let copy = Copy::new();
    let few = "-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search,+checkpoint_restore";
    let as_user = |how: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        for sets in ["--bounding-set", "--inh-caps", "--ambient-caps"] {
            command.arg(format!("{sets}={few}"));
        }
        command.arg("--").arg(&copy.0).args(["run", "--broker-port"]);
        command
            .arg(scene.port().to_string())
            .args(["--output", "tree", "--lock-down", how]);
        command
    };
    let (status, _, stderr) = run_once(&mut as_user("strict"));
    assert_eq!(status.code(), Some(1), "{stderr}");
    let last = stderr.lines().last().expect("a word of why");
    assert!(
        last.starts_with("celeryscope: --lock-down strict: the bounding set stays"),
        "{stderr}"
    );
    let user = Agent::spawn(
        scene.folder(),
        "user",
        &as_user("on"),
        scene.folder().join("none"),
    );
    assert!(user.log().contains("for want of CAP_SETPCAP"), "{}", user.log());
}

/// What the kernel says of a thread.
#[derive(Debug)]
struct Thread {
    name: String,
    effective: u64,
    permitted: u64,
    /// Inheritable, ambient and bounding, together.
    others: u64,
    privileges: u64,
    seccomp: u64,
}

impl Thread {
    fn all_of(pid: u32) -> Vec<Self> {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the agent's threads");
        let statuses = tasks
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok());
        statuses.map(|status| Self::of(&status)).collect()
    }

    fn of(status: &str) -> Self {
        let value = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_else(|| panic!("no {name} in {status}"))
                .trim()
                .to_owned()
        };
        let set = |name| u64::from_str_radix(&value(name), 16).expect("a set of capabilities");
        let number = |name: &str| value(name).parse().expect("a number");
        Self {
            name: value("Name"),
            effective: set("CapEff"),
            permitted: set("CapPrm"),
            others: set("CapInh") | set("CapAmb") | set("CapBnd"),
            privileges: number("NoNewPrivs"),
            seccomp: number("Seccomp"),
        }
    }
}

/// The binary where everybody may read and run it.
struct Copy(PathBuf);

impl Copy {
    fn new() -> Self {
        static COPIES: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "celeryscope-copy-{}-{}",
            std::process::id(),
            COPIES.fetch_add(1, Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::copy(binary(), &path).expect("a copy of the binary");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("its permissions");
        Self(path)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // Left behind, it is only a file under the system's temporary folder.
        let _ = std::fs::remove_file(&self.0);
    }
}
