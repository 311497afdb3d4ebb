//! Puts the kernel half's object into `OUT_DIR`: compiled from source where the tools are to be had, else the one in
//! `agent-ebpf/prebuilt`. `CELERYSCOPE_EBPF=build` or `=prebuilt` forces one.
//!
//! Tells the crate by environment: `CELERYSCOPE_EBPF_SHA256` (of the object) and `CELERYSCOPE_EBPF_ORIGIN`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

#[path = "../xtask/src/bpf.rs"]
mod bpf;

fn main() -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the package has no workspace around it")?;
    for source in bpf::SOURCES
        .iter()
        .chain(&["agent-ebpf/prebuilt", "xtask/src/bpf.rs"])
    {
        println!("cargo:rerun-if-changed={}", workspace.join(source).display());
    }
    for name in ["CELERYSCOPE_EBPF", "CELERYSCOPE_CACHE"] {
        println!("cargo:rerun-if-env-changed={name}");
    }

    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let arch = env::var("CARGO_CFG_TARGET_ARCH").context("CARGO_CFG_TARGET_ARCH is not set")?;
    let (object, origin) = match env::var("CELERYSCOPE_EBPF").as_deref() {
        Ok("build") => build(workspace, &out, &arch)?,
        Ok("prebuilt") => prebuilt(workspace, &arch)?,
        Ok("") | Err(_) => match build(workspace, &out, &arch) {
            Ok(built) => built,
            Err(why) => {
                let why = format!("{why:#}");
                let reason = why
                    .lines()
                    .find(|line| line.starts_with("error"))
                    .or(why.lines().next());
                println!(
                    "cargo:warning=embedding the prebuilt BPF object: {}",
                    reason.unwrap_or("no BPF toolchain")
                );
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
    let toolchain = bpf::Toolchain::find()?;
    let file = toolchain.build(workspace, &out.join("ebpf"), arch)?;
    let object = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok((
        object,
        format!("built by {}, {}", toolchain.version, toolchain.linker_version),
    ))
}

fn prebuilt(workspace: &Path, arch: &str) -> Result<(Vec<u8>, String)> {
    let file = workspace
        .join("agent-ebpf/prebuilt")
        .join(format!("{arch}.bpfel.o"));
    let object = fs::read(&file).with_context(|| {
        format!(
            "no BPF toolchain and no prebuilt object {} (try `cargo xtask setup`)",
            file.display()
        )
    })?;
    let sources = bpf::sources_hash(workspace)?;
    let manifest = fs::read_to_string(file.with_file_name("MANIFEST")).unwrap_or_default();
    if !manifest.contains(&sources) {
        println!("cargo:warning={} is older than its sources", file.display());
    }
    Ok((object, "prebuilt".to_owned()))
}
