//! `celeryscope trace-id`: the trace of a task, computed the way every agent computes it.

use std::io::Write;
use std::process::ExitCode;

use celeryscope_core::span::trace_id_of_root;
use clap::Args;

/// Print the trace id of a task from its root id
///
/// Celery puts the root id in every message of a workflow; for a task that no other task started it is the task's
/// own id. Messages that carry a traceparent keep that trace instead.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  celeryscope trace-id d5706acd-8a3c-4b0e-9d1f-3f0c1a2b3c4d")]
pub(super) struct TraceIdArgs {
    /// Root id as Celery shows it
    #[arg(value_name = "ROOT_ID")]
    root_id: String,
}

pub(super) fn run(args: &TraceIdArgs) -> anyhow::Result<ExitCode> {
    writeln!(std::io::stdout(), "{}", trace_id_of_root(&args.root_id))?;
    Ok(ExitCode::SUCCESS)
}
