//! `cargo xtask vm`: the end-to-end tests on Debian's kernels, in QEMU.
//!
//! A guest is a kernel from Debian's archive on top of the host's own files, which it sees read-only below a layer in memory:
//! the programs that were built here run there unchanged, and nothing they do comes back. It needs no root: everything that
//! does happens inside.

mod apt;
mod guest;
mod initramfs;
mod kernels;
mod matrix;
mod qemu;
mod table;

use std::time::Duration;

use anyhow::{Result, bail};

use crate::process::Interrupt;
use crate::{setup, test, util};

pub(crate) use apt::KEYRING;
pub(crate) use guest::{ALONE, Clock, Programs};
use kernels::{KERNELS, Kernel};

/// What the user chose.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernels to run, by series [default: all]
    #[arg(value_parser = kernels::parse, value_name = "KERNEL")]
    kernels: Vec<Kernel>,
    /// Run this shell command in each instead of the tests, and show what it prints. `celeryscope` is on its PATH, `$LIVE`
    /// and `$CAPTURE` are the test programs
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// How long the command of --exec may take
    #[arg(long, value_name = "SECONDS", default_value_t = 900, requires = "exec")]
    limit: u64,
}

/// Runs the matrix, or a command.
///
/// # Errors
/// The cells of the matrix that failed; the command's exit code when it is not 0.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::for_vm()?;
    let programs = test::Built::all()?.programs()?;
    let interrupt = Interrupt::install()?;
    let chosen = if args.kernels.is_empty() {
        &KERNELS
    } else {
        args.kernels.as_slice()
    };
    match &args.exec {
        None => matrix::run(chosen, &programs, &interrupt).map(|closing| util::say("vm", closing)),
        Some(script) => {
            let limit = Duration::from_secs(args.limit);
            for kernel in chosen {
                execute(*kernel, &programs, script, limit, &interrupt)?;
            }
            Ok(())
        }
    }
}

/// The whole matrix, for `cargo xtask test`; gives its closing line.
///
/// # Errors
/// The cells that failed.
pub(crate) fn all(programs: &Programs) -> Result<String> {
    matrix::run(&KERNELS, programs, &Interrupt::install()?)
}

/// The live tests whose names contain `live`, and the agent's own that contain `capture`, where the host's kernel can't run
/// them; gives what they printed, and whether they passed.
///
/// # Errors
/// The guest did not come up or came to no end.
pub(crate) fn in_place_of_the_host(
    programs: &Programs,
    capture: &str,
    live: &str,
) -> Result<(Vec<String>, bool)> {
    let tests = format!(
        "\"$CAPTURE\" --test-threads=1 {}; first=$?\n\"$LIVE\" --test-threads=1 {} && exit $first\n",
        guest::quoted(capture),
        guest::quoted(live)
    );
    in_one(programs, &tests, ALONE)
}

/// A job in the guest that stands for a kernel with every back end; gives what it printed, and whether it ended well.
///
/// # Errors
/// The guest did not come up or came to no end.
pub(crate) fn in_one(programs: &Programs, script: &str, clock: Clock) -> Result<(Vec<String>, bool)> {
    let kernel = kernels::parse(guest::IN_PLACE_OF_THE_HOST).map_err(anyhow::Error::msg)?;
    let mut lines = Vec::new();
    let job = guest::Job {
        script,
        clock,
        limit: guest::LIMIT_OF_LIVE_TESTS,
    };
    let ended = guest::run(kernel, programs, &job, &Interrupt::install()?, &mut |line| {
        guest::show(kernel, line);
        lines.push(line.to_owned());
    })?;
    Ok((lines, ended.code == 0))
}

fn execute(
    kernel: Kernel,
    programs: &Programs,
    script: &str,
    limit: Duration,
    interrupt: &Interrupt,
) -> Result<()> {
    let job = guest::Job {
        script,
        clock: ALONE,
        limit,
    };
    let ended = guest::run(kernel, programs, &job, interrupt, &mut |line| println!("{line}"))?;
    util::say(
        "vm",
        format!(
            "{}: exit code {}, booted in {:.1} s, {:.1} s in all",
            kernel.name,
            ended.code,
            ended.boot.as_secs_f64(),
            ended.whole.as_secs_f64()
        ),
    );
    if ended.code != 0 {
        bail!(
            "exit code {} in {} (all it printed: {})",
            ended.code,
            kernel.name,
            ended.log.display()
        );
    }
    Ok(())
}
