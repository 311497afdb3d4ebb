//! Who may run the agent, and what it says to those who may not.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::rig::agent::{binary, run_once};
use crate::rig::scene::live;

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

/// The binary where everybody may read and run it.
struct Copy(PathBuf);

impl Copy {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("celeryscope-copy-{}", std::process::id()));
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
