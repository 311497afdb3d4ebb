//! Gets what is needed to compile the kernel half, where that is possible.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::bpf::{self, Toolchain};

/// Packages of Debian that make a BPF compiler: a rustc with its library sources, and the LLVM that bpf-linker links.
const DEBIAN: [&str; 5] = [
    "rustc-web",
    "rust-web-src",
    "llvm-22",
    "llvm-22-dev",
    "libpolly-22-dev",
];
const LLVM: &str = "/usr/lib/llvm-22";

/// Makes sure that the kernel half can be compiled, or says why the prebuilt object is used instead. Does nothing
/// when the tools are there.
///
/// # Errors
/// Never for want of a tool; only when what was installed does not run.
pub(crate) fn ensure() -> Result<()> {
    if let Ok(found) = first() {
        println!("BPF toolchain: {}, {}", found.version, found.linker_version);
        return Ok(());
    }
    if let Err(why) = install() {
        println!(
            "BPF toolchain: not to be had ({why:#}); the prebuilt object in agent-ebpf/prebuilt is used"
        );
        return Ok(());
    }
    let found = first().context("the BPF toolchain was installed but is not complete")?;
    println!("BPF toolchain: {}, {}", found.version, found.linker_version);
    Ok(())
}

/// The toolchain that is tried first.
///
/// # Errors
/// Says what is missing.
pub(crate) fn first() -> Result<Toolchain> {
    Toolchain::all()?
        .into_iter()
        .next()
        .context("there is no BPF toolchain")
}

fn install() -> Result<()> {
    if nightly().is_ok() {
        println!("installed {} with rust-src", bpf::NIGHTLY);
        // Builds where the system has the LLVM that it links.
        if linker().is_ok() {
            return Ok(());
        }
    }
    debian().context("no packages from Debian")?;
    println!("installed {}", DEBIAN.join(", "));
    linker()
}

fn nightly() -> Result<()> {
    run(Command::new("rustup")
        .args(["toolchain", "install", bpf::NIGHTLY, "--profile", "minimal"])
        .args(["--component", "rust-src"]))
}

fn debian() -> Result<()> {
    let mut install = Command::new("apt-get");
    install
        .args(["install", "--yes", "--no-install-recommends"])
        .args(DEBIAN);
    run(install.env("DEBIAN_FRONTEND", "noninteractive"))
}

/// bpf-linker, into the project's cache: nothing of the user's is touched.
fn linker() -> Result<()> {
    let root = bpf::cache_dir()
        .context("no place for tools: set CELERYSCOPE_CACHE")?
        .join("tools");
    if root.join("bin/bpf-linker").is_file() || run(Command::new("bpf-linker").arg("--version")).is_ok() {
        return Ok(());
    }
    println!("building bpf-linker into {}", root.display());
    let mut install = Command::new("cargo");
    install
        .args(["install", "bpf-linker", "--locked", "--root"])
        .arg(&root);
    if Path::new(LLVM).join("bin/llvm-config").exists() {
        let path = env::var_os("PATH").unwrap_or_default();
        let bin = Path::new(LLVM).join("bin");
        let path = env::join_paths([bin].into_iter().chain(env::split_paths(&path)))?;
        install
            .args(["--no-default-features", "--features", "llvm-22"])
            .envs([("LLVM_SYS_221_PREFIX", LLVM), ("LLVM_PREFIX", LLVM)])
            .env("PATH", path);
    }
    run(&mut install)
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    if !done.status.success() {
        let errors = String::from_utf8_lossy(&done.stderr);
        bail!("{name} failed: {}", errors.lines().last().unwrap_or("no message"));
    }
    Ok(())
}
