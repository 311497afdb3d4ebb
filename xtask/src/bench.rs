//! `cargo xtask bench`: how fast the core is, and what the agent costs a host.

use anyhow::Result;

use crate::util;

/// What the user chose.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only benches whose name contains this
    filter: Option<String>,
}

/// Runs the benches and prints their figures once more as a table.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut command = util::cargo();
    command
        .args(["bench", "--package", "celeryscope-core", "--benches", "--"])
        .args(&args.filter);
    let (lines, result) = util::run_and_keep(&mut command, |line| {
        line.contains("time:   [") || line.contains("thrpt:  [")
    });
    result?;
    println!();
    for line in lines {
        println!("{line}");
    }
    Ok(())
}
