//! What the user and the standard `OTEL_*` variables say about exporting, checked before anything starts.

use std::sync::Arc;
use std::time::Duration;

use super::OutputSpec;
use super::otlp::{self, Signal, Telemetry};
use super::sampling::Sampling;
use crate::config::{OutputArgs, UsageError};
use crate::metrics::Board;

/// What to do when no `--output` is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// OTLP where an endpoint is set, else trees.
    ByEndpoint,
    /// Trees.
    Tree,
}

/// When a batch is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batching {
    /// Spans held in the queue.
    pub(super) queue: usize,
    /// Spans in one batch.
    pub(super) batch: usize,
    /// How long the first span of a batch waits for others; where there is no hurry, until the batch is full.
    pub(super) delay: Option<Duration>,
}

/// Everything the outputs need to start.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) outputs: Vec<OutputSpec>,
    pub(super) otlp: otlp::Settings,
    pub(super) batching: Batching,
    pub(super) sampling: Sampling,
    /// Where the agent's own numbers go, and how often.
    pub(super) metrics: Option<(otlp::Settings, Duration)>,
}

impl Plan {
    /// Reads the environment.
    ///
    /// # Errors
    /// Outputs that contradict each other, an endpoint that is not a URL, a protocol that is not to be had.
    pub fn new(args: &OutputArgs, fallback: Fallback) -> Result<Self, UsageError> {
        Self::with_env(args, fallback, &|name| {
            std::env::var(name).ok().filter(|value| !value.is_empty())
        })
    }

