//! Python environments for the tests, the demo and the benches.
//!
//! One for each file of exact pins, `tests/workload/requirements/<name>.txt`, in `<cache>/venv/<name>`; a stamp with the
//! hash of the pins and of the interpreter says whether it is current. Made with the host's own `python3 -m venv`
//! and pip: which index they use is the host's affair.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// Makes or refreshes each named environment. Safe to call from several processes at once.
///
/// # Errors
/// An unknown name, no usable `python3`, or a pip that failed; the message says what to do.
pub(crate) fn ensure(names: &[&str]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let root = root()?;
    fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
    let lock =
        File::create(root.join(".lock")).context("cannot make the lock file of the Python environments")?;
    lock.lock().context("cannot lock the Python environments")?;
    let mut interpreter = None;
    for name in names {
        let requirements = requirements(name);
        let pins = fs::read(&requirements).with_context(|| {
            format!(
                "no requirements for the environment {name:?}: {}",
                requirements.display()
            )
        })?;
        let version = match &interpreter {
            Some(version) => version,
            None => interpreter.insert(host_python()?),
        };
        let stamp = stamp(&pins, version);
        let dir = root.join(name);
        if fs::read_to_string(dir.join("stamp")).is_ok_and(|found| found == stamp) {
            continue;
        }
        create(&dir, &requirements)?;
        fs::write(dir.join("stamp"), stamp).with_context(|| format!("cannot stamp {}", dir.display()))?;
    }
    Ok(())
}

/// The folder of an environment, made or not.
///
/// # Errors
/// No cache folder can be told from the environment variables.
pub(crate) fn path(name: &str) -> Result<PathBuf> {
    Ok(root()?.join(name))
}

/// `$CELERYSCOPE_CACHE`, else `$XDG_CACHE_HOME/celeryscope`, else `~/.cache/celeryscope`.
fn root() -> Result<PathBuf> {
    let set = |key: &str| {
        std::env::var_os(key)
            .filter(|v: &OsString| !v.is_empty())
            .map(PathBuf::from)
    };
    let cache = set("CELERYSCOPE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("celeryscope")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/celeryscope")))
        .context("no cache folder: set CELERYSCOPE_CACHE or HOME")?;
    Ok(cache.join("venv"))
}

fn requirements(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/workload/requirements")
        .join(format!("{name}.txt"))
}

/// Version and prefix of the host's Python, after making sure that it can make environments.
fn host_python() -> Result<String> {
    const PROBE: &str = "import sys, venv, ensurepip; print(sys.version, sys.prefix)";
    if let Some(found) = python(PROBE)? {
        return Ok(found);
    }
    install_venv_module()?;
    python(PROBE)?
        .context("python3 still cannot import venv and ensurepip: install your system's python3-venv package")
}

fn python(code: &str) -> Result<Option<String>> {
    let output = Command::new("python3")
        .args(["-c", code])
        .output()
        .context("cannot run python3: install Python 3.9 or later")?;
    Ok(output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// Debian and Ubuntu keep `venv` and `ensurepip` in a package of their own.
fn install_venv_module() -> Result<()> {
    let apt = Command::new("apt-get").arg("--version").output().is_ok();
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|o| o.stdout == b"0\n");
    if !(apt && root) {
        bail!("python3 has no venv module: install your system's python3-venv package");
    }
    eprintln!("installing Debian's python3-venv with apt-get: this python3 has no venv module");
    let mut install = Command::new("apt-get");
    install
        .args(["install", "-y", "--no-install-recommends", "python3-venv"])
        .env("DEBIAN_FRONTEND", "noninteractive");
    finish(install.output(), "apt-get install python3-venv")
}

fn create(dir: &Path, requirements: &Path) -> Result<()> {
    eprintln!("making the Python environment {}", dir.display());
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove the stale {}", dir.display()))?;
    }
    finish(
        Command::new("python3").args(["-m", "venv"]).arg(dir).output(),
        "python3 -m venv",
    )?;
    let mut pip = Command::new(dir.join("bin/python"));
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--pre",
        "--no-deps",
    ])
    .arg("-r")
    .arg(requirements);
    finish(
        pip.output(),
        &format!("pip install -r {}", requirements.display()),
    )?;
    // Nothing was resolved (--no-deps), so the list of pins must be complete in itself.
    let mut check = Command::new(dir.join("bin/python"));
    check.args(["-m", "pip", "check", "--disable-pip-version-check"]);
    finish(
        check.output(),
        &format!("pip check after {}", requirements.display()),
    )
}

fn finish(output: std::io::Result<Output>, what: &str) -> Result<()> {
    let output = output.with_context(|| format!("cannot start {what}"))?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        bail!(
            "{what} failed ({}): {}",
            output.status,
            lines[lines.len().saturating_sub(3)..].join(" | ")
        );
    }
    Ok(())
}

fn stamp(pins: &[u8], interpreter: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(pins);
    hash.update(interpreter.as_bytes());
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the stamp of the same pins, of changed pins, and of another interpreter.
    /// Guarantees: an environment is rebuilt when its pins or its Python change, and only then.
    #[test]
    fn stamp_follows_pins_and_interpreter() {
        let stamped = stamp(b"celery==5.7.0\n", "3.11");
        assert_eq!(stamped, stamp(b"celery==5.7.0\n", "3.11"));
        assert_ne!(stamped, stamp(b"celery==5.7.1\n", "3.11"));
        assert_ne!(stamped, stamp(b"celery==5.7.0\n", "3.12"));
    }

    /// Scenario: every requirements file of the repository is read.
    /// Guarantees: each line pins one exact version, so two machines get the same environment.
    #[test]
    fn requirements_are_exact_pins() {
        let folder = requirements("x");
        for entry in fs::read_dir(folder.parent().unwrap()).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            for line in text
                .lines()
                .filter(|line| !line.starts_with('#') && !line.is_empty())
            {
                let (name, version) = line
                    .split_once("==")
                    .unwrap_or_else(|| panic!("{}: {line}", path.display()));
                assert!(
                    !name.is_empty() && version.starts_with(|c: char| c.is_ascii_digit()),
                    "{line}"
                );
            }
        }
    }

    /// Scenario: an environment is asked for that has no requirements file.
    /// Guarantees: one line that names the missing file; nothing is created for it.
    #[test]
    fn unknown_name_is_refused() {
        let error = ensure(&["no-such-environment"]).unwrap_err().to_string();
        assert!(error.contains("no-such-environment.txt"), "{error}");
        assert!(!path("no-such-environment").unwrap().exists());
    }
}
