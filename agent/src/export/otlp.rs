//! OTLP to a collector, by gRPC or HTTP/protobuf, as the standard `OTEL_EXPORTER_OTLP_*` variables say.
//!
//! One export at a time, one call for each observed process (its own Resource). What fails for a passing reason is
//! tried again until it succeeds or the program ends, while the bounded queue behind it fills; what the collector
//! refuses for good is dropped and counted. The log says once that the collector went away, and once that it is back.

use std::sync::Once;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::SpanExporter as _;

use super::convert::{Group, group};
use super::intake::Intake;
use super::settings::Batching;
use crate::config::UsageError;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Where to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    protocol: Protocol,
    /// `--otlp-endpoint`; the exporter reads the variables itself.
    endpoint: Option<String>,
    /// What is shown to the user: no credentials.
    shown: String,
    configured: bool,
}

impl Settings {
    /// From `--otlp-endpoint` and the environment.
    pub(super) fn new(
        endpoint: Option<&str>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, UsageError> {
        let given = endpoint
            .map(str::to_owned)
            .or_else(|| env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))
            .or_else(|| env("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let asked = [
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ]
        .into_iter()
        .find_map(|name| env(name).map(|value| (name, value)));
        let protocol = match asked {
            None if given.as_deref().is_some_and(|url| port(url) == Some(4318)) => Protocol::HttpBinary,
            None => Protocol::Grpc,
            Some((_, value)) if value == "grpc" => Protocol::Grpc,
            Some((_, value)) if value == "http/protobuf" => Protocol::HttpBinary,
            Some((name, value)) => {
                return Err(UsageError(format!(
                    "{name}={value} is not supported: use grpc or http/protobuf"
                )));
            }
        };
        if let Some(url) = endpoint
            && !url.starts_with("http://")
            && !url.starts_with("https://")
        {
            return Err(UsageError(
                "--otlp-endpoint takes a URL such as http://localhost:4317 (http:// or https://)".to_owned(),
            ));
        }
        // The flag, like the general variable, is a base; the exporter takes what it is given as the whole.
        let endpoint = endpoint.map(|url| match protocol {
            Protocol::HttpBinary if !url.ends_with("/v1/traces") => {
                format!("{}/v1/traces", url.trim_end_matches('/'))
            }
            _ => url.to_owned(),
        });
        let default = match protocol {
            Protocol::HttpBinary => "http://localhost:4318",
            _ => "http://localhost:4317",
        };
        Ok(Self {
            protocol,
            endpoint,
            shown: without_credentials(given.as_deref().unwrap_or(default)),
            configured: given.is_some(),
        })
    }

    /// Whether anybody named an endpoint.
    pub(super) fn configured(&self) -> bool {
        self.configured
    }
}

fn port(url: &str) -> Option<u16> {
    let authority = url
        .split_once("://")
        .map_or(url, |(_, rest)| rest)
        .split('/')
        .next()?;
    authority.rsplit_once(':')?.1.parse().ok()
}

fn without_credentials(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            let path = path.split(['?', '#']).next().unwrap_or_default();
            format!("{scheme}://{host}{path}").escape_default().to_string()
        }
        None => url
            .rsplit('@')
            .next()
            .unwrap_or_default()
            .escape_default()
            .to_string(),
    }
}

/// The output.
#[derive(Debug)]
pub(super) struct Otlp {
    exporter: SpanExporter,
    batching: Batching,
    shown: String,
    give_up: Option<Duration>,
    away: Option<Instant>,
    refusal: Option<String>,
}

impl Otlp {
    /// Makes the exporter; must run inside the runtime that will drive it. With `give_up` a collector that stays away
    /// that long is an error, without it is waited for.
    pub(super) fn new(
        settings: &Settings,
        batching: Batching,
        give_up: Option<Duration>,
    ) -> anyhow::Result<Self> {
        static TLS: Once = Once::new();
        // An error means that a provider is there already.
        TLS.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let builder = SpanExporter::builder();
        let exporter = match settings.protocol {
            Protocol::HttpBinary => {
                let builder = builder.with_http().with_protocol(Protocol::HttpBinary);
                match &settings.endpoint {
                    Some(url) => builder.with_endpoint(url).build(),
                    None => builder.build(),
                }
            }
            _ => {
                let builder = builder.with_tonic().with_protocol(Protocol::Grpc);
                match &settings.endpoint {
                    Some(url) => builder.with_endpoint(url).build(),
                    None => builder.build(),
                }
            }
        };
        Ok(Self {
            exporter: exporter.with_context(|| format!("can't export to {}", settings.shown))?,
            batching,
            shown: settings.shown.clone(),
            give_up,
            away: None,
            refusal: None,
        })
    }

    pub(super) async fn run(mut self, mut intake: Intake) -> anyhow::Result<()> {
        while let Some(batch) = intake.batch(self.batching.batch, self.batching.delay).await {
            for group in group(&batch) {
                self.deliver(group, &mut intake).await?;
            }
        }
        Ok(())
    }

