//! What the user and the standard `OTEL_*` variables say about exporting, checked before anything starts.

use std::time::Duration;

use super::OutputSpec;
use super::otlp;
use super::sampling::Sampling;
use crate::config::{OutputArgs, UsageError};

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
    /// How long the first span of a batch waits for others.
    pub(super) delay: Duration,
}

/// Everything the outputs need to start.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) outputs: Vec<OutputSpec>,
    pub(super) otlp: otlp::Settings,
    pub(super) batching: Batching,
    pub(super) sampling: Sampling,
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
        let otlp = otlp::Settings::new(args.otlp_endpoint.as_deref(), env)?;
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
        Ok(Self {
            outputs,
            otlp,
            batching: Batching::from_env(env),
            sampling: Sampling::from_env(env),
        })
    }
}

impl Batching {
    /// The `OTEL_BSP_*` variables. The queue is larger and the delay shorter than an SDK's defaults: one agent stands
    /// for all processes of a host.
    fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let number = |name: &str, default: usize, most: usize| match env(name) {
            None => default,
            Some(text) => match text.parse::<usize>() {
                Ok(n) if (1..=most).contains(&n) => n,
                _ => {
                    tracing::warn!("{name}={text} is not a number from 1 to {most}: using {default}");
                    default
                }
            },
        };
        let queue = number("OTEL_BSP_MAX_QUEUE_SIZE", 16_384, 1 << 20);
        let delay = number("OTEL_BSP_SCHEDULE_DELAY", 1_000, 3_600_000);
        Self {
            queue,
            batch: number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, 1 << 16).min(queue),
            delay: Duration::from_millis(delay as u64),
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
        assert_eq!(batching.delay, Duration::from_secs(1));
    }
}
