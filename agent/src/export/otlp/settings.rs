//! `--otlp-endpoint` and the `OTEL_EXPORTER_OTLP_*` variables, made into an exporter.

use std::sync::{Arc, Once};
use std::time::Duration;

use anyhow::Context;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig, Identity};
use opentelemetry_otlp::{
    MetricExporter, OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT, Protocol, SpanExporter, WithExportConfig,
    WithHttpConfig, WithTonicConfig,
};

use super::client::{Body, Client};
use super::complaints;
use super::hints::Hints;
use crate::config::UsageError;

/// What is sent: each kind has variables and a path of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::export) enum Signal {
    /// Spans.
    Traces,
    /// The agent's own numbers.
    Metrics,
}

impl Signal {
    /// The variable of this name for the signal alone, then the one for all.
    pub(super) fn variables(self, what: &str) -> [String; 2] {
        let own = match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
        };
        [
            format!("OTEL_EXPORTER_OTLP_{own}_{what}"),
            format!("OTEL_EXPORTER_OTLP_{what}"),
        ]
    }

    fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
        }
    }
}

/// Where to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::export) struct Settings {
    protocol: Protocol,
    /// `--otlp-endpoint`; the exporter reads the variables itself.
    endpoint: Option<String>,
    /// What is shown to the user: no credentials.
    shown: String,
    configured: bool,
    /// Neither flag nor variable asks for plain text.
    tls: bool,
    /// PEM of who may have signed the collector's certificate.
    authority: Option<Vec<u8>>,
    /// PEM of this agent's own certificate, and of its key.
    identity: Option<(Vec<u8>, Vec<u8>)>,
    timeout: Duration,
}

impl Settings {
    /// From `--otlp-endpoint` and the environment.
    pub(in crate::export) fn new(
        signal: Signal,
        endpoint: Option<&str>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, UsageError> {
        let given = endpoint
            .map(str::to_owned)
            .or_else(|| signal.variables("ENDPOINT").iter().find_map(|name| env(name)));
        let asked = signal
            .variables("PROTOCOL")
            .into_iter()
            .find_map(|name| env(&name).map(|value| (name, value)));
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
        if let Some(url) = &given
            && !url.starts_with("http://")
            && !url.starts_with("https://")
        {
            let named = endpoint.map_or_else(
                || signal.variables("ENDPOINT").join(" or "),
                |_| "--otlp-endpoint".to_owned(),
            );
            return Err(UsageError(format!(
                "{named} takes a URL such as http://localhost:4317 (http:// or https://)"
            )));
        }
        for complaint in complaints::of(signal, env) {
            tracing::warn!("{complaint}");
        }
        // The flag, like the general variable, is a base; the exporter takes what it is given as the whole.
        let endpoint = endpoint.map(|url| match protocol {
            Protocol::HttpBinary => {
                let base = url.strip_suffix(Signal::Traces.path()).unwrap_or(url);
                let base = base.strip_suffix(signal.path()).unwrap_or(base);
                format!("{}{}", base.trim_end_matches('/'), signal.path())
            }
            _ => url.to_owned(),
        });
        let configured = given.is_some();
        let default = match protocol {
            Protocol::HttpBinary => "http://localhost:4318",
            _ => "http://localhost:4317",
        };
        let pem = |what: &str| pem_file(signal, what, env);
        let identity = match (pem("CLIENT_CERTIFICATE")?, pem("CLIENT_KEY")?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return Err(UsageError(
                    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and _CLIENT_KEY go together: set both".to_owned(),
                ));
            }
        };
        let given = given.as_deref().unwrap_or(default);
        Ok(Self {
            protocol,
            shown: without_credentials(given),
            configured,
            tls: !given.starts_with("http://"),
            authority: pem("CERTIFICATE")?,
            identity,
            timeout: timeout(signal, env),
            endpoint,
        })
    }

    /// Whether anybody named an endpoint.
    pub(in crate::export) fn configured(&self) -> bool {
        self.configured
    }

    /// Can what the exporter sends be put in its place ([`Body`])?
    pub(super) fn takes_a_body(&self) -> bool {
        self.protocol == Protocol::HttpBinary
    }

    /// Endpoint as it may be shown: without credentials.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Makes an exporter of spans; must run inside the runtime that will drive it. What is not here it reads from the
    /// environment itself: headers, compression, endpoint where there is no flag. `hints` learn what its errors don't tell. Where
    /// there is a `body`, that is sent, whatever is exported; by HTTP only.
    pub(super) fn span_exporter(
        &self,
        hints: &Arc<Hints>,
        body: Option<&Arc<Body>>,
    ) -> anyhow::Result<SpanExporter> {
        let build = || -> anyhow::Result<SpanExporter> {
            Ok(match self.protocol {
                Protocol::HttpBinary => self
                    .http(SpanExporter::builder().with_http(), hints, body)?
                    .build()?,
                _ => {
                    let counting = Hints::counting(hints);
                    let builder = self.grpc(SpanExporter::builder().with_tonic());
                    builder.with_interceptor(counting).build()?
                }
            })
        };
        self.built(build)
    }

