//! `cargo xtask setup`: gets what the other commands need and this machine lacks.
//!
//! System packages are installed only where something is missing, only on Debian and Ubuntu, and only those named in the
//! [`Need`]s below; elsewhere the command says what to install. No service is started by installing it. Everything else
//! lands in the cache directory.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::{privilege, toolchain, util, venv, vm};

/// Package lists older than this are fetched again before installing.
const LISTS_AGE: Duration = Duration::from_hours(24);

/// A thing of the system, how to see that it is there, and the Debian packages that bring it.
struct Need {
    what: &'static str,
    there: fn() -> bool,
    packages: &'static [&'static str],
    /// What else to know about installing it.
    note: &'static str,
}

/// What every command needs.
const BASICS: &[Need] = &[
    Need {
        what: "Redis",
        there: || util::find_program("redis-server").is_some(),
        packages: &["redis-server"],
        note: "the package brings a Redis service, which celeryscope's commands don't use; it is not started now",
    },
    Need {
        what: "ip",
        there: || util::find_program("ip").is_some(),
        packages: &["iproute2"],
        note: "",
    },
    Need {
        what: "Python 3 with venv",
        there: python_has_venv,
        packages: &["python3", "python3-venv"],
        note: "",
    },
];

/// What RabbitMQ's demo and tests need.
const RABBITMQ: &[Need] = &[Need {
    what: "RabbitMQ",
    there: || util::find_program("rabbitmq-server").is_some(),
    packages: &["rabbitmq-server"],
    note: "the package brings a RabbitMQ service, which celeryscope's commands don't use; it is not started now \
           (`systemctl disable rabbitmq-server` keeps it from starting with the system)",
}];

/// What kernels in QEMU need.
const VM: &[Need] = &[
    Need {
        what: "QEMU",
        there: || util::find_program("qemu-system-x86_64").is_some(),
        packages: &["qemu-system-x86"],
        note: "",
    },
    Need {
        what: "a static busybox",
        there: busybox_is_static,
        packages: &["busybox-static"],
        note: "busybox-static takes the place of the package busybox, if that is there",
    },
    Need {
        what: "xz",
        there: || util::find_program("xz").is_some(),
        packages: &["xz-utils"],
        note: "",
    },
    Need {
        what: "Debian's keys",
        there: || Path::new(vm::KEYRING).is_file(),
        packages: &["debian-archive-keyring"],
        note: "",
    },
];

/// Gets everything.
pub(crate) fn run() -> Result<()> {
    system_packages(&[BASICS, RABBITMQ, VM])?;
    let environments = environments()?;
    venv::ensure(&environments.iter().map(String::as_str).collect::<Vec<_>>())?;
    toolchain::ensure()?;
    util::say(
        "ready",
        format!("downloads are kept in {}", util::cache_dir()?.display()),
    );
    Ok(())
}

/// Gets what the demo needs, with RabbitMQ or without; gives the directory of its Python environment.
pub(crate) fn for_demo(rabbitmq: bool) -> Result<PathBuf> {
    system_packages(if rabbitmq { &[BASICS, RABBITMQ] } else { &[BASICS] })?;
    venv::ensure(&["demo"])?;
    venv::path("demo")
}

