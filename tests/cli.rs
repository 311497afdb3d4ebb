//! The built binary, as a user or a script meets it: help, exit codes, one-line errors.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use celeryscope::recording::Writer;
use celeryscope_common::{Header, Kind, Record};

const BINARY: &str = env!("CARGO_BIN_EXE_celeryscope");

/// A folder of our own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("celeryscope-cli-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The binary with nothing of the caller's settings.
fn celeryscope() -> Command {
    clean(Command::new(BINARY))
}

fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let ours = ["CELERYSCOPE_", "OTEL_", "RUST_LOG"]
            .iter()
            .any(|prefix| name.to_string_lossy().starts_with(prefix));
        if ours {
            command.env_remove(name);
        }
    }
    command
}

fn run(command: &mut Command) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Fails with this code and one line that holds all of these.
#[track_caller]
fn assert_refused(command: &mut Command, code: i32, parts: &[&str]) {
    let (got, stdout, stderr) = run(command);
    assert_eq!((got, stdout.as_str()), (code, ""), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("celeryscope: "), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{part:?} is not in {stderr}");
    }
}

fn recording() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, true).unwrap();
    for n in 0..3 {
        let header = Header {
            exit: n,
            ..Header::default()
        };
        writer.write(&Record::new(Kind::Exit, header, b"")).unwrap();
    }
    writer.finish().unwrap();
    bytes
}

/// Scenario: --help of the program and of each command; --version.
/// Guarantees: exit code 0, on standard output, with an example.
#[test]
fn help_is_complete() {
    for command in [
        &[][..],
        &["run"],
        &["record"],
        &["replay"],
        &["trace-id"],
        &["doctor"],
    ] {
        let (code, stdout, stderr) = run(celeryscope().args(command).arg("--help"));
        assert_eq!((code, stderr.as_str()), (0, ""), "{command:?}");
        assert!(stdout.contains("Usage: celeryscope"), "{command:?}");
        assert!(command == ["doctor"] || stdout.contains("Example"), "{command:?}");
    }
    let (code, stdout, _) = run(celeryscope().arg("--version"));
    assert!(
        code == 0 && stdout.starts_with(concat!("celeryscope ", env!("CARGO_PKG_VERSION"))),
        "{stdout}"
    );
    assert!(stdout.contains("BPF object"), "{stdout}");
    // Without a command the help is an error.
    assert_eq!(run(&mut celeryscope()).0, 2);
}

/// Scenario: wrong arguments, as flags and as variables.
/// Guarantees: exit code 2 and one line that names the culprit and what would do.
#[test]
fn usage_errors_are_one_line() {
    assert_refused(celeryscope().arg("walk"), 2, &["walk", "--help"]);
    assert_refused(
        celeryscope().args(["run", "--probes", "magic"]),
        2,
        &["magic", "--probes", "tracepoint"],
    );
    assert_refused(
        celeryscope().args(["run", "--ring-size", "3M"]),
        2,
        &["--ring-size", "power of two"],
    );
    assert_refused(
        celeryscope().args(["run", "--broker-port", "0"]),
        2,
        &["--broker-port", "0"],
    );
    assert_refused(
        celeryscope().args(["run", "--tls-port", "65536"]),
        2,
        &["--tls-port", "65536"],
    );
    assert_refused(
        celeryscope().args(["run", "--tls-process", "/usr/bin/celery"]),
        2,
        &["--tls-process", "process id", "name"],
    );
    assert_refused(
        celeryscope().arg("run").env("CELERYSCOPE_RELATION", "friend"),
        2,
        &["friend", "parent", "link"],
    );
    assert_refused(
        celeryscope().args(["replay", "x", "--output", "paper"]),
        2,
        &["paper", "otlp-json=FILE"],
    );
    assert_refused(
        celeryscope().args(["replay", "x", "--output", "tree,otlp-json"]),
        2,
        &["standard output"],
    );
    assert_refused(celeryscope().args(["record"]), 2, &["-o FILE"]);
    assert_refused(celeryscope().args(["replay"]), 2, &["FILE"]);
    assert_refused(
        celeryscope().args(["record", "-o", "x", "--rotate-size", "63K"]),
        2,
        &["--rotate-size", "256M"],
    );
    assert_refused(
        celeryscope().args(["record", "-o", "x", "--rotate-keep", "3"]),
        2,
        &["--rotate-size"],
    );
    assert_refused(
        celeryscope()
            .args(["record", "-o", "x"])
            .env("CELERYSCOPE_ROTATE_SIZE", "some"),
        2,
        &["--rotate-size", "some"],
    );
    assert_refused(
        celeryscope().args(["run", "--otlp-endpoint", "collector:4317"]),
        2,
        &["http://"],
    );
}

