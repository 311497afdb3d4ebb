//! celeryscope's developer commands: `cargo xtask setup|demo|test|vm|bench|ebpf|layers`.
//!
//! Each command says what it does, does nothing twice, and fails with one line that names what to do. Whatever it
//! downloads goes to one cache directory (see [`util::cache_dir`]); whatever it starts, it stops.
#![forbid(unsafe_code)]

mod bench;
mod bpf;
mod demo;
mod ebpf;
mod layers;
mod privilege;
mod process;
mod setup;
mod steps;
mod test;
mod toolchain;
mod util;
mod venv;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "celeryscope's developer commands", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Get what the other commands need and this machine lacks: Redis, Python environments, the BPF toolchain
    Setup,
    /// Run a small shop that has no tracing code and show the traces celeryscope makes of it
    Demo(demo::Args),
    /// Run every test: units, replays, documentation, and end to end against a real broker
    Test(test::Args),
    /// Run the end-to-end tests on Debian's kernels in QEMU, with each back end they have
    Vm(vm::Args),
    /// Measure the core on recordings and the agent on live traffic
    Bench(bench::Args),
    /// Build the kernel half, or check that the committed objects match its source
    Ebpf {
        #[command(subcommand)]
        action: EbpfAction,
    },
    /// Check that dependencies and imports point the way ARCHITECTURE.md says
    Layers,
}

#[derive(Subcommand)]
enum EbpfAction {
    /// Build the BPF object and put it where the agent embeds it from
    Build,
    /// Rebuild the BPF object and compare it with the committed one
    Verify,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup => setup::run(),
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Vm(args) => vm::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Ebpf {
            action: EbpfAction::Build,
        } => ebpf::build(util::root()),
        Command::Ebpf {
            action: EbpfAction::Verify,
        } => ebpf::verify(util::root()),
        Command::Layers => layers::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<process::Interrupted>() => {
            eprintln!("{error}");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
