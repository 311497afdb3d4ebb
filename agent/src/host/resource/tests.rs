use super::*;

use std::os::unix::fs::symlink;

/// A /proc of our own, removed at the end.
struct Proc(PathBuf);

struct Entry<'a> {
    parent: u32,
    exe: &'a str,
    cmdline: &'a str,
    auxv: &'a str,
    environ: &'a str,
}

impl Proc {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("celeryscope-proc-{}-{name}", std::process::id()));
        fs::create_dir_all(root.join("sys/kernel")).unwrap();
        fs::write(root.join("sys/kernel/hostname"), "apphost\n").unwrap();
        Self(root)
    }

    fn add(&self, pid: u32, entry: &Entry<'_>) {
        let dir = self.0.join(pid.to_string());
        fs::create_dir_all(&dir).unwrap();
        fs::write(
            dir.join("stat"),
            format!("{pid} (a) b (c) S {} 1 1 0", entry.parent),
        )
        .unwrap();
        fs::write(dir.join("comm"), "celery\n").unwrap();
        fs::write(dir.join("cmdline"), entry.cmdline.replace(' ', "\0")).unwrap();
        fs::write(dir.join("auxv"), entry.auxv).unwrap();
        fs::write(dir.join("environ"), entry.environ.replace(' ', "\0")).unwrap();
        fs::write(dir.join("cgroup"), "0::/\n").unwrap();
        symlink(entry.exe, dir.join("exe")).unwrap();
        symlink("/srv/shop", dir.join("cwd")).unwrap();
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const WORKER: Entry<'static> = Entry {
    parent: 1,
    exe: "/usr/bin/python3.11",
    cmdline: "/usr/bin/python3 /venv/bin/celery -A shop worker",
    auxv: "one",
    environ: "",
};

fn value<'a>(description: &'a Description, key: &str) -> Option<&'a str> {
    description
        .pairs
        .iter()
        .find(|(known, _)| known == key)
        .map(|(_, value)| value.as_str())
}

/// Scenario: a worker, a pool child it forked, a fork of the child, and a program the child executed.
/// Guarantees: forks are led by the worker and described as it is; the executed program leads itself.
#[test]
fn forks_belong_to_their_leader() {
    let proc = Proc::new("forks");
    proc.add(10, &WORKER);
    proc.add(11, &Entry { parent: 10, ..WORKER });
    // Renamed itself: the auxiliary vector still tells.
    proc.add(
        12,
        &Entry {
            parent: 11,
            cmdline: "[celeryd: x]",
            ..WORKER
        },
    );
    proc.add(
        13,
        &Entry {
            parent: 11,
            auxv: "two",
            ..WORKER
        },
    );
    for pid in [10, 11, 12] {
        let description = describe(&proc.0, pid).unwrap();
        assert_eq!(description.leader, 10);
        assert_eq!(value(&description, "service.name"), Some("shop"));
        assert_eq!(value(&description, "process.pid"), Some("10"));
        assert_eq!(value(&description, "service.instance.id"), Some("apphost:10"));
    }
    assert_eq!(describe(&proc.0, 13).unwrap().leader, 13);
    assert_eq!(describe(&proc.0, 99), None);
}

/// Scenario: the auxiliary vectors can't be read and setproctitle has renamed worker and children; two workers share a
/// parent.
/// Guarantees: a child is led by the main process of its own node, a main process by itself.
#[test]
fn titles_stand_in_for_the_auxiliary_vector() {
    let proc = Proc::new("titles");
    let title = |pid, parent, cmdline| {
        proc.add(
            pid,
            &Entry {
                parent,
                cmdline,
                auxv: "",
                ..WORKER
            },
        )
    };
    title(9, 1, "supervisor");
    title(
        10,
        9,
        "[celeryd: w1@apphost:MainProcess] -active- (-A shop worker)",
    );
    title(11, 10, "[celeryd: w1@apphost:ForkPoolWorker-1]");
    title(12, 10, "[celeryd: w2@apphost:MainProcess]");
    assert_eq!(describe(&proc.0, 12).unwrap().leader, 12);
    assert_eq!(describe(&proc.0, 10).unwrap().leader, 10);
    // The title's blanks became NULs in this tree's file; a real title is one string.
    fs::write(
        proc.0.join("10/cmdline"),
        "[celeryd: w1@apphost:MainProcess] -active- (-A shop worker)\0",
    )
    .unwrap();
    fs::write(
        proc.0.join("11/cmdline"),
        "[celeryd: w1@apphost:ForkPoolWorker-1]\0\0",
    )
    .unwrap();
    let child = describe(&proc.0, 11).unwrap();
    assert_eq!(child.leader, 10);
    assert_eq!(value(&child, "service.name"), Some("shop"));
    assert_eq!(value(&child, "service.instance.id"), Some("w1@apphost"));
}

