//! Settings: one struct for each group of options, read from flags, environment and a TOML file alike.
//!
//! A group's fields are the flags (clap), the `CELERYSCOPE_*` variables (clap) and the file's keys (serde) at once, so
//! the three can't drift apart. Precedence: flag, variable, file, default.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use celeryscope_core as core;
use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

use crate::capture::{self, LiveOptions};
use crate::export::OutputSpec;
use crate::host::tls::TlsProcess;
use crate::lock_down;
use crate::recording::Rotation;

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

/// Kernel hooks; see [`capture::Probes`].
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Probes {
    /// The best that load
    Auto,
    /// fentry and fexit: the cheapest
    Fentry,
    /// kprobes on the same functions, returns by tracepoints
    Kprobe,
    /// System call tracepoints: work on locked-down kernels
    Tracepoint,
}

/// Whose processes are watched.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Netns {
    /// Every process of this kernel
    All,
    /// Those in the agent's own network namespace
    Own,
}

/// What is given up after attaching.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LockDown {
    /// Nothing
    Off,
    /// What this kernel lets be given up
    On,
    /// All of it, or the agent does not start
    Strict,
}

/// How a run refers to its publish; see [`core::Relation`].
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// The publish is the run's parent
    Parent,
    /// The run starts its own trace and links to the publish
    Link,
}

/// Names of spans and attributes; see [`core::SpanStyle`].
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SpanStyle {
    /// The messaging semantic conventions
    Semconv,
    /// opentelemetry-instrumentation-celery's
    Contrib,
}

/// Bytes of the ring buffer: a power of two from 64K to 1G, as the kernel wants it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct RingSize(pub u32);

impl FromStr for RingSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        bytes_of(text)
            .filter(|n| n.is_power_of_two() && (64 << 10..=1 << 30).contains(n))
            .and_then(|n| u32::try_from(n).ok())
            .map(Self)
            .ok_or_else(|| "give a power of two from 64K to 1G, such as 8M".to_owned())
    }
}

impl TryFrom<String> for RingSize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Bytes of a file: 64K or more.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct FileSize(pub u64);

impl FromStr for FileSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        bytes_of(text)
            .filter(|n| *n >= 64 << 10)
            .map(Self)
            .ok_or_else(|| "give 64K or more, such as 256M or 1G".to_owned())
    }
}

impl TryFrom<String> for FileSize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// `8M` as a number.
fn bytes_of(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A length of time as people write it: `500ms`, `30s`, `5m`, `1h`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Period(pub Duration);

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(unit_at);
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => 0,
        };
        digits
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(millis))
            .filter(|n| *n > 0)
            .map(|n| Self(Duration::from_millis(n)))
            .ok_or_else(|| "give a number and a unit: 500ms, 30s, 5m, 1h".to_owned())
    }
}

impl TryFrom<String> for Period {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// The configuration file: a TOML table whose keys are the long flags of all commands.
#[derive(Debug, Default)]
pub struct File {
    path: PathBuf,
    table: toml::Table,
}

impl File {
    /// Reads the file, or is empty when there is none to read.
    ///
    /// # Errors
    /// It can't be read, is not TOML, or has a key that is not in `keys`.
    pub fn read(path: Option<&Path>, keys: &[String]) -> Result<Self, UsageError> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| UsageError(format!("can't read config file {shown}: {error}")))?;
        let table: toml::Table = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| {
                1 + text[..span.start.min(text.len())].matches('\n').count()
            });
            UsageError(format!("config file {shown}, line {line}: {}", error.message()))
        })?;
        if let Some(key) = table.keys().find(|key| !keys.contains(key)) {
            return Err(UsageError(format!(
                "config file {shown}: unknown key `{}`; known are {}",
                key.escape_default(),
                keys.join(", ")
            )));
        }
        Ok(Self {
            path: path.to_owned(),
            table,
        })
    }

    pub(crate) fn group<T: DeserializeOwned>(&self) -> Result<T, UsageError> {
        // Key by key, so that the error can say which one is wrong.
        T::deserialize(toml::Value::Table(self.table.clone())).map_err(|error| {
            let culprit = self.table.iter().find(|(key, value)| {
                let one = toml::Table::from_iter([((*key).clone(), (*value).clone())]);
                T::deserialize(toml::Value::Table(one)).is_err()
            });
            let key = culprit.map_or("", |(key, _)| key);
            UsageError(format!(
                "config file {}, key `{key}`: {}",
                self.path.display(),
                error.message()
            ))
        })
    }
}

/// A list, or its only element without brackets.
fn one_or_many<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let many = match toml::Value::deserialize(deserializer)? {
        toml::Value::Array(many) => many,
        one => vec![one],
    };
    let many: Result<Vec<T>, _> = many.into_iter().map(T::deserialize).collect();
    many.map(Some).map_err(|error| D::Error::custom(error.message()))
}

impl fmt::Display for OutputSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Otlp => f.write_str("otlp"),
            Self::Tree => f.write_str("tree"),
            Self::OtlpJson(None) => f.write_str("otlp-json"),
            Self::OtlpJson(Some(path)) => write!(f, "otlp-json={}", path.display()),
        }
    }
}

