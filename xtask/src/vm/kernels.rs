//! Debian's kernels: which there are, and how one gets into the cache.
//!
//! What is kept of a kernel, in `<cache>/kernels/<name>`: its image, and the few modules that a guest needs before it has the
//! host's files, unpacked and numbered in the order in which they are loaded. A kernel that is there is not asked for again,
//! so the archive may move on.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt::Suite;
use crate::util;

/// A kernel of the matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    /// As it is named on the command line: the series.
    pub(crate) name: &'static str,
    /// The release of Debian that has it.
    suite: &'static str,
}

/// All of them, oldest first.
pub(crate) const KERNELS: [Kernel; 4] = [
    Kernel {
        name: "5.10",
        suite: "bullseye",
    },
    Kernel {
        name: "6.1",
        suite: "bookworm",
    },
    Kernel {
        name: "6.12",
        suite: "trixie",
    },
    Kernel {
        name: "7.2",
        suite: "sid",
    },
];

/// The modules, in the order of loading. A kernel may have some of them built in, and older or newer ones lack some.
const MODULES: [&str; 13] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "netfs",
    "fscache",
    "9pnet",
    "9pnet_virtio",
    "9p",
    "overlay",
    "dummy",
    "veth",
];
/// Without these, as modules or built in, no guest comes up.
const INDISPENSABLE: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];

/// A kernel in the cache.
#[derive(Debug)]
pub(crate) struct Image {
    /// As `uname -r` says.
    pub(crate) release: String,
    pub(crate) vmlinuz: PathBuf,
    /// In the order of loading.
    pub(crate) modules: Vec<PathBuf>,
}

/// The kernel of that name, for the command line.
///
/// # Errors
/// There is none; the message lists those there are.
pub(crate) fn parse(name: &str) -> Result<Kernel, String> {
    KERNELS
        .into_iter()
        .find(|kernel| kernel.name == name)
        .ok_or_else(|| format!("known kernels: {}", KERNELS.map(|kernel| kernel.name).join(", ")))
}

impl Kernel {
    /// Gets it into the cache, if it is not there.
    pub(crate) fn obtain(self) -> Result<Image> {
        let kernels = util::cache_dir()?.join("kernels");
        fs::create_dir_all(&kernels).with_context(|| format!("cannot make {}", kernels.display()))?;
        let lock = File::create(kernels.join(".lock")).context("cannot make the lock file of the kernels")?;
        lock.lock().context("cannot lock the kernels")?;
        let home = kernels.join(self.name);
        if let Some(image) = cached(&home) {
            return Ok(image);
        }
        let suite = Suite::fetch(self.suite, &kernels.join("apt").join(self.suite))?;
        let release = self.release(&suite.depends("linux-image-amd64")?)?;
        let packages = packages(&release, &suite.depends(&format!("linux-image-{release}"))?);
        let work = tempfile::tempdir_in(&kernels)?;
        let tree = work.path().join("tree");
        for package in &packages {
            let file = suite.download(package, work.path())?;
            util::run(Command::new("dpkg-deb").arg("-x").arg(file).arg(&tree))?;
        }
        let kept = work.path().join("kept");
        keep(&tree, &release, &kept).with_context(|| format!("in {}", packages.join(" and ")))?;
        if home.exists() {
            fs::remove_dir_all(&home)?;
        }
        fs::rename(&kept, &home)?;
        cached(&home).with_context(|| format!("{} is incomplete", home.display()))
    }

    /// The release that the suite has now, from what its newest kernel's package depends on.
    fn release(self, depends: &str) -> Result<String> {
        let release = dependencies(depends)
            .find_map(|name| name.strip_prefix("linux-image-"))
            .with_context(|| format!("Debian's {} has no linux-image-amd64", self.suite))?;
        let rest = release.strip_prefix(self.name);
        if rest.is_none_or(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
            bail!(
                "Debian's {} has moved on to kernel {release}, and the matrix wants {}, which is not in the cache: name \
                 another suite, or another kernel, in xtask/src/vm/kernels.rs",
                self.suite,
                self.name
            );
        }
        Ok(release.to_owned())
    }
}

/// What is in the cache already, if it was made with the present list of modules.
fn cached(home: &Path) -> Option<Image> {
    let stamp = fs::read_to_string(home.join("stamp")).ok()?;
    let (release, rest) = stamp.split_once('\n')?;
    if rest != MODULES.join("\n") {
        return None;
    }
    let entries = fs::read_dir(home.join("modules")).ok()?;
    let mut modules: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    modules.sort();
    Some(Image {
        release: release.to_owned(),
        vmlinuz: home.join("vmlinuz"),
        modules,
    })
}

/// The packages with the image, the modules and the list of those built in: one, or since 7.x three that the old name only
/// points to.
fn packages(release: &str, depends: &str) -> Vec<String> {
    let parts = ["base", "binary", "modules"].map(|part| format!("linux-{part}-{release}"));
    let parts: Vec<String> = dependencies(depends)
        .map(str::to_owned)
        .filter(|name| parts.contains(name))
        .collect();
    if parts.is_empty() {
        vec![format!("linux-image-{release}")]
    } else {
        parts
    }
}

/// The names behind `Depends:` in what `apt-cache depends` prints; alternatives have a bar in front.
fn dependencies(printed: &str) -> impl Iterator<Item = &str> {
    printed
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("Depends: "))
}

