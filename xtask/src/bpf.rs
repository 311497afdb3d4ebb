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

use anyhow::{Context as _, Result, bail};
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
    /// [`NIGHTLY`] of rustup.
    Nightly,
    /// A rustc that is told that it may use unstable flags.
    At(PathBuf),
}

impl Rustc {
    fn command(&self) -> Command {
        match self {
            Self::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", NIGHTLY, "rustc"]);
                command
            }
            Self::At(path) => Command::new(path),
        }
    }
}

impl Toolchain {
    /// The toolchains that are complete, in the order in which to try them: a distribution's before rustup's, because it
    /// does not change under one's feet. A compiler whose LLVM is newer than the linker's is left out: the linker could
    /// not read what it writes.
    ///
    /// # Errors
    /// Says what is missing when there is none.
    pub(crate) fn all() -> Result<Vec<Self>> {
        let linker = linker().context("bpf-linker is not installed")?;
        let linker_version =
            output(Command::new(&linker).arg("--version")).context("bpf-linker does not run")?;
        let newest = linked_llvm(&linker);
        let fits = |rustc: &Rustc| {
            let sources = sysroot(&mut rustc.command())
                .is_some_and(|root| root.join(LIBRARY).join("core/src/lib.rs").is_file());
            let llvm = llvm_of(rustc);
            sources && newest.is_none_or(|newest| llvm.is_none_or(|llvm| llvm <= newest))
        };
        let found: Vec<Self> = [Rustc::At(PathBuf::from("/usr/bin/rustc")), Rustc::Nightly]
            .into_iter()
            .filter(fits)
            .filter_map(|rustc| {
                let version = output(rustc.command().arg("--version"))?;
                Some(Self {
                    rustc,
                    linker: linker.clone(),
                    version,
                    linker_version: linker_version.clone(),
                })
            })
            .collect();
        if found.is_empty() {
            let llvm = newest.map_or(String::new(), |newest| {
                format!(", with LLVM {newest} or older for bpf-linker")
            });
            bail!("neither /usr/bin/rustc nor rustup's nightly has the sources of core (rust-src){llvm}");
        }
        Ok(found)
    }

    /// Compiles the kernel half of `workspace` for a kernel of architecture `arch`, below `target_dir`, which must
    /// not be the target directory of a cargo that waits for this. Gives the object file.
    ///
    /// # Errors
    /// When cargo fails; the error holds what it printed.
    pub(crate) fn build(&self, workspace: &Path, target_dir: &Path, arch: &str) -> Result<PathBuf> {
        let mut cargo = match &self.rustc {
            Rustc::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", NIGHTLY, "cargo"]).env_remove("RUSTC");
                command
            }
            Rustc::At(rustc) => {
                let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
                command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
                command
            }
        };
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
            // The linker puts everything together; what the agent's profile says of that is of no use here.
            .env("CARGO_PROFILE_RELEASE_LTO", "thin")
            .args([
                "build",
                "--package",
                "celeryscope-ebpf",
                "--release",
                "--target",
                target,
            ])
            .args(["-Z", "build-std=core", "--target-dir"])
            .arg(target_dir);
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
        let sysroot = sysroot(&mut self.rustc.command());
        names.extend(sysroot.map(|root| (root.join(LIBRARY), "library")));
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

/// The nightly of rustup that is used: a dated one, whose LLVM is that of the newest bpf-linker.
pub(crate) const NIGHTLY: &str = "nightly-2026-05-20";

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

/// The major version of LLVM that a linker loads; `None` where it carries its own.
fn linked_llvm(linker: &Path) -> Option<u32> {
    const NAME: &[u8] = b"libLLVM.so.";
    let program = fs::read(linker).ok()?;
    let at = program.windows(NAME.len()).position(|window| window == NAME)?;
    leading_number(&String::from_utf8_lossy(
        program.get(at + NAME.len()..)?.get(..8)?,
    ))
}

/// The major version of LLVM that a compiler writes bitcode of.
fn llvm_of(rustc: &Rustc) -> Option<u32> {
    let version = output(rustc.command().arg("-vV"))?;
    leading_number(
        version
            .lines()
            .find_map(|line| line.strip_prefix("LLVM version: "))?,
    )
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

fn sysroot(rustc: &mut Command) -> Option<PathBuf> {
    output(rustc.args(["--print", "sysroot"])).map(PathBuf::from)
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