/// Gets what kernels in QEMU need, and the environments of the tests that run there; the kernels come when they are started.
pub(crate) fn for_vm() -> Result<()> {
    system_packages(&[BASICS, RABBITMQ, VM])?;
    let environments = environments()?;
    venv::ensure(&environments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// All Python environments that the repository describes.
fn environments() -> Result<Vec<String>> {
    let dir = util::root().join("tests/workload/requirements");
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let file = entry?.path();
        names.extend(file.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

fn system_packages(needs: &[&'static [Need]]) -> Result<()> {
    let missing: Vec<&Need> = needs
        .iter()
        .copied()
        .flatten()
        .filter(|need| !(need.there)())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let what: Vec<&str> = missing.iter().map(|need| need.what).collect();
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.packages).copied().collect();
    let (what, packages) = (what.join(" and "), packages);
    if util::find_program("apt-get").is_none() {
        bail!(
            "{what} missing: install with your package manager (Debian's names: {}), then run this again",
            packages.join(" ")
        );
    }
    util::say("missing", &what);
    for need in missing.iter().filter(|need| !need.note.is_empty()) {
        util::say("note", need.note);
    }
    privilege::obtain(&format!("`apt-get install {}`", packages.join(" ")))?;
    if lists_are_old(Path::new("/var/lib/apt/lists")) {
        util::say("apt-get", "update");
        apt_get(&["update", "-qq"])?;
    }
    util::say("apt-get", format!("install {}", packages.join(" ")));
    let _no_services = NoServices::enforce(Path::new("/usr/sbin/policy-rc.d"))?;
    apt_get(
        &[
            &["install", "-y", "-qq", "--no-install-recommends"],
            packages.as_slice(),
        ]
        .concat(),
    )?;
    match missing.iter().find(|need| !(need.there)()) {
        Some(need) => bail!(
            "{} is still missing after apt-get installed {}",
            need.what,
            need.packages.join(" ")
        ),
        None => Ok(()),
    }
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let variables = [("DEBIAN_FRONTEND".to_owned(), "noninteractive".to_owned())];
    // apt passes for quiet only when its chatter has nowhere to go; its errors still show.
    util::run(
        privilege::command("apt-get", &variables)
            .args(arguments)
            .stdout(Stdio::null()),
    )
}

/// While it lives, Debian's packages start no services (invoke-rc.d asks /usr/sbin/policy-rc.d; 101 means "don't").
struct NoServices(Option<PathBuf>);

impl NoServices {
    /// Puts the rule at `policy`, unless the host has one of its own there, which is then in force.
    fn enforce(policy: &Path) -> Result<Self> {
        if policy.exists() {
            return Ok(Self(None));
        }
        let mut script = tempfile::NamedTempFile::new()?;
        // Should this process be killed before it takes the rule away, the rule ends with it.
        write!(
            script,
            "#!/bin/sh\n# Written by celeryscope's `cargo xtask setup` for as long as it runs.\n\
             if [ -d /proc/{} ]; then exit 101; fi\n",
            std::process::id()
        )?;
        let mut install = privilege::command("install", &[]);
        util::run(install.args(["-m", "755"]).arg(script.path()).arg(policy))?;
        Ok(Self(Some(policy.to_owned())))
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        let Some(policy) = &self.0 else { return };
        if let Err(error) = util::run(privilege::command("rm", &[]).arg(policy)) {
            eprintln!("{error:#}: remove {} yourself", policy.display());
        }
    }
}

/// Whether apt's package lists in `dir` were last fetched more than [`LISTS_AGE`] ago, or never.
fn lists_are_old(dir: &Path) -> bool {
    let newest = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("Packages"))
        .filter_map(|entry| entry.metadata().ok()?.modified().ok())
        .max();
    newest.is_none_or(|time| {
        SystemTime::now()
            .duration_since(time)
            .is_ok_and(|age| age > LISTS_AGE)
    })
}

/// Debian splits `ensurepip` off into a package of its own; without it `python3 -m venv` fails half way.
fn python_has_venv() -> bool {
    Command::new("python3")
        .args(["-c", "import venv, ensurepip"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// In a guest there are no shared libraries yet when busybox starts.
fn busybox_is_static() -> bool {
    let Some(busybox) = util::find_program("busybox") else {
        return false;
    };
    let listed = Command::new("ldd").arg(busybox).output();
    listed.is_ok_and(|listed| !String::from_utf8_lossy(&listed.stdout).contains("=>"))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    /// Scenario: a host without a policy for services and one with a policy of its own, during an installation and after it.
    /// Guarantees: the first refuses every start in between and has no policy afterwards; the other's is not touched.
    #[test]
    fn installing_starts_no_service() {
        let dir = tempfile::tempdir().expect("a directory");
        let policy = dir.path().join("policy-rc.d");
        let ask = || Command::new(&policy).args(["rabbitmq-server", "start"]).status();
        // Installing as another user asks sudo, which unit tests may not do.
        if privilege::is_root() {
            let rule = NoServices::enforce(&policy).expect("a rule");
            assert_eq!(ask().expect("the rule").code(), Some(101));
            drop(rule);
            assert!(!policy.exists());
        }

        fs::write(&policy, "the host's own").expect("a file");
        drop(NoServices::enforce(&policy).expect("a rule"));
        assert_eq!(fs::read_to_string(&policy).expect("a file"), "the host's own");
    }

    /// Scenario: apt's lists were never fetched, were fetched just now, or two days ago.
    /// Guarantees: `apt-get update` runs in the first and last case only.
    #[test]
    fn package_lists_are_fetched_again_when_old() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(lists_are_old(&dir.path().join("absent")));
        assert!(lists_are_old(dir.path()));

        let list = File::create(dir.path().join("deb.debian.org_main_Packages")).expect("a file");
        assert!(!lists_are_old(dir.path()));

        let two_days_ago = SystemTime::now() - 2 * LISTS_AGE;
        list.set_modified(two_days_ago).expect("a time");
        assert!(lists_are_old(dir.path()));
    }
}
