//! `cargo xtask ebpf build|verify`: the BPF objects that are committed, so that the agent builds without BPF tools.
//!
//! `agent-ebpf/prebuilt/MANIFEST` has a line for each object: its file, its hash, the hash of the sources it was built
//! from, and what built it. The hashes are enough to tell a stale object without any tool.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::bpf::{self, Toolchain};
use crate::toolchain;

const PREBUILT: &str = "agent-ebpf/prebuilt";
const MANIFEST: &str = "agent-ebpf/prebuilt/MANIFEST";

/// Compiles the kernel half for this machine's architecture and puts object and manifest in their place.
///
/// # Errors
/// When there is no BPF toolchain, or it fails.
pub(crate) fn build(workspace: &Path) -> Result<()> {
    let toolchain = toolchain::first().context("run `cargo xtask setup` first")?;
    let arch = env::consts::ARCH;
    let object = compile(workspace, &toolchain, arch)?;
    let name = object_name(arch);
    fs::create_dir_all(workspace.join(PREBUILT)).context("cannot make the folder of prebuilt objects")?;
    fs::write(workspace.join(PREBUILT).join(&name), &object)
        .with_context(|| format!("cannot write {name}"))?;
    let entry = Entry {
        sha256: bpf::sha256(&object),
        sources: bpf::sources_hash(workspace)?,
        rustc: toolchain.version,
        linker: toolchain.linker_version,
        name,
    };
    let mut entries = manifest(workspace).unwrap_or_default();
    entries.retain(|other| other.name != entry.name);
    println!("{} {} bytes, sha256 {}", entry.name, object.len(), entry.sha256);
    entries.push(entry);
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let text: String = entries.iter().map(Entry::to_line).collect();
    fs::write(workspace.join(MANIFEST), text).context("cannot write the manifest")
}

/// Checks that the committed objects are what the manifest says and were built from the sources as they are now. With
/// the same tools as then, builds again and compares.
///
/// # Errors
/// Names the object that is stale or differs.
pub(crate) fn verify(workspace: &Path) -> Result<()> {
    let sources = bpf::sources_hash(workspace)?;
    let entries = manifest(workspace)?;
    if entries.is_empty() {
        bail!("{MANIFEST} names no object: run `cargo xtask ebpf build`");
    }
    let tools = toolchain::first();
    for entry in &entries {
        let path = workspace.join(PREBUILT).join(&entry.name);
        let object = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if bpf::sha256(&object) != entry.sha256 {
            bail!(
                "{} is not the object that the manifest names: run `cargo xtask ebpf build`",
                entry.name
            );
        }
        if entry.sources != sources {
            bail!(
                "{} is older than its sources: run `cargo xtask ebpf build`",
                entry.name
            );
        }
        let Some(arch) = entry.name.strip_suffix(".bpfel.o") else {
            bail!("{} in {MANIFEST} is not named ARCH.bpfel.o", entry.name);
        };
        match &tools {
            Ok(tools) if tools.version == entry.rustc && tools.linker_version == entry.linker => {
                if compile(workspace, tools, arch)? != object {
                    bail!(
                        "{} is not what its sources build: run `cargo xtask ebpf build`",
                        entry.name
                    );
                }
                println!("{}: hashes match, rebuilt and equal", entry.name);
            }
            Ok(_) => println!("{}: hashes match (not rebuilt: built by other tools)", entry.name),
            Err(why) => println!("{}: hashes match (not rebuilt: {why})", entry.name),
        }
    }
    Ok(())
}

/// The object without debug information; BTF stays.
fn compile(workspace: &Path, toolchain: &Toolchain, arch: &str) -> Result<Vec<u8>> {
    let built = toolchain.build(workspace, &workspace.join("target/ebpf"), arch)?;
    let strip = llvm_strip().context("llvm-strip is not installed (package llvm, or llvm-VERSION)")?;
    let stripped = built.with_extension("stripped");
    let done = Command::new(&strip)
        .args(["--strip-debug", "-o"])
        .args([&stripped, &built])
        .status()
        .with_context(|| format!("cannot run {}", strip.display()))?;
    if !done.success() {
        bail!("{} failed on {}", strip.display(), built.display());
    }
    fs::read(&stripped).with_context(|| format!("cannot read {}", stripped.display()))
}

/// On PATH, else the newest of the distribution's.
fn llvm_strip() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path)
        .map(|dir| dir.join("llvm-strip"))
        .find(|file| file.is_file());
    on_path.or_else(|| {
        (15..40)
            .rev()
            .map(|version| PathBuf::from(format!("/usr/lib/llvm-{version}/bin/llvm-strip")))
            .find(|file| file.is_file())
    })
}

fn object_name(arch: &str) -> String {
    format!("{arch}.bpfel.o")
}

/// A line of the manifest: five fields with tabs between them.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    sha256: String,
    sources: String,
    rustc: String,
    linker: String,
}

impl Entry {
    fn to_line(&self) -> String {
        let Self {
            name,
            sha256,
            sources,
            rustc,
            linker,
        } = self;
        format!("{name}\tsha256={sha256}\tsources={sources}\t{rustc}\t{linker}\n")
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        Some(Self {
            name: fields.next()?.to_owned(),
            sha256: fields.next()?.strip_prefix("sha256=")?.to_owned(),
            sources: fields.next()?.strip_prefix("sources=")?.to_owned(),
            rustc: fields.next()?.to_owned(),
            linker: fields.next()?.to_owned(),
        })
    }
}

fn manifest(workspace: &Path) -> Result<Vec<Entry>> {
    let text =
        fs::read_to_string(workspace.join(MANIFEST)).with_context(|| format!("cannot read {MANIFEST}"))?;
    text.lines()
        .map(|line| Entry::parse(line).with_context(|| format!("{MANIFEST} has a line that is none: {line}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a manifest line is written and read; another is cut.
    /// Guarantees: the same entry; the cut one is refused.
    #[test]
    fn manifest_lines() {
        let entry = Entry {
            name: "x86_64.bpfel.o".to_owned(),
            sha256: "aa".to_owned(),
            sources: "bb".to_owned(),
            rustc: "rustc 1.96.0 (built from a source tarball)".to_owned(),
            linker: "bpf-linker 0.13.0".to_owned(),
        };
        let line = entry.to_line();
        assert_eq!(Entry::parse(line.trim_end()), Some(entry));
        assert_eq!(Entry::parse("x86_64.bpfel.o\tsha256=aa"), None);
    }
}
