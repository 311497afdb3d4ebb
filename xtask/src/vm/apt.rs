//! Debian's archive without Debian's apt state: lists, cache and settings of our own, below one folder.
//!
//! The host's settings are read first, so that a proxy or a mirror of the host's is used; then ours go over them. Nothing
//! is installed, the host's lists and caches are not touched, and the hooks that others hang on `apt-get update` don't run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::util;

/// What every package of Debian's is signed with; from the package `debian-archive-keyring`.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Where packages come from when the host has no mirror of Debian's.
const MIRROR: &str = "http://deb.debian.org/debian";

/// One suite of the archive.
pub(super) struct Suite {
    folder: PathBuf,
}

impl Suite {
    /// Fetches the suite's lists.
    pub(super) fn fetch(suite: &str, folder: &Path) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let mirror = mirror();
        util::say("packages", format!("lists of Debian's {suite} from {mirror}"));
        fs::write(folder.join("status"), "")?;
        fs::write(
            folder.join("sources.list"),
            format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"),
        )?;
        fs::write(folder.join("apt.conf"), settings(folder))?;
        let this = Self {
            folder: folder.to_owned(),
        };
        util::run(
            this.command("apt-get")
                .args(["-qq", "update"])
                .stdout(Stdio::null()),
        )?;
        Ok(this)
    }

    /// The packages that a package needs, as `apt-cache depends` prints them.
    pub(super) fn depends(&self, package: &str) -> Result<String> {
        util::output(self.command("apt-cache").args(["depends", package]))
    }

    /// Fetches a package; gives its file.
    pub(super) fn download(&self, package: &str, into: &Path) -> Result<PathBuf> {
        util::say("download", package);
        let mut download = self.command("apt-get");
        download.args(["-qq", "download", package]).current_dir(into);
        util::run(download.stdout(Stdio::null()))?;
        let is_it = |name: &str| name.starts_with(&format!("{package}_"));
        for entry in fs::read_dir(into)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(is_it) {
                return Ok(entry.path());
            }
        }
        bail!("apt-get downloaded no file of {package}")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(self.folder.join("apt.conf"));
        command
    }
}

/// What goes over the host's settings. Lists of options have to be cleared: apt adds to them.
fn settings(folder: &Path) -> String {
    let at = |name: &str| folder.join(name).display().to_string();
    format!(
        "#clear APT::Update::Pre-Invoke;\n\
         #clear APT::Update::Post-Invoke;\n\
         #clear APT::Update::Post-Invoke-Success;\n\
         #clear Acquire::IndexTargets::deb::DEP-11;\n\
         #clear Acquire::IndexTargets::deb::DEP-11-icons-small;\n\
         #clear Acquire::IndexTargets::deb::DEP-11-icons;\n\
         #clear Acquire::IndexTargets::deb::DEP-11-icons-large;\n\
         #clear APT::Architectures;\n\
         APT::Architecture \"amd64\";\n\
         APT::Architectures {{ \"amd64\"; }};\n\
         APT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\n\
         Dir::State \"{}\";\n\
         Dir::State::lists \"{}\";\n\
         Dir::State::status \"{}\";\n\
         Dir::Cache \"{}\";\n\
         Dir::Etc::sourcelist \"{}\";\n\
         Dir::Etc::sourceparts \"/dev/null\";\n\
         Dir::Etc::preferences \"/dev/null\";\n\
         Dir::Etc::preferencesparts \"/dev/null\";\n",
        folder.display(),
        at("lists"),
        at("status"),
        at("cache"),
        at("sources.list"),
    )
}

/// The host's own mirror of Debian, so that what its owner set up is used here as well.
fn mirror() -> String {
    let mut targets = Command::new("apt-get");
    targets.args([
        "indextargets",
        "--format",
        "$(LABEL) $(REPO_URI)",
        "Created-By: Packages",
    ]);
    let targets = util::output(&mut targets).unwrap_or_default();
    mirror_among(&targets).unwrap_or(MIRROR).to_owned()
}

/// The first archive labelled `Debian` (security updates and other vendors have labels of their own) that is on a network.
fn mirror_among(targets: &str) -> Option<&str> {
    targets.lines().find_map(|line| {
        let uri = line.strip_prefix("Debian ")?.trim_end_matches('/');
        uri.starts_with("http").then_some(uri)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a host with other vendors' archives, a CD, and Debian's archive from a mirror; and one that has none of Debian's.
    /// Guarantees: the mirror is taken, and nothing else for it.
    #[test]
    fn the_hosts_mirror_is_taken() {
        let debian = "\
            nodistro https://deb.nodesource.com/node_20.x/\n\
            Debian-Security http://mirror.example/debian-security/\n\
            Debian cdrom:[Debian 12]/\n\
            Debian http://mirror.example/debian/\n\
            Debian http://other.example/debian/\n";
        assert_eq!(mirror_among(debian), Some("http://mirror.example/debian"));
        assert_eq!(mirror_among("Ubuntu http://archive.ubuntu.com/ubuntu/\n"), None);
        assert_eq!(mirror_among(""), None);
    }
}
