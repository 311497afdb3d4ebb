//! `cargo xtask setup`: gets what the other commands need and this machine lacks.
//!
//! System packages are installed only where something is missing, only on Debian and Ubuntu, and only those named in
//! [`NEEDS`] and [`TESTS_NEED`]; elsewhere the command says what to install. Everything else lands in the cache directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::{privilege, toolchain, util, venv};

/// Package lists older than this are fetched again before installing.
const LISTS_AGE: Duration = Duration::from_hours(24);

/// A thing of the system, how to see that it is there, and the Debian packages that bring it.
struct Need {
    what: &'static str,
    there: fn() -> bool,
    packages: &'static [&'static str],
    /// Whether they bring a service that would be started.
    service: bool,
}

/// What demo and tests need.
const NEEDS: &[Need] = &[
    Need {
        what: "Redis",
        there: || util::find_program("redis-server").is_some(),
        packages: &["redis-server"],
        service: true,
    },
    Need {
        what: "ip",
        there: || util::find_program("ip").is_some(),
        packages: &["iproute2"],
        service: false,
    },
    Need {
        what: "Python 3 with venv",
        there: python_has_venv,
        packages: &["python3", "python3-venv"],
        service: false,
    },
];

/// What tests need besides.
const TESTS_NEED: &[Need] = &[Need {
    what: "RabbitMQ",
    there: || util::find_program("rabbitmq-server").is_some(),
    packages: &["rabbitmq-server"],
    service: true,
}];

/// Installs the packages named as its arguments, and keeps their services from being started meanwhile, as Debian's policy
/// for init scripts has it (invoke-rc.d(8)); a machine with such a policy of its own keeps that.
const INSTALL: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
fi
apt-get install -y -qq --no-install-recommends "$@"
"#;

/// Gets everything.
pub(crate) fn run() -> Result<()> {
    system_packages(NEEDS.iter().chain(TESTS_NEED))?;
    let environments = environments()?;
    venv::ensure(&environments.iter().map(String::as_str).collect::<Vec<_>>())?;
    toolchain::ensure()?;
    util::say(
        "ready",
        format!("downloads are kept in {}", util::cache_dir()?.display()),
    );
    Ok(())
}

/// Gets what the demo needs; gives the directory of its Python environment.
pub(crate) fn for_demo() -> Result<PathBuf> {
    system_packages(NEEDS)?;
    venv::ensure(&["demo"])?;
    venv::path("demo")
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

fn system_packages(needs: impl IntoIterator<Item = &'static Need>) -> Result<()> {
    let missing: Vec<&Need> = needs.into_iter().filter(|need| !(need.there)()).collect();
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
    if missing.iter().any(|need| need.service) {
        util::say(
            "note",
            "services that packages bring are not started now, but perhaps when this machine is; celeryscope's commands \
             start their own",
        );
    }
    privilege::obtain(&format!("`apt-get install {}`", packages.join(" ")))?;
    if lists_are_old(Path::new("/var/lib/apt/lists")) {
        util::say("apt-get", "update");
        as_root("apt-get", &["update", "-qq"])?;
    }
    util::say("apt-get", format!("install {}", packages.join(" ")));
    as_root("sh", &[&["-c", INSTALL, "sh"], packages.as_slice()].concat())?;
    match missing.iter().find(|need| !(need.there)()) {
        Some(need) => bail!(
            "{} is still missing after apt-get installed {}",
            need.what,
            need.packages.join(" ")
        ),
        None => Ok(()),
    }
}

fn as_root(program: &str, arguments: &[&str]) -> Result<()> {
    let variables = [("DEBIAN_FRONTEND".to_owned(), "noninteractive".to_owned())];
    // apt passes for quiet only when its chatter has nowhere to go; its errors still show.
    util::run(
        privilege::command(program, &variables)
            .args(arguments)
            .stdout(Stdio::null()),
    )
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

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

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