/// Scenario: a recording with damage is replayed, and whoever reads the log is not there, or the disk that it is on is full.
/// Guarantees: it is replayed as far as it goes all the same, and ends as it would.
#[test]
fn a_log_that_nobody_takes() {
    let folder = Folder::new("log");
    let mut damaged = recording();
    let last = damaged.len() - 30;
    damaged[last] ^= 1;
    let file = folder.file("damaged.rec", &damaged);
    let replay = || {
        let mut command = celeryscope();
        command.arg("replay").arg(&file).env("CELERYSCOPE_LOG", "trace");
        command
    };
    let (code, stdout, stderr) = run(&mut replay());
    assert!(code == 1 && !stderr.is_empty(), "{stderr}");
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    for log in [Stdio::from(full), Stdio::from(closed)] {
        let output = replay().stderr(log).stdout(Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), stdout);
    }
}

/// Scenario: configuration files with an unknown key, a bad value, bad syntax, and none.
/// Guarantees: exit code 2 and one line that names file and key or line.
#[test]
fn config_errors_name_file_and_key() {
    let folder = Folder::new("config");
    let with = |path: &Path| {
        let mut command = celeryscope();
        command.args(["replay", "x", "--config"]).arg(path);
        command
    };
    let unknown = folder.file("unknown.toml", b"ring-size = \"8M\"\nring_sise = \"8M\"\n");
    assert_refused(
        &mut with(&unknown),
        2,
        &["unknown.toml", "`ring_sise`", "ring-size"],
    );
    let value = folder.file("value.toml", b"span-style = \"baroque\"\n");
    assert_refused(&mut with(&value), 2, &["value.toml", "`span-style`", "baroque"]);
    let syntax = folder.file("syntax.toml", b"stats = true\nprobes =\n");
    assert_refused(&mut with(&syntax), 2, &["syntax.toml, line 2"]);
    assert_refused(
        &mut with(&folder.0.join("none.toml")),
        2,
        &["none.toml", "No such file"],
    );
    // A sound file with keys of other commands is none of replay's business.
    let sound = folder.file("sound.toml", b"broker-port = [1]\nduration = \"5s\"\n");
    assert_refused(&mut with(&sound), 1, &["can't replay: x: No such file"]);
    let record = folder.file("record.toml", b"rotate-size = \"1\"\n");
    let mut command = celeryscope();
    command.args(["record", "-o", "x", "--config"]).arg(&record);
    assert_refused(&mut command, 2, &["record.toml", "`rotate-size`", "256M"]);
}