    /// Exports one group, however often it takes.
    async fn deliver(&mut self, group: Group, intake: &mut Intake) -> anyhow::Result<()> {
        let count = group.spans.len();
        let mut pause = FIRST_PAUSE;
        self.exporter.set_resource(&group.resource);
        loop {
            let error = match self.exporter.export(group.spans.clone()).await {
                Ok(()) => {
                    self.arrived();
                    intake.counts.exported(count);
                    return Ok(());
                }
                Err(error) => error,
            };
            let reason = reason(&error);
            if !is_transient(&error) {
                self.refused(count, reason);
                intake.counts.failed(count);
                return Ok(());
            }
            let since = *self.away.get_or_insert_with(|| {
                tracing::warn!(
                    "collector {} is away ({reason}): holding spans, trying again",
                    self.shown
                );
                Instant::now()
            });
            if self.give_up.is_some_and(|patience| since.elapsed() > patience) {
                bail!("collector {} stays away ({reason}): is it running?", self.shown);
            }
            intake.pause(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn arrived(&mut self) {
        if let Some(since) = self.away.take() {
            tracing::info!(
                "collector {} is back after {} s",
                self.shown,
                since.elapsed().as_secs()
            );
        }
        self.refusal = None;
    }

    fn refused(&mut self, count: usize, reason: String) {
        self.away = None;
        if self.refusal.as_ref() != Some(&reason) {
            tracing::error!(
                "collector {} refuses spans ({reason}): {count} dropped; check endpoint, protocol and headers",
                self.shown
            );
            self.refusal = Some(reason);
        }
    }
}

fn reason(error: &OTelSdkError) -> String {
    match error {
        OTelSdkError::InternalFailure(text) => text
            .trim_start_matches("TonicTracesClient export failed with ")
            .trim_start_matches("HTTP export failed: ")
            .trim_start_matches("HTTP export failed with ")
            .to_owned(),
        other => other.to_string(),
    }
}

/// Whether the same spans may be taken later, by the OTLP specification's lists (OTLP/gRPC and OTLP/HTTP "Failures").
///
/// The exporter tells the reason as text only. It has honoured Retry-After and RetryInfo by then.
fn is_transient(error: &OTelSdkError) -> bool {
    let text = match error {
        OTelSdkError::Timeout(_) => return true,
        OTelSdkError::AlreadyShutdown => return false,
        OTelSdkError::InternalFailure(text) => text,
    };
    if let Some((_, code)) = text.split_once("gRPC code: ") {
        let (code, source) = code.split_once(':').unwrap_or((code, ""));
        let passing = [
            "Unavailable",
            "Cancelled",
            "DeadlineExceeded",
            "Aborted",
            "OutOfRange",
            "DataLoss",
        ];
        // A connection that breaks in mid-call surfaces under other codes, with the transport's error behind it.
        return passing.contains(&code.trim())
            || source.contains("transport error")
            || source.contains("h2 protocol");
    }
    if let Some((_, status)) = text.split_once("status code: ") {
        return ["429", "502", "503", "504"].contains(&status.trim());
    }
    text.contains("network error")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(flag: Option<&str>, vars: &[(&str, &str)]) -> Result<Settings, UsageError> {
        Settings::new(flag, &|name| {
            vars.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    /// Scenario: protocol and endpoint from flag and variables.
    /// Guarantees: the standard's precedence, http/protobuf for its own port, a path only where HTTP needs one.
    #[test]
    fn protocol_and_endpoint() {
        let plain = settings(None, &[]).unwrap();
        assert_eq!((plain.protocol, plain.configured()), (Protocol::Grpc, false));
        let http = settings(Some("http://c:4318/"), &[]).unwrap();
        assert_eq!(http.protocol, Protocol::HttpBinary);
        assert_eq!(http.endpoint.as_deref(), Some("http://c:4318/v1/traces"));
        let both = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
        ];
        assert_eq!(
            settings(Some("http://c:4318"), &both).unwrap().protocol,
            Protocol::Grpc
        );
        let json = settings(None, &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")]).unwrap_err();
        assert!(json.to_string().contains("use grpc or http/protobuf"));
        assert!(settings(Some("collector:4317"), &[]).is_err());
    }

    /// Scenario: an endpoint with a password and a token in it.
    /// Guarantees: neither is in what the log shows.
    #[test]
    fn credentials_are_not_shown() {
        let shown = settings(Some("https://user:hunter2@c:4317/base?key=hunter2"), &[])
            .unwrap()
            .shown;
        assert_eq!(shown, "https://c:4317/base");
    }

    /// Scenario: the exporter's errors, as its version words them.
    /// Guarantees: only what the specification calls retryable is tried again.
    #[test]
    fn transient_or_final() {
        let grpc = |rest: &str| {
            OTelSdkError::InternalFailure(format!("TonicTracesClient export failed with gRPC code: {rest}"))
        };
        let http = |status: &str| {
            OTelSdkError::InternalFailure(format!("HTTP export failed with status code: {status}"))
        };
        for error in [
            grpc("Unavailable: transport error: connection refused"),
            grpc("DeadlineExceeded"),
            grpc("Unknown: transport error: broken pipe"),
            http("503"),
            http("429"),
            OTelSdkError::InternalFailure("HTTP export failed: network error".to_owned()),
            OTelSdkError::Timeout(Duration::from_secs(1)),
        ] {
            assert!(is_transient(&error), "{error}");
        }
        for error in [
            grpc("InvalidArgument"),
            grpc("Unimplemented"),
            grpc("ResourceExhausted"),
            http("400"),
            http("404"),
        ] {
            assert!(!is_transient(&error), "{error}");
        }
    }
}