impl FromStr for OutputSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "otlp" => Ok(Self::Otlp),
            None if text == "tree" => Ok(Self::Tree),
            None if text == "otlp-json" => Ok(Self::OtlpJson(None)),
            Some(("otlp-json", file)) if !file.is_empty() => Ok(Self::OtlpJson(Some(file.into()))),
            _ => Err("give otlp, tree, otlp-json or otlp-json=FILE".to_owned()),
        }
    }
}

impl TryFrom<String> for OutputSpec {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        File {
            path: "agent.toml".into(),
            table: toml::from_str(text).unwrap(),
        }
    }

    /// Scenario: a value stands in the file, another on the command line.
    /// Guarantees: the command line wins, the file fills what it leaves, defaults the rest.
    #[test]
    fn flags_outrank_the_file() {
        let flags = CaptureArgs {
            broker_port: Some(vec![7000]),
            ..CaptureArgs::default()
        };
        let file = file(
            "broker-port = [1, 2]\nring-size = \"1M\"\nprobes = \"kprobe\"\nnetns = \"own\"\nlock-down = \"strict\"\noutput = \"tree\"",
        );
        let options = flags.or_file(&file).unwrap().options();
        assert_eq!(options.ports, [7000]);
        assert_eq!(options.ring_bytes, 1 << 20);
        assert_eq!(options.probes, capture::Probes::Kprobe);
        assert!(options.own_netns);
        assert_eq!(options.lock_down, lock_down::Mode::Strict);
        assert!(!options.kernel_log);
        let output = OutputArgs::default().or_file(&file).unwrap();
        assert_eq!(output.output, Some(vec![OutputSpec::Tree]));
    }

    /// Scenario: ports of either kind, both, none, and one that is named as both.
    /// Guarantees: named ports are all that are watched, each once; the defaults hold where none is named.
    #[test]
    fn named_ports_replace_the_defaults() {
        assert_eq!(
            ports(None, None),
            (vec![6379, 5672, 6380, 5671], vec![6380, 5671])
        );
        assert_eq!(ports(Some(&[6380]), None), (vec![6380], vec![]));
        assert_eq!(ports(None, Some(&[7000])), (vec![7000], vec![7000]));
        assert_eq!(
            ports(Some(&[1, 2, 1]), Some(&[2, 3])),
            (vec![1, 2, 3], vec![2, 3])
        );
    }

    /// Scenario: processes in the file by number and by name; a list with something else in it.
    /// Guarantees: both forms are read; the error names the key and says what it takes.
    #[test]
    fn processes_by_id_or_name() {
        let read = |text| CaptureArgs::default().or_file(&file(text));
        let options = read("tls-process = [17, \"18\", \"celery\"]\ntls-port = 7000")
            .unwrap()
            .options();
        assert_eq!(
            options.tls_processes,
            [
                TlsProcess::Pid(17),
                TlsProcess::Pid(18),
                TlsProcess::Named("celery".to_owned())
            ]
        );
        assert_eq!((options.ports, options.tls_ports), (vec![7000], vec![7000]));
        let error = read("tls-process = [true]").unwrap_err().to_string();
        assert!(error.contains("key `tls-process`: give a process id"), "{error}");
    }

    /// Scenario: a key of the file has a value it can't take.
    /// Guarantees: the error names the file and the key.
    #[test]
    fn bad_values_name_their_key() {
        let file = file("kernel-log = true\nring-size = \"3M\"");
        let error = CaptureArgs::default().or_file(&file).unwrap_err().to_string();
        assert!(
            error.starts_with("config file agent.toml, key `ring-size`: give a power of two"),
            "{error}"
        );
    }

    /// Scenario: a list with a wrong element, and one where a single value stands for it.
    /// Guarantees: the error says what the element may be; the single value is a list of one.
    #[test]
    fn lists_of_one_need_no_brackets() {
        let error = OutputArgs::default()
            .or_file(&file("output = [\"tree\", \"paper\"]"))
            .unwrap_err();
        assert!(
            error.to_string().contains("key `output`: give otlp, tree"),
            "{error}"
        );
        let one = CaptureArgs::default()
            .or_file(&file("broker-port = 6390"))
            .unwrap();
        assert_eq!(one.broker_port, Some(vec![6390]));
    }

    /// Scenario: sizes and times as people write them, right and wrong.
    /// Guarantees: right ones are read exactly, wrong ones refused.
    #[test]
    fn sizes_and_times() {
        assert_eq!("64K".parse(), Ok(RingSize(65_536)));
        assert_eq!("1G".parse(), Ok(RingSize(1 << 30)));
        for wrong in ["", "M", "3M", "32K", "2G", "99999999999999999999", "8Mé"] {
            assert!(wrong.parse::<RingSize>().is_err(), "{wrong}");
        }
        assert_eq!("64k".parse(), Ok(FileSize(65_536)));
        assert_eq!("300M".parse(), Ok(FileSize(300 << 20)));
        for wrong in ["", "M", "63K", "-1G", "99999999999999999999", "8Mé"] {
            assert!(wrong.parse::<FileSize>().is_err(), "{wrong}");
        }
        assert_eq!("500ms".parse(), Ok(Period(Duration::from_millis(500))));
        assert_eq!("2h".parse(), Ok(Period(Duration::from_secs(7200))));
        for wrong in ["", "5", "0s", "-1s", "1d", "s", "99999999999999999999s"] {
            assert!(wrong.parse::<Period>().is_err(), "{wrong}");
        }
    }
}