/// Scenario: replay of a file that is missing, something else, of another version, cut short, damaged.
/// Guarantees: the first three are errors; a cut is a warning and the rest is replayed; so is the rest of a damaged file, of
/// which an error tells once what it cost.
#[test]
fn replay_of_bad_files() {
    let folder = Folder::new("replay");
    let replay = |path: &Path| {
        let mut command = celeryscope();
        command.arg("replay").arg(path).arg("--stats");
        command
    };
    assert_refused(
        &mut replay(&folder.0.join("none.rec")),
        1,
        &["none.rec", "No such file"],
    );
    let garbage = folder.file("garbage.rec", &[0xa5; 5000]);
    assert_refused(
        &mut replay(&garbage),
        1,
        &["garbage.rec", "not a celeryscope recording"],
    );
    let newer = b"celeryscope-recording\n{\"format\":9,\"record\":1,\"agent\":\"9.9\"}\n";
    assert_refused(
        &mut replay(&folder.file("newer.rec", newer)),
        1,
        &["newer.rec", "format 9", "(9.9)"],
    );

    let whole = recording();
    let (code, _, stderr) = run(&mut replay(&folder.file("whole.rec", &whole)));
    assert!(code == 0 && stderr.contains("counter records=3 "), "{stderr}");
    assert!(stderr.contains("counter recording_damaged=0 "), "{stderr}");
    assert!(!stderr.contains("WARN"), "{stderr}");
    // The last record's block and the end mark have 80 and 24 bytes.
    for (cut, records) in [(1, 3), (24, 3), (25, 2), (104, 2)] {
        let path = folder.file("cut.rec", &whole[..whole.len() - cut]);
        let (code, _, stderr) = run(&mut replay(&path));
        let counted = stderr.contains(&format!("counter records={records} "));
        assert!(code == 0 && counted, "{stderr}");
        assert!(stderr.contains("cut.rec was cut off at byte"), "{stderr}");
    }
    let mut damaged = whole.clone();
    let middle = damaged.len() - 24 - 80 - 40;
    damaged[middle] ^= 1;
    let (code, stdout, stderr) = run(&mut replay(&folder.file("damaged.rec", &damaged)));
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    // Two of three, and the loss.
    assert!(stderr.contains("counter records=3 "), "{stderr}");
    assert!(stderr.contains("counter records_lost=1 "), "{stderr}");
    assert!(stderr.contains("counter recording_damaged=1 "), "{stderr}");
    assert_eq!(stderr.matches("damaged.rec").count(), 1, "{stderr}");
    assert!(
        stderr.contains("damaged.rec is damaged in 1 places, first at byte"),
        "{stderr}"
    );
}

/// Scenario: trace-id of a root id, twice.
/// Guarantees: 32 hex digits, the same each time, and nothing else.
#[test]
fn trace_id_is_a_function_of_the_root() {
    let trace_id = || run(celeryscope().args(["trace-id", "d5706acd-8a3c-4b0e-9d1f-3f0c1a2b3c4d"]));
    let (code, stdout, stderr) = trace_id();
    assert_eq!((code, stderr.as_str()), (0, ""));
    let id = stdout.strip_suffix('\n').unwrap();
    assert!(
        id.len() == 32 && id.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)),
        "{id}"
    );
    assert_eq!(trace_id().1, stdout);
}

/// Scenario: run and record by a user without privileges.
/// Guarantees: exit code 1 and one line that names the capabilities and where to read more; no file is left behind.
#[test]
fn without_privileges() {
    let folder = Folder::new("privileges");
    let root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let mut program = PathBuf::from(BINARY);
    if root {
        if Command::new("setpriv").arg("--version").output().is_err() {
            eprintln!("skipped: setpriv is needed to give up root");
            return;
        }
        // The build's own folder may be closed to others.
        program = folder.0.join("celeryscope");
        fs::copy(BINARY, &program).unwrap();
    }
    for args in [
        &["run"][..],
        &["record", "-o", "/tmp/celeryscope-must-not-exist.rec"],
    ] {
        let mut command = if root {
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--inh-caps=-all",
                "--bounding-set=-all",
            ]);
            command.arg(&program);
            clean(command)
        } else {
            clean(Command::new(&program))
        };
        assert_refused(
            command.args(args),
            1,
            &[args[0], "CAP_BPF", "CAP_PERFMON", "celeryscope doctor"],
        );
    }
    assert!(!Path::new("/tmp/celeryscope-must-not-exist.rec").exists());
}
