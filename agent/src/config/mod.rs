//! Settings: one struct for each group of options, read from flags, environment and a TOML file alike.
//!
//! A group's fields are the flags (clap), the `CELERYSCOPE_*` variables (clap) and the file's keys (serde) at once, so
//! the three can't drift apart. Precedence: flag, variable, file, default.

mod file;
#[cfg(test)]
mod tests;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;

use celeryscope_core as core;
use clap::Args;
use clap::builder::BoolishValueParser;
use serde::Deserialize;

pub use file::File;
pub use values::{FileSize, LockDown, Netns, Period, Probes, Relation, RingSize, SpanStyle};

use crate::capture::{self, LiveOptions};
use crate::export::OutputSpec;
use crate::host::tls::TlsProcess;
use crate::lock_down;
use crate::recording::Rotation;
use file::one_or_many;

/// The user asked for something that can't be: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// What to capture.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[command(next_help_heading = "Capture")]
pub struct CaptureArgs {
    /// Broker port to watch; may be repeated [default: 6379, 5672, unless --tls-port names others]
    #[arg(
        long,
        env = "CELERYSCOPE_BROKER_PORT",
        hide_env = true,
        value_name = "N",
        value_delimiter = ','
    )]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    #[serde(deserialize_with = "one_or_many")]
    pub broker_port: Option<Vec<u16>>,
    /// Port on which brokers speak TLS, watched as well; may be repeated [default: 6380, 5671, unless --broker-port
    /// names others]
    #[arg(
        long,
        env = "CELERYSCOPE_TLS_PORT",
        hide_env = true,
        value_name = "N",
        value_delimiter = ','
    )]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    #[serde(deserialize_with = "one_or_many")]
    pub tls_port: Option<Vec<u16>>,
    /// Process whose TLS is read whatever port it talks to, by its id or its name; may be repeated
    #[arg(
        long,
        env = "CELERYSCOPE_TLS_PROCESS",
        hide_env = true,
        value_name = "PID|NAME",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "one_or_many")]
    pub tls_process: Option<Vec<TlsProcess>>,
    /// Kernel hooks to use [default: auto, the best that load]
    #[arg(long, env = "CELERYSCOPE_PROBES", hide_env = true, value_name = "KIND")]
    pub probes: Option<Probes>,
    /// Ring buffer between kernel and agent, a power of two such as 16M [default: 8M]
    #[arg(long, env = "CELERYSCOPE_RING_SIZE", hide_env = true, value_name = "SIZE")]
    pub ring_size: Option<RingSize>,
    /// Whose processes to watch: all, or only those in the agent's own network namespace, for hosts that run several
    /// agents (e.g. one in each network namespace) [default: all]
    #[arg(long, env = "CELERYSCOPE_NETNS", hide_env = true, value_name = "WHOSE")]
    pub netns: Option<Netns>,
    /// Pass on what the kernel half logs
    #[arg(long, env = "CELERYSCOPE_KERNEL_LOG", hide_env = true, value_name = "BOOL")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub kernel_log: Option<bool>,
    /// Once attached, give up the privileges that are no longer needed: not (off), as far as this kernel lets (on), or refuse
    /// to start where that is not all the way (strict) [default: on]
    #[arg(long, env = "CELERYSCOPE_LOCK_DOWN", hide_env = true, value_name = "HOW")]
    pub lock_down: Option<LockDown>,
}

/// How spans are made.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[command(next_help_heading = "Spans")]
pub struct SpanArgs {
    /// A run is a child of its publish, or starts its own trace with a link to it [default: parent]
    #[arg(long, env = "CELERYSCOPE_RELATION", hide_env = true, value_name = "KIND")]
    pub relation: Option<Relation>,
    /// Names of spans and attributes: the messaging conventions', or those of
    /// opentelemetry-instrumentation-celery [default: semconv]
    #[arg(long, env = "CELERYSCOPE_SPAN_STYLE", hide_env = true, value_name = "STYLE")]
    pub span_style: Option<SpanStyle>,
    /// Put task arguments on spans, cut
    #[arg(long, env = "CELERYSCOPE_CAPTURE_ARGS", hide_env = true, value_name = "BOOL")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub capture_args: Option<bool>,
}

/// Where spans go.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// otlp, tree, otlp-json or otlp-json=FILE; may be repeated
    #[arg(
        long,
        env = "CELERYSCOPE_OUTPUT",
        hide_env = true,
        value_name = "OUTPUT",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "one_or_many")]
    pub output: Option<Vec<OutputSpec>>,
    /// Collector for --output otlp, before OTEL_EXPORTER_OTLP_ENDPOINT
    #[arg(long, env = "CELERYSCOPE_OTLP_ENDPOINT", hide_env = true, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Print all counters at the end
    #[arg(long, env = "CELERYSCOPE_STATS", hide_env = true, value_name = "BOOL")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub stats: Option<bool>,
}

/// What the agent tells of itself.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[command(next_help_heading = "Output")]
pub struct MetricsArgs {
    /// Serve /metrics for Prometheus, /healthz and /readyz there, such as 127.0.0.1:9464 [default: nowhere]
    #[arg(
        long,
        env = "CELERYSCOPE_METRICS_LISTEN",
        hide_env = true,
        value_name = "ADDRESS"
    )]
    pub metrics_listen: Option<SocketAddr>,
}

