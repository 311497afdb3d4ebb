//! Threads that are locked down, from inside. It is a thread's own, so no test hurts another.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use super::*;

const NEEDS: Needs = Needs {
    perf_events: false,
    new_files: false,
};

/// What the kernel says of this thread.
fn status() -> BTreeMap<String, String> {
    let text = fs::read_to_string("/proc/thread-self/status").unwrap();
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
}

fn on_a_thread<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(what).join().unwrap())
}

fn is_confined(status: &BTreeMap<String, String>, kept: u64) {
    let set = |name: &str| u64::from_str_radix(&status[name], 16).unwrap();
    for name in ["CapEff", "CapPrm"] {
        assert_eq!(set(name), kept, "{name}");
    }
    for name in ["CapInh", "CapAmb"] {
        assert_eq!(set(name), 0, "{name}");
    }
    assert_eq!((&*status["NoNewPrivs"], &*status["Seccomp"]), ("1", "2"));
}

/// Scenario: a thread locks itself down as a watcher, and starts another; one of the program's threads stood before.
/// Guarantees: both have the capabilities that watching takes of those that were held, and no more, no new privileges and a
/// filter; the other thread has what it had.
#[test]
fn a_watcher_and_what_it_starts() {
    let before = status();
    on_a_thread(|| {
        let kept = capabilities::to_keep(NEEDS);
        let mask = kept.iter().fold(0, |mask, own| mask | own.bitmask());
        let had_setpcap = capabilities::bounding_can_be_dropped();
        watcher(Mode::On, NEEDS).unwrap();
        for status in [status(), on_a_thread(status)] {
            is_confined(&status, mask);
            if had_setpcap {
                assert_eq!(status["CapBnd"], "0000000000000000");
            }
        }
    });
    for set in ["CapEff", "CapBnd", "NoNewPrivs", "Seccomp"] {
        assert_eq!(status()[set], before[set], "{set}");
    }
}

/// Scenario: a watcher runs a program, makes connections, starts threads, reads and writes files.
/// Guarantees: the program does not start; the rest works.
#[test]
fn a_watcher_executes_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    on_a_thread(|| {
        watcher(Mode::On, NEEDS).unwrap();
        let error = Command::new("/bin/true").status().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(fs::read_link("/proc/self/exe").is_ok());
        assert!(fs::read_dir(format!("/proc/{}/fd", std::process::id())).is_ok());
    });
}

/// Scenario: an output reads what it needs, writes to a file that was opened before and connects; then it opens files to write
/// and to read elsewhere, listens, and runs a program.
/// Guarantees: the first three work, the others don't, and it has no capability.
#[test]
fn an_output_has_nothing() {
    if files::describe() != Some("Landlock") {
        eprintln!("skipped: this kernel has no Landlock, or an old one");
        return;
    }
    let folder = std::env::temp_dir().join(format!("celeryscope-lock-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (open, other) = (folder.join("open"), folder.join("other"));
    let mut file = File::create(&open).unwrap();
    fs::write(&other, "secret").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    on_a_thread(|| {
        let locked = watcher(Mode::On, NEEDS).unwrap();
        let inside = locked.outputs(|| {
            is_confined(&status(), 0);
            file.write_all(b"spans")?;
            TcpStream::connect(address)?;
            fs::read("/proc/self/statm")?;
            fs::read("/etc/hosts")?;
            let refused = [
                File::create(&other).map(drop),
                File::open(&other).map(drop),
                fs::remove_file(&other),
                fs::create_dir(folder.join("new")),
                TcpListener::bind("127.0.0.1:0").map(drop),
                Command::new("/bin/true").status().map(drop),
            ];
            for (at, result) in refused.into_iter().enumerate() {
                let error = result.expect_err(&at.to_string());
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{at}: {error}");
            }
            Ok(on_a_thread(status))
        });
        is_confined(&inside.unwrap(), 0);
    });
    assert_eq!(fs::read(&open).unwrap(), b"spans");
    fs::remove_dir_all(&folder).unwrap();
}

/// Scenario: `--lock-down off`.
/// Guarantees: nothing changes, for outputs either.
#[test]
fn off_is_off() {
    on_a_thread(|| {
        let before = status();
        let locked = watcher(Mode::Off, NEEDS).unwrap();
        let inside = locked.outputs(|| Ok(status())).unwrap();
        for set in ["CapEff", "CapBnd", "NoNewPrivs", "Seccomp"] {
            assert_eq!(
                (&status()[set], &inside[set]),
                (&before[set], &before[set]),
                "{set}"
            );
        }
    });
}