    /// The same for metrics.
    pub(super) fn metric_exporter(&self) -> anyhow::Result<MetricExporter> {
        let build = || -> anyhow::Result<MetricExporter> {
            Ok(match self.protocol {
                Protocol::HttpBinary => self
                    .http(MetricExporter::builder().with_http(), &Arc::default(), None)?
                    .build()?,
                _ => self.grpc(MetricExporter::builder().with_tonic()).build()?,
            })
        };
        self.built(build)
    }

    fn built<T>(&self, build: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        static PROVIDER: Once = Once::new();
        // An error means that a provider is there already.
        PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        build().with_context(|| format!("can't export to {}", self.shown))
    }

    fn grpc<B: WithExportConfig + WithTonicConfig>(&self, builder: B) -> B {
        let mut builder = builder.with_protocol(Protocol::Grpc).with_timeout(self.timeout);
        if let Some(url) = &self.endpoint {
            builder = builder.with_endpoint(url);
        }
        if self.tls {
            let mut tls = match &self.authority {
                Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                None => ClientTlsConfig::new().with_enabled_roots(),
            };
            if let Some((certificate, key)) = &self.identity {
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            builder = builder.with_tls_config(tls);
        }
        builder
    }

    fn http<B: WithExportConfig + WithHttpConfig>(
        &self,
        builder: B,
        hints: &Arc<Hints>,
        body: Option<&Arc<Body>>,
    ) -> anyhow::Result<B> {
        // A redirected export arrives without its spans, and its headers may be secrets: the answer is an error like another.
        let mut client = reqwest::Client::builder()
            .timeout(self.timeout)
            .redirect(reqwest::redirect::Policy::none());
        if let Some(pem) = &self.authority {
            client = client.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem)?);
        }
        if let Some((certificate, key)) = &self.identity {
            client = client.identity(reqwest::Identity::from_pem(
                &[certificate.as_slice(), b"\n", key].concat(),
            )?);
        }
        let mut builder = builder
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(self.timeout)
            .with_http_client(Client::new(client.build()?, hints, body));
        if let Some(url) = &self.endpoint {
            builder = builder.with_endpoint(url);
        }
        Ok(builder)
    }
}

/// The file that `OTEL_EXPORTER_OTLP_TRACES_<WHAT>`, else `OTEL_EXPORTER_OTLP_<WHAT>`, names.
fn pem_file(
    signal: Signal,
    what: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Vec<u8>>, UsageError> {
    let named = signal
        .variables(what)
        .into_iter()
        .find_map(|name| env(&name).map(|path| (name, path)));
    let Some((name, path)) = named else {
        return Ok(None);
    };
    match std::fs::read(&path) {
        Ok(pem) => Ok(Some(pem)),
        Err(error) => Err(UsageError(format!("{name}: can't read {path}: {error}"))),
    }
}

/// `OTEL_EXPORTER_OTLP_TRACES_TIMEOUT`, else `OTEL_EXPORTER_OTLP_TIMEOUT`, in ms.
fn timeout(signal: Signal, env: &dyn Fn(&str) -> Option<String>) -> Duration {
    let names = signal.variables("TIMEOUT");
    let millis = names.iter().find_map(|name| complaints::millis(&env(name)?));
    millis.map_or(OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT, Duration::from_millis)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(flag: Option<&str>, vars: &[(&str, &str)]) -> Result<Settings, UsageError> {
        settings_of(Signal::Traces, flag, vars)
    }

    fn settings_of(
        signal: Signal,
        flag: Option<&str>,
        vars: &[(&str, &str)],
    ) -> Result<Settings, UsageError> {
        Settings::new(signal, flag, &|name| {
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
        let variable = settings(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")]).unwrap_err();
        assert!(
            variable
                .to_string()
                .contains("OTEL_EXPORTER_OTLP_ENDPOINT takes a URL")
        );
    }

    /// Scenario: metrics beside traces, with the flag, with the flag's path written out, with variables of their own.
    /// Guarantees: each signal goes to its own path and follows its own variables before the general ones.
    #[test]
    fn metrics_have_their_own() {
        let endpoint = |flag| {
            settings_of(Signal::Metrics, Some(flag), &[])
                .unwrap()
                .endpoint
                .unwrap()
        };
        for flag in [
            "http://c:4318",
            "http://c:4318/v1/traces",
            "http://c:4318/v1/metrics",
        ] {
            assert_eq!(endpoint(flag), "http://c:4318/v1/metrics");
        }
        assert_eq!(endpoint("http://c:4317"), "http://c:4317");
        let vars = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "7000"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "9000"),
        ];
        let metrics = settings_of(Signal::Metrics, None, &vars).unwrap();
        assert_eq!(
            (metrics.protocol, metrics.timeout),
            (Protocol::HttpBinary, Duration::from_secs(7))
        );
        let traces = settings(None, &vars).unwrap();
        assert_eq!(
            (traces.protocol, traces.timeout),
            (Protocol::Grpc, Duration::from_secs(9))
        );
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
}
