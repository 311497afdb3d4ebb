//! The agent under demonstration: built, started as root, waited for, stopped, and what it said at its end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{Interrupt, Service};
use crate::{privilege, util};

const READY_LIMIT: Duration = Duration::from_secs(30);

/// Builds the agent as it is shipped; gives its path.
pub(super) fn build() -> Result<PathBuf> {
    util::say(
        "build",
        "celeryscope, in release mode (takes a few minutes the first time)",
    );
    let built = util::build_executables(&[
        "build",
        "--release",
        "--package",
        "celeryscope",
        "--bin",
        "celeryscope",
    ])?;
    built
        .into_iter()
        .next()
        .map(|(_, path)| path)
        .context("cargo built no celeryscope")
}

/// The running agent. Its tree goes to our standard output, its spans to a file we read, its log to a file.
pub(super) struct Agent {
    service: Service,
    spans_file: PathBuf,
}

/// What is left of a stopped agent.
pub(super) struct End {
    /// The spans, one OTLP/JSON request a line.
    pub(super) spans_file: PathBuf,
    /// Records the kernel half or the core had to drop, when the agent said so.
    pub(super) dropped: Option<u64>,
    /// The end of its log, to go behind an error message.
    pub(super) log_end: String,
}

impl Agent {
    /// Starts the agent and waits until it says that its probes are attached.
    pub(super) fn start(
        binary: &Path,
        broker_port: u16,
        otlp: Option<&str>,
        dir: &Path,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        util::say("start", "celeryscope, after all of them");
        let spans_file = dir.join("spans.jsonl");
        let mut variables = Vec::new();
        if let Some(url) = otlp {
            variables.push(("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), url.to_owned()));
        }
        let mut command = privilege::command(binary, &variables);
        command.args([
            "run",
            "--broker-port",
            &broker_port.to_string(),
            "--output",
            "tree",
            "--output",
        ]);
        command.arg(format!("otlp-json={}", spans_file.display()));
        if otlp.is_some() {
            command.args(["--output", "otlp"]);
        }
        let mut service = Service::start("celeryscope", &mut command, dir, true, true)?;
        service.wait_ready(interrupt, READY_LIMIT, |service| service.log().contains("ready"))?;
        Ok(Self { service, spans_file })
    }

    /// Fails when the agent has ended.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        self.service.check_alive()
    }

    /// Where its spans go.
    pub(super) fn spans_file(&self) -> &Path {
        &self.spans_file
    }

    /// Stops it, so that it flushes what it has.
    pub(super) fn stop(mut self) -> End {
        self.service.stop();
        let log = self.service.log();
        End {
            spans_file: self.spans_file,
            dropped: dropped(&log),
            log_end: self.service.log_end(),
        }
    }
}

/// The number of dropped records in the agent's closing line.
fn dropped(log: &str) -> Option<u64> {
    let (_, value) = log.rsplit_once("dropped=")?;
    let digits = value
        .find(|c: char| !c.is_ascii_digit())
        .map_or(value, |end| &value[..end]);
    digits.parse().ok()
}