/// Puts what is needed of an unpacked kernel into `kept`.
fn keep(tree: &Path, release: &str, kept: &Path) -> Result<()> {
    let homes = ["lib/modules", "usr/lib/modules"].map(|home| tree.join(home).join(release));
    let home = homes.iter().find(|home| home.exists());
    let home = home.with_context(|| format!("no modules of {release}"))?;
    let images = [tree.join(format!("boot/vmlinuz-{release}")), home.join("vmlinuz")];
    let image = images.iter().find(|image| image.exists());
    let image = image.with_context(|| format!("no image of {release}"))?;
    fs::create_dir_all(kept.join("modules"))?;
    fs::copy(image, kept.join("vmlinuz"))?;

    let built_in = fs::read_to_string(home.join("modules.builtin")).unwrap_or_default();
    let built_in: Vec<String> = built_in.lines().filter_map(module_name).collect();
    let mut files = Vec::new();
    walk(&home.join("kernel"), &mut files)?;
    for (number, module) in MODULES.iter().enumerate() {
        let is_it = |file: &&PathBuf| file.to_str().and_then(module_name).as_deref() == Some(module);
        match files.iter().find(is_it) {
            Some(file) => unpack(file, &kept.join(format!("modules/{number:02}-{module}.ko")))?,
            None if INDISPENSABLE.contains(module) && !built_in.iter().any(|name| name == module) => {
                bail!("no module {module}, and it is not built in");
            }
            None => {}
        }
    }
    fs::write(kept.join("stamp"), format!("{release}\n{}", MODULES.join("\n")))?;
    Ok(())
}

/// What a module's file is called without folder, endings, and the choice of `-` or `_`.
fn module_name(path: &str) -> Option<String> {
    let (_, file) = path.rsplit_once('/')?;
    let (name, _) = file.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Copies a module, unpacked: not every kernel unpacks modules itself.
fn unpack(module: &Path, to: &Path) -> Result<()> {
    if module.extension().is_some_and(|ending| ending == "xz") {
        return util::run(
            Command::new("xz")
                .arg("-dc")
                .arg(module)
                .stdout(File::create(to)?),
        );
    }
    fs::copy(module, to)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOKWORM: &str = "linux-image-amd64\n  Depends: linux-image-6.1.0-50-amd64\n";
    const SID: &str =
        "linux-image-amd64\n  Depends: linux-base-amd64\n  Depends: linux-image-7.2.13+deb14-amd64\n";
    const SPLIT: &str = "linux-image-7.2.13+deb14-amd64\n  PreDepends: linux-base\n |Depends: dracut\n  \
        Depends: <linux-initramfs-tool>\n    dracut\n  Depends: linux-base-7.2.13+deb14-amd64\n  \
        Depends: linux-binary-7.2.13+deb14-amd64\n  Depends: linux-modules-7.2.13+deb14-amd64\n  Suggests: linux-doc-7.2\n";

    /// Scenario: what apt says of a kernel in one package and of one that is split.
    /// Guarantees: the packages with image and modules are chosen, and no others.
    #[test]
    fn packages_of_a_kernel() {
        let release = parse("6.1").unwrap().release(BOOKWORM).expect("a kernel");
        assert_eq!(release, "6.1.0-50-amd64");
        let whole = "linux-image-6.1.0-50-amd64\n  Depends: kmod\n |Depends: initramfs-tools\n";
        assert_eq!(packages(&release, whole), ["linux-image-6.1.0-50-amd64"]);

        let release = parse("7.2").unwrap().release(SID).expect("a kernel");
        assert_eq!(
            packages(&release, SPLIT),
            [
                "linux-base-7.2.13+deb14-amd64",
                "linux-binary-7.2.13+deb14-amd64",
                "linux-modules-7.2.13+deb14-amd64"
            ]
        );
    }

    /// Scenario: the suite has another kernel than the matrix wants, one whose name begins alike among them.
    /// Guarantees: it is not taken; the message names both.
    #[test]
    fn another_kernel_is_refused() {
        let wanted = parse("6.1").unwrap();
        for other in ["6.12.4+deb13-amd64", "7.3.1+deb14-amd64"] {
            let depends = format!("linux-image-amd64\n  Depends: linux-image-{other}\n");
            let error = wanted.release(&depends).unwrap_err().to_string();
            assert!(error.contains(other) && error.contains("wants 6.1,"), "{error}");
        }
    }

    /// Scenario: a kernel that is not in the matrix.
    /// Guarantees: the message lists those that are.
    #[test]
    fn known_kernels_are_listed() {
        assert_eq!(parse("4.19").unwrap_err(), "known kernels: 5.10, 6.1, 6.12, 7.2");
    }

    /// Scenario: files of modules, packed or not, and entries of `modules.builtin`.
    /// Guarantees: they go by one name.
    #[test]
    fn names_of_modules() {
        for path in [
            "/x/kernel/net/9p/9pnet_virtio.ko.xz",
            "kernel/net/9p/9pnet-virtio.ko",
        ] {
            assert_eq!(module_name(path).as_deref(), Some("9pnet_virtio"));
        }
        assert_eq!(module_name("/x/modules.dep"), None);
    }
}
