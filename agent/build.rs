//! Puts the kernel half's object into `OUT_DIR`: compiled from source where the tools are to be had, else the one in
//! `agent-ebpf/prebuilt`. `CELERYSCOPE_EBPF=build` or `=prebuilt` forces one.
//!
//! Tells the crate by environment: `CELERYSCOPE_EBPF_SHA256` (of the object) and `CELERYSCOPE_EBPF_ORIGIN`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};

#[path = "../xtask/src/bpf.rs"]
mod bpf;

const PREBUILT: &str = "agent-ebpf/prebuilt";

fn main() -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the package has no workspace around it")?;
    for source in bpf::SOURCES.iter().chain(&[PREBUILT, "xtask/src/bpf.rs"]) {
        println!("cargo:rerun-if-changed={}", workspace.join(source).display());
    }
    for name in ["CELERYSCOPE_EBPF", "CELERYSCOPE_CACHE"] {
        println!("cargo:rerun-if-env-changed={name}");
    }

    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let arch = env::var("CARGO_CFG_TARGET_ARCH").context("CARGO_CFG_TARGET_ARCH is not set")?;
    let (object, origin) = match env::var("CELERYSCOPE_EBPF").as_deref() {
        Ok("build") => build(workspace, &out, &arch)?,
        Ok("prebuilt") => {
            if !is_current(workspace)? {
                println!("cargo:warning=the prebuilt BPF object is older than its sources");
            }
            prebuilt(workspace, &arch)?
        }
        Ok("") | Err(_) => match build(workspace, &out, &arch) {
            Ok(built) => built,
            // An old object would not do what the sources say.
            Err(why) if !is_current(workspace)? => {
                return Err(why
                    .context("cannot build the BPF object, and the prebuilt one is older than its sources"));
            }
            Err(why) => {
                let why = format!("{why:#}");
                let error = why.lines().find(|line| line.starts_with("error"));
                let reason = error.or(why.lines().next()).unwrap_or_default();
                println!("cargo:warning=embedding the prebuilt BPF object: {reason}");
                prebuilt(workspace, &arch)?
            }
        },
        Ok(other) => bail!("CELERYSCOPE_EBPF={other}: must be build or prebuilt"),
    };
    println!("cargo:rustc-env=CELERYSCOPE_EBPF_SHA256={}", bpf::sha256(&object));
    println!("cargo:rustc-env=CELERYSCOPE_EBPF_ORIGIN={origin}");
    fs::write(out.join("celeryscope.bpf.o"), object).context("cannot write the BPF object to OUT_DIR")
}

fn build(workspace: &Path, out: &Path, arch: &str) -> Result<(Vec<u8>, String)> {
    let mut failed = None;
    for toolchain in bpf::Toolchain::all()? {
        match toolchain.build(workspace, &out.join("ebpf"), arch) {
            Ok(file) => {
                let object = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
                let origin = format!("built by {}, {}", toolchain.version, toolchain.linker_version);
                return Ok((object, origin));
            }
            Err(why) => failed = Some(why),
        }
    }
    Err(failed.unwrap_or_else(|| anyhow!("there is no BPF toolchain")))
}

fn prebuilt(workspace: &Path, arch: &str) -> Result<(Vec<u8>, String)> {
    let file = workspace.join(PREBUILT).join(format!("{arch}.bpfel.o"));
    let object = fs::read(&file).with_context(|| {
        format!(
            "there is no {} (`cargo xtask setup` gets a BPF toolchain)",
            file.display()
        )
    })?;
    Ok((object, "prebuilt".to_owned()))
}

/// Were the prebuilt objects built from the sources as they are?
fn is_current(workspace: &Path) -> Result<bool> {
    let manifest = fs::read_to_string(workspace.join(PREBUILT).join("MANIFEST")).unwrap_or_default();
    Ok(manifest.contains(&bpf::sources_hash(workspace)?))
}
