//! The agent under demonstration: built, started as root, waited for, stopped, and what it said at its end.

use std::env;
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
        .map(|built| built.path)
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
    /// What it lost; `None` when it ended without its closing line.
    pub(super) losses: Option<Losses>,
    /// The end of its log, to go behind an error message.
    pub(super) log_end: String,
}

/// What an agent saw and could not keep.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Losses {
    /// Records that found no room between kernel and agent.
    pub(super) records: u64,
    /// Spans that found no room in front of an output.
    pub(super) spans: u64,
    /// Spans that an output could not deliver.
    pub(super) undelivered: u64,
}

impl Agent {
    /// Starts the agent and waits until it says that its probes are attached.
    pub(super) fn start(
        binary: &Path,
        broker_ports: &[u16],
        otlp: Option<&str>,
        dir: &Path,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        util::say("start", "celeryscope, after all of them");
        let spans_file = dir.join("spans.jsonl");
        let mut command = privilege::command(binary, &otlp_variables(otlp));
        // The demo shows everything, whatever else the user set for agents of their own.
        for (name, _) in own_variables().filter(|(name, _)| hides_spans(name)) {
            command.env_remove(name);
        }
        command.arg("run");
        for port in broker_ports {
            command.args(["--broker-port", &port.to_string()]);
        }
        command.args(["--output", "tree", "--output"]);
        command.arg(format!("otlp-json={}", spans_file.display()));
        if otlp.is_some() {
            command.args(["--output", "otlp"]);
        }
        let mut service = Service::start_showing("celeryscope", &mut command, dir)?;
        service.wait_ready(interrupt, READY_LIMIT, |service| {
            ready_line(&service.log()).is_some()
        })?;
        util::say("ready", ready_line(&service.log()).unwrap_or_default());
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
            losses: losses(&log),
            log_end: self.service.log_end(),
        }
    }
}

/// How the user wants spans to be sent (headers, protocol, …), and where to.
fn otlp_variables(url: Option<&str>) -> Vec<(String, String)> {
    let Some(url) = url else { return Vec::new() };
    let mut variables: Vec<_> = own_variables()
        .filter(|(name, _)| name.starts_with("OTEL_EXPORTER_OTLP_") && !name.ends_with("_ENDPOINT"))
        .collect();
    variables.push(("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), url.to_owned()));
    variables
}

/// Our environment, without what is not UTF-8.
fn own_variables() -> impl Iterator<Item = (String, String)> {
    env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Whether a variable could send spans elsewhere or nowhere.
fn hides_spans(name: &str) -> bool {
    name.starts_with("CELERYSCOPE_")
        || name.starts_with("OTEL_TRACES_SAMPLER")
        || name == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
}

/// What the agent says once its probes are attached: `ready probes=… ports=… processes=… connections=…`.
fn ready_line(log: &str) -> Option<String> {
    log.lines()
        .find_map(|line| line.strip_prefix("ready "))
        .map(str::to_owned)
}

/// What the agent's closing line (`done publishes=… dropped=… lost_records=…`) says of losses.
fn losses(log: &str) -> Option<Losses> {
    let line = log.lines().rev().find(|line| line.starts_with("done "))?;
    let field = |name: &str| {
        line.split(' ')
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    };
    Some(Losses {
        records: field("lost_records")?,
        spans: field("dropped")?,
        undelivered: field("failed")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a log that ends with the agent's closing line, and one that was cut before it.
    /// Guarantees: losses are read from that line only, and are unknown without it.
    #[test]
    fn losses_come_from_the_closing_line() {
        let log = "ready probes=tracepoint\ndone publishes=4 runs=4 exported=16 dropped=2 failed=5 lost_records=3\n";
        assert_eq!(
            losses(log),
            Some(Losses {
                records: 3,
                spans: 2,
                undelivered: 5
            })
        );
        assert_eq!(losses("ready probes=tracepoint dropped=1 lost_records=1\n"), None);
    }
}