/// Scenario: the environment names the service, in each of the two standard ways, with escapes and nonsense.
/// Guarantees: OTEL_SERVICE_NAME wins, then the attributes, then the command line; attributes are decoded and kept.
#[test]
fn the_environment_outranks_the_command_line() {
    let proc = Proc::new("environ");
    let attributes =
        "OTEL_RESOURCE_ATTRIBUTES=service.name=b,service.namespace=s%20t,,=x,odd,host.name=mine%zz";
    proc.add(
        10,
        &Entry {
            environ: &format!("A=1 OTEL_SERVICE_NAME=a {attributes}"),
            ..WORKER
        },
    );
    proc.add(
        11,
        &Entry {
            environ: attributes,
            ..WORKER
        },
    );
    let both = describe(&proc.0, 10).unwrap();
    assert_eq!(both.pairs[0], ("service.name".to_owned(), "a".to_owned()));
    assert_eq!(value(&both, "service.namespace"), Some("s t"));
    assert_eq!(value(&both, "host.name"), Some("mine%zz"));
    assert_eq!(value(&both, "process.runtime.name"), Some("cpython"));
    assert_eq!(value(&both, "process.runtime.version"), Some("3.11"));
    assert_eq!(value(&both, "process.command"), Some("/venv/bin/celery worker"));
    assert_eq!(value(&describe(&proc.0, 11).unwrap(), "service.name"), Some("b"));
}

/// Scenario: a script whose name says nothing, and a program that is not python.
/// Guarantees: named after its directory, and after its executable.
#[test]
fn names_of_last_resort() {
    let proc = Proc::new("names");
    proc.add(
        10,
        &Entry {
            cmdline: "python3 manage.py runserver",
            ..WORKER
        },
    );
    proc.add(
        11,
        &Entry {
            cmdline: "/opt/billing --key hunter2",
            exe: "/opt/billing (deleted)",
            ..WORKER
        },
    );
    assert_eq!(
        value(&describe(&proc.0, 10).unwrap(), "service.name"),
        Some("shop")
    );
    let billing = describe(&proc.0, 11).unwrap();
    assert_eq!(value(&billing, "service.name"), Some("billing"));
    assert!(!format!("{billing:?}").contains("hunter2"));
}

/// Scenario: processes that claim each other as parents.
/// Guarantees: an answer, not an endless walk.
#[test]
fn rings_of_parents_end() {
    let proc = Proc::new("ring");
    proc.add(10, &Entry { parent: 11, ..WORKER });
    proc.add(11, &Entry { parent: 10, ..WORKER });
    assert!(describe(&proc.0, 10).is_some());
}

/// Scenario: an environment with more and longer attributes than anybody needs.
/// Guarantees: texts are cut, the number of pairs is bounded, what is found out here is still there.
#[test]
fn descriptions_are_bounded() {
    let proc = Proc::new("bounds");
    let many: Vec<_> = (0..5000).map(|n| format!("key.{n}={}", "ü".repeat(n))).collect();
    let environ = format!("OTEL_RESOURCE_ATTRIBUTES={}", many.join(","));
    proc.add(
        10,
        &Entry {
            environ: &environ,
            ..WORKER
        },
    );
    let description = describe(&proc.0, 10).unwrap();
    assert!(
        description.pairs.len() <= PAIR_LIMIT,
        "{}",
        description.pairs.len()
    );
    assert!(
        description
            .pairs
            .iter()
            .all(|(_, value)| value.len() <= TEXT_LIMIT)
    );
    assert_eq!(value(&description, "service.name"), Some("shop"));
    assert_eq!(value(&description, "host.name"), Some("apphost"));
}

/// Scenario: this very process in the real /proc.
/// Guarantees: it is found and named.
#[test]
fn the_real_proc_is_understood() {
    let description = describe(Path::new("/proc"), std::process::id()).unwrap();
    assert!(value(&description, "service.name").is_some_and(|name| !name.is_empty()));
    assert!(value(&description, "host.name").is_some());
}
