//! What single settings are: names to choose from, sizes, times, outputs; each is written the same on the command line, in a
//! variable and in the file.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use serde::Deserialize;

use crate::export::OutputSpec;

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

/// What the file has as text is read as on the command line.
macro_rules! as_on_the_command_line {
    ($($value:ty),+) => {$(
        impl TryFrom<String> for $value {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
    )+};
}

as_on_the_command_line!(RingSize, FileSize, Period, OutputSpec);
