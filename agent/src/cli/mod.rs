//! The command line: one file for each subcommand, its arguments and its `run`.

pub mod doctor;
mod log;
mod record;
mod replay;
mod run;
mod trace_id;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::capture;
use crate::config::{File, UsageError};

const EXAMPLES: &str = "\
Examples:
  celeryscope run                            watch this host, show traces as they end
  celeryscope run --otlp-endpoint http://collector:4317
  celeryscope record -o shop.rec --duration 1m
  celeryscope replay shop.rec                show what a recording holds
  celeryscope doctor                         what works on this kernel, what is missing

Every option is also a variable (--ring-size: CELERYSCOPE_RING_SIZE) and a key of --config FILE (ring-size = \"8M\").
Where spans are sent, how they are batched and sampled follows the standard OTEL_* variables.
CELERYSCOPE_LOG sets what is logged to standard error, such as debug or celeryscope=debug.
Exit codes: 0 done, 1 failed, 2 usage.";

/// The version, and which kernel half is inside.
static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "{version}\nBPF object {}\nsha256 {}",
        capture::ORIGIN,
        capture::SHA256
    )
});

/// Traces Celery from the kernel: publish and run spans without touching the application
#[derive(Debug, Parser)]
#[command(name = "celeryscope", version, long_version = LONG_VERSION.as_str())]
#[command(after_help = EXAMPLES, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Record(record::RecordArgs),
    Replay(replay::ReplayArgs),
    Doctor(doctor::DoctorArgs),
    TraceId(trace_id::TraceIdArgs),
}

/// Parses the arguments and does what they ask.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    log::init();
    let done = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Record(args) => record::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Doctor(args) => doctor::run(&args),
        Command::TraceId(args) => trace_id::run(&args),
    };
    done.unwrap_or_else(|error| {
        let usage = error.is::<UsageError>();
        complain(&format!("{error:#}"));
        ExitCode::from(if usage { 2 } else { 1 })
    })
}

/// The one option of every command that isn't in the file itself.
#[derive(Args, Debug)]
struct ConfigArgs {
    /// TOML file with any of these options as keys
    #[arg(long, env = "CELERYSCOPE_CONFIG", hide_env = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArgs {
    fn read(&self) -> Result<File, UsageError> {
        let mut keys: Vec<_> = Cli::command()
            .get_subcommands()
            .flat_map(clap::Command::get_arguments)
            .filter_map(|arg| arg.get_long())
            .filter(|long| *long != "config")
            .map(str::to_owned)
            .collect();
        keys.sort_unstable();
        keys.dedup();
        File::read(self.config.as_deref(), &keys)
    }
}

/// Shows help or version as clap does, an error in one line.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(2);
    }
    let text = error.render().to_string();
    let parts: Vec<_> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect();
    let text = parts.join(" ");
    complain(&format!(
        "{} (--help shows what there is)",
        text.strip_prefix("error: ").unwrap_or(&text)
    ));
    ExitCode::from(2)
}

/// One line on standard error, whatever `text` holds.
fn complain(text: &str) {
    let line = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    let _ = writeln!(std::io::stderr(), "celeryscope: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: clap's own check of the whole command line.
    /// Guarantees: no two options clash.
    #[test]
    fn command_line_is_sound() {
        Cli::command().debug_assert();
    }

    /// Scenario: every option of every command.
    /// Guarantees: each has a variable CELERYSCOPE_<FLAG>, as the help promises.
    #[test]
    fn each_option_has_its_variable() {
        for command in Cli::command().get_subcommands() {
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long().filter(|long| !["help", "version"].contains(long)) else {
                    continue;
                };
                let variable = format!("CELERYSCOPE_{}", long.replace('-', "_").to_uppercase());
                assert_eq!(
                    arg.get_env().and_then(|name| name.to_str()),
                    Some(variable.as_str())
                );
            }
        }
    }
}