    /// As [`Self::new`], with another environment. (Headers, timeout and compression of OTLP are read by its exporter
    /// from the real one.)
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_env(
        args: &OutputArgs,
        fallback: Fallback,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, UsageError> {
        let otlp = otlp::Settings::new(Signal::Traces, args.otlp_endpoint.as_deref(), env)?;
        let mut outputs = args.output.clone().unwrap_or_default();
        if outputs.is_empty() {
            outputs.push(match fallback {
                Fallback::ByEndpoint if otlp.configured() => OutputSpec::Otlp,
                Fallback::ByEndpoint | Fallback::Tree => OutputSpec::Tree,
            });
        }
        let on_stdout = |spec: &&OutputSpec| matches!(spec, OutputSpec::Tree | OutputSpec::OtlpJson(None));
        if outputs.iter().filter(on_stdout).count() > 1 {
            return Err(UsageError(
                "two outputs can't share standard output: give otlp-json a file (--output otlp-json=FILE)"
                    .to_owned(),
            ));
        }
        if outputs
            .iter()
            .enumerate()
            .any(|(at, spec)| outputs[..at].contains(spec))
        {
            return Err(UsageError(
                "an output is given twice: give each --output once".to_owned(),
            ));
        }
        if env("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            tracing::info!("OTEL_SDK_DISABLED is true: output otlp is off");
            outputs.retain(|spec| *spec != OutputSpec::Otlp);
        }
        let with_otlp = outputs.contains(&OutputSpec::Otlp) && metrics_wanted(env);
        Ok(Self {
            metrics: with_otlp.then(|| metrics(args, env)).flatten(),
            outputs,
            otlp,
            batching: Batching::from_env(env),
            sampling: Sampling::from_env(env),
        })
    }
}

impl Plan {
    /// Starts to send the agent's own numbers, where they are wanted.
    #[must_use]
    pub fn telemetry(&self, board: &Arc<Board>) -> Option<Telemetry> {
        let (settings, interval) = self.metrics.as_ref()?;
        Telemetry::start(settings, *interval, Arc::clone(board))
            .inspect_err(|error| tracing::warn!("the agent's own metrics are not sent: {error:#}"))
            .ok()
    }
}

/// Where metrics go, and how often. What is wrong with that is no reason to send no spans.
fn metrics(args: &OutputArgs, env: &dyn Fn(&str) -> Option<String>) -> Option<(otlp::Settings, Duration)> {
    let settings = otlp::Settings::new(Signal::Metrics, args.otlp_endpoint.as_deref(), env);
    let settings = settings
        .inspect_err(|error| tracing::warn!("the agent's own metrics are not sent: {error}"))
        .ok()?;
    let interval = number(env, "OTEL_METRIC_EXPORT_INTERVAL", 60_000, 86_400_000);
    Some((settings, Duration::from_millis(interval as u64)))
}

/// `OTEL_METRICS_EXPORTER`: otlp unless it says otherwise.
fn metrics_wanted(env: &dyn Fn(&str) -> Option<String>) -> bool {
    let Some(wanted) = env("OTEL_METRICS_EXPORTER") else {
        return true;
    };
    let known = |name: &str| ["otlp", "none"].contains(&name);
    if let Some(other) = wanted.split(',').map(str::trim).find(|name| !known(name)) {
        tracing::warn!(
            "OTEL_METRICS_EXPORTER={}: there are otlp and none (for Prometheus see --metrics-listen)",
            other.escape_default()
        );
    }
    wanted.split(',').any(|name| name.trim() == "otlp")
}

/// A number from a variable, from 1 to `most`.
fn number(env: &dyn Fn(&str) -> Option<String>, name: &str, default: usize, most: usize) -> usize {
    match env(name) {
        None => default,
        Some(text) => match text.parse::<usize>() {
            Ok(n) if (1..=most).contains(&n) => n,
            _ => {
                tracing::warn!("{name}={text} is not a number from 1 to {most}: using {default}");
                default
            }
        },
    }
}

impl Batching {
    /// The `OTEL_BSP_*` variables. The queue is larger and the delay shorter than an SDK's defaults: one agent stands
    /// for all processes of a host.
    fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let number = |name: &str, default: usize, most: usize| number(env, name, default, most);
        let queue = number("OTEL_BSP_MAX_QUEUE_SIZE", 16_384, 1 << 20);
        let delay = number("OTEL_BSP_SCHEDULE_DELAY", 1_000, 3_600_000);
        Self {
            queue,
            batch: number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, 1 << 16).min(queue),
            delay: Some(Duration::from_millis(delay as u64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(output: &[&str], vars: &[(&str, &str)]) -> Result<Plan, UsageError> {
        let args = OutputArgs {
            output: (!output.is_empty()).then(|| output.iter().map(|text| text.parse().unwrap()).collect()),
            ..OutputArgs::default()
        };
        Plan::with_env(&args, Fallback::ByEndpoint, &|name| {
            vars.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    /// Scenario: `run` without --output, with and without a standard endpoint variable.
    /// Guarantees: OTLP only where an endpoint is set.
    #[test]
    fn default_output_follows_the_endpoint() {
        assert_eq!(plan(&[], &[]).unwrap().outputs, [OutputSpec::Tree]);
        for name in [
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        ] {
            let plan = plan(&[], &[(name, "http://c:4317")]).unwrap();
            assert_eq!(plan.outputs, [OutputSpec::Otlp], "{name}");
        }
    }

    /// Scenario: outputs that would write into each other, and the standard off switch.
    /// Guarantees: the first are refused with what to do; the switch takes OTLP away and nothing else.
    #[test]
    fn clashes_and_the_off_switch() {
        assert!(
            plan(&["tree", "otlp-json"], &[])
                .unwrap_err()
                .to_string()
                .contains("otlp-json=FILE")
        );
        assert!(plan(&["otlp", "otlp"], &[]).is_err());
        let off = plan(&["otlp", "otlp-json=a"], &[("OTEL_SDK_DISABLED", "TRUE")]).unwrap();
        assert_eq!(off.outputs, [OutputSpec::OtlpJson(Some("a".into()))]);
    }

    /// Scenario: OTLP with and without the standard variables of metrics, and another output.
    /// Guarantees: metrics go along with OTLP unless they are switched off, in the interval that is asked for.
    #[test]
    fn metrics_go_along() {
        let interval = |output: &str, vars: &[(&str, &str)]| {
            let metrics = plan(&[output], vars).unwrap().metrics;
            metrics.map(|(_, interval)| interval)
        };
        let every = ("OTEL_METRIC_EXPORT_INTERVAL", "500");
        assert_eq!(interval("otlp", &[]), Some(Duration::from_secs(60)));
        assert_eq!(interval("otlp", &[every]), Some(Duration::from_millis(500)));
        assert_eq!(interval("otlp", &[("OTEL_METRICS_EXPORTER", "none")]), None);
        assert_eq!(interval("otlp", &[("OTEL_METRICS_EXPORTER", "prometheus")]), None);
        assert!(interval("otlp", &[("OTEL_METRICS_EXPORTER", "otlp")]).is_some());
        assert_eq!(interval("tree", &[]), None);
        assert_eq!(interval("otlp", &[("OTEL_SDK_DISABLED", "true")]), None);
    }

    /// Scenario: batch settings from the standard variables, sound and senseless.
    /// Guarantees: sound ones hold, senseless ones fall back; a batch never exceeds the queue.
    #[test]
    fn batching_follows_the_variables() {
        let vars = [
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BSP_SCHEDULE_DELAY", "-5"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "200"),
        ];
        let batching = plan(&[], &vars).unwrap().batching;
        assert_eq!((batching.queue, batching.batch), (100, 100));
        assert_eq!(batching.delay, Some(Duration::from_secs(1)));
    }
}