/// What `record` writes.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RecordingArgs {
    /// File to write
    #[arg(
        short = 'o',
        long,
        env = "CELERYSCOPE_RECORDING",
        hide_env = true,
        value_name = "FILE"
    )]
    pub recording: Option<PathBuf>,
    /// Stop after this time, such as 30s, 5m, 1h [default: at Ctrl-C]
    #[arg(long, env = "CELERYSCOPE_DURATION", hide_env = true, value_name = "TIME")]
    pub duration: Option<Period>,
    /// Begin another file when this one has so many bytes, such as 256M; FILE becomes FILE.1 [default: never]
    #[arg(long, env = "CELERYSCOPE_ROTATE_SIZE", hide_env = true, value_name = "SIZE")]
    pub rotate_size: Option<FileSize>,
    /// With --rotate-size: so many files are kept besides FILE, older ones removed [default: 4]
    #[arg(long, env = "CELERYSCOPE_ROTATE_KEEP", hide_env = true, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(..10_000))]
    pub rotate_keep: Option<u32>,
    /// Keep passwords, task arguments and results in the file
    #[arg(
        long,
        env = "CELERYSCOPE_INCLUDE_PAYLOADS",
        hide_env = true,
        value_name = "BOOL"
    )]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub include_payloads: Option<bool>,
}

macro_rules! layered {
    ($group:ty: $($field:ident),+) => {
        impl $group {
            /// These settings, and those of `file` where there is none here.
            ///
            /// # Errors
            /// A value in the file is not what its key takes.
            pub fn or_file(self, file: &File) -> Result<Self, UsageError> {
                let lower: Self = file.group()?;
                Ok(Self { $($field: self.$field.or(lower.$field)),+ })
            }
        }
    };
}

layered!(CaptureArgs: broker_port, tls_port, tls_process, probes, ring_size, netns, kernel_log, lock_down);
layered!(SpanArgs: relation, span_style, capture_args);
layered!(OutputArgs: output, otlp_endpoint, stats);
layered!(MetricsArgs: metrics_listen);
layered!(RecordingArgs: recording, duration, rotate_size, rotate_keep, include_payloads);

impl RecordingArgs {
    /// How the recording is kept from filling the disk, where it is.
    ///
    /// # Errors
    /// Files are to be kept of a recording that is one file.
    pub fn rotation(&self) -> Result<Option<Rotation>, UsageError> {
        match (self.rotate_size, self.rotate_keep) {
            (Some(size), keep) => Ok(Some(Rotation {
                size: size.0,
                keep: keep.unwrap_or(4),
            })),
            (None, Some(_)) => Err(UsageError(
                "--rotate-keep says how many files are kept: give --rotate-size as well".to_owned(),
            )),
            (None, None) => Ok(None),
        }
    }
}

impl CaptureArgs {
    /// The capture side's options, with defaults filled in.
    #[must_use]
    pub(crate) fn options(&self) -> LiveOptions {
        let (ports, tls_ports) = ports(self.broker_port.as_deref(), self.tls_port.as_deref());
        LiveOptions {
            ports,
            tls_ports,
            tls_processes: self.tls_process.clone().unwrap_or_default(),
            ring_bytes: self.ring_size.map_or(8 << 20, |size| size.0),
            own_netns: self.netns == Some(Netns::Own),
            kernel_log: self.kernel_log.unwrap_or(false),
            probes: match self.probes.unwrap_or(Probes::Auto) {
                Probes::Auto => capture::Probes::Auto,
                Probes::Fentry => capture::Probes::Fentry,
                Probes::Kprobe => capture::Probes::Kprobe,
                Probes::Tracepoint => capture::Probes::Tracepoint,
            },
            reads_from_entry: false,
            new_files: false,
            lock_down: match self.lock_down.unwrap_or(LockDown::On) {
                LockDown::Off => lock_down::Mode::Off,
                LockDown::On => lock_down::Mode::On,
                LockDown::Strict => lock_down::Mode::Strict,
            },
        }
    }
}

/// All ports to watch, and those of them on which TLS is spoken. Who names ports of either kind wants exactly those, so
/// the defaults hold only where none is named.
fn ports(broker: Option<&[u16]>, tls: Option<&[u16]>) -> (Vec<u16>, Vec<u16>) {
    let (broker, tls) = match (broker, tls) {
        (None, None) => (&[6379, 5672][..], &[6380, 5671][..]),
        (broker, tls) => (broker.unwrap_or_default(), tls.unwrap_or_default()),
    };
    let mut all = Vec::new();
    for port in broker.iter().chain(tls) {
        if !all.contains(port) {
            all.push(*port);
        }
    }
    (all, tls.to_vec())
}

impl SpanArgs {
    /// The core's configuration.
    #[must_use]
    pub fn config(&self) -> core::Config {
        core::Config {
            relation: match self.relation {
                Some(Relation::Link) => core::Relation::Link,
                Some(Relation::Parent) | None => core::Relation::Parent,
            },
            style: match self.span_style {
                Some(SpanStyle::Contrib) => core::SpanStyle::Contrib,
                Some(SpanStyle::Semconv) | None => core::SpanStyle::Semconv,
            },
            capture_args: self.capture_args.unwrap_or(false),
            old_names: std::env::var("OTEL_SEMCONV_STABILITY_OPT_IN")
                .is_ok_and(|wanted| wanted.split(',').any(|item| item.trim() == "messaging/dup")),
            ..core::Config::default()
        }
    }
}
