//! Finds the toolchain that compiles the kernel half, and runs it. Shared by `agent/build.rs` and xtask, which must
//! agree on what a build is and on what it was made from.
//!
//! BPF is a tier 3 target: it needs a compiler that comes with the sources of `core`, permission to use unstable
//! flags, and `bpf-linker`. Two kinds of compiler do: a rustup nightly with `rust-src`, and a distribution's rustc
//! whose package of library sources is installed.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};
use sha2::{Digest as _, Sha256};

/// What a build of the kernel half is made from, below the workspace.
pub(crate) const SOURCES: [&str; 4] = [
    "agent-ebpf/Cargo.toml",
    "agent-ebpf/src",
    "agent-ebpf/common/Cargo.toml",
    "agent-ebpf/common/src",
];

/// A compiler and a linker for BPF.
pub(crate) struct Toolchain {
    rustc: Rustc,
    linker: PathBuf,
    /// The compiler's version line.
    pub(crate) version: String,
    /// The linker's version line.
    pub(crate) linker_version: String,
}

enum Rustc {
    /// A rustc that is told that it may use unstable flags.
    At(PathBuf),
    /// Rustup's.
    Nightly,
}

/// Compiles the kernel half of `workspace` for a kernel of architecture `arch`, below `target_dir`, which must not be
/// the target directory of a cargo that waits for this. Gives the object file and what built it.
///
/// # Errors
/// Says what is missing, or what the last toolchain that was tried said.
pub(crate) fn build(workspace: &Path, target_dir: &Path, arch: &str) -> Result<(PathBuf, Toolchain)> {
    let mut failed = None;
    for toolchain in Toolchain::all()? {
        match toolchain.build(workspace, target_dir, arch) {
            Ok(object) => return Ok((object, toolchain)),
            // Perhaps a compiler whose LLVM is newer than the linker's: the next may do.
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| anyhow!("no BPF toolchain")))
}

impl Toolchain {
    /// Every toolchain that is complete, the one to try first at the front: the distribution's, whose LLVM is the one
    /// that `cargo xtask setup` builds bpf-linker for.
    ///
    /// # Errors
    /// There is none; says what is missing.
    pub(crate) fn all() -> Result<Vec<Self>> {
        let linker = linker().context("bpf-linker is not installed")?;
        let linker_version =
            output(Command::new(&linker).arg("--version")).context("bpf-linker does not run")?;
        let all: Vec<Self> = [Rustc::At("/usr/bin/rustc".into()), Rustc::Nightly]
            .into_iter()
            .filter_map(|rustc| {
                if !rustc.sysroot()?.join(LIBRARY).join("core/src/lib.rs").is_file() {
                    return None;
                }
                Some(Self {
                    version: output(rustc.command().arg("--version"))?,
                    rustc,
                    linker: linker.clone(),
                    linker_version: linker_version.clone(),
                })
            })
            .collect();
        if all.is_empty() {
            bail!("neither /usr/bin/rustc nor rustup's nightly has the sources of core (rust-src)");
        }
        Ok(all)
    }

    fn build(&self, workspace: &Path, target_dir: &Path, arch: &str) -> Result<PathBuf> {
        let mut cargo = self.rustc.cargo();
        let target_dir = target_dir.join(match self.rustc {
            Rustc::At(_) => "system",
            Rustc::Nightly => "nightly",
        });
        // What the outer cargo was told concerns the host's programs.
        for name in [
            "RUSTFLAGS",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "CARGO_BUILD_TARGET",
        ] {
            cargo.env_remove(name);
        }
        let mut linker = OsString::from("-Clinker=");
        linker.push(&self.linker);
        let mut flags = linker;
        for flag in [
            "-Cdebuginfo=2".to_owned(),
            "-Clink-arg=--btf".to_owned(),
            format!("--cfg=bpf_target_arch=\"{arch}\""),
        ] {
            flags.push("\x1f");
            flags.push(flag);
        }
        for (from, to) in self.path_names(workspace) {
            flags.push(format!("\x1f--remap-path-prefix={}={to}", from.display()));
        }
        let target = "bpfel-unknown-none";
        cargo
            .current_dir(workspace)
            .env("CARGO_ENCODED_RUSTFLAGS", flags)
            .args([
                "build",
                "--package",
                "celeryscope-ebpf",
                "--release",
                "--target",
                target,
            ])
            .args(["-Z", "build-std=core", "--target-dir"])
            .arg(&target_dir);
        let done = cargo
            .output()
            .with_context(|| format!("cannot run {:?}", cargo.get_program()))?;
        if !done.status.success() {
            bail!(
                "cargo build for {target} failed:\n{}",
                String::from_utf8_lossy(&done.stderr)
            );
        }
        Ok(target_dir.join(target).join("release/celeryscope-ebpf"))
    }

    /// Folders that the object's line information names, and what stands for them, so that the same sources give the
    /// same object on every machine.
    fn path_names(&self, workspace: &Path) -> Vec<(PathBuf, &'static str)> {
        let mut names = vec![(workspace.to_owned(), "celeryscope")];
        names.extend(self.rustc.sysroot().map(|root| (root.join(LIBRARY), "library")));
        let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
        let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from).or(home);
        let registries = cargo_home.and_then(|home| fs::read_dir(home.join("registry/src")).ok());
        names.extend(
            registries
                .into_iter()
                .flatten()
                .filter_map(|entry| Some((entry.ok()?.path(), "crates"))),
        );
        names
    }
}

impl Rustc {
    fn command(&self) -> Command {
        match self {
            Self::At(path) => Command::new(path),
            Self::Nightly => rustup("rustc"),
        }
    }

    /// A cargo that uses this compiler and may use unstable flags.
    fn cargo(&self) -> Command {
        match self {
            Self::At(path) => {
                let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
                cargo.env("RUSTC", path).env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
            Self::Nightly => {
                let mut cargo = rustup("cargo");
                cargo.env_remove("RUSTC");
                cargo
            }
        }
    }

    fn sysroot(&self) -> Option<PathBuf> {
        output(self.command().args(["--print", "sysroot"])).map(PathBuf::from)
    }
}

fn rustup(tool: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", tool]);
    command
}

/// Where a toolchain keeps the sources of `core`, below its root.
const LIBRARY: &str = "lib/rustlib/src/rust/library";

/// Where celeryscope keeps tools that it installed: `$CELERYSCOPE_CACHE`, else `celeryscope` in the user's cache.
pub(crate) fn cache_dir() -> Option<PathBuf> {
    let set = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("CELERYSCOPE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("celeryscope")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/celeryscope")))
}

/// Hash over the names and contents of [`SOURCES`].
///
/// # Errors
/// When one of them cannot be read.
pub(crate) fn sources_hash(workspace: &Path) -> Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&workspace.join(source), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let name = file
            .strip_prefix(workspace)
            .unwrap_or(&file)
            .to_string_lossy()
            .into_owned();
        let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(content);
    }
    Ok(hex(&hash.finalize()))
}

/// SHA-256 in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn linker() -> Option<PathBuf> {
    let own = cache_dir().map(|dir| dir.join("tools/bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    own.into_iter()
        .chain(env::split_paths(&path))
        .map(|dir| dir.join("bpf-linker"))
        .find(|file| file.is_file())
}

fn output(command: &mut Command) -> Option<String> {
    let done = command
        .env_remove("RUSTC")
        .output()
        .ok()
        .filter(|done| done.status.success())?;
    Some(String::from_utf8(done.stdout).ok()?.trim().to_owned())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
