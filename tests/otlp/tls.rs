//! Collectors under TLS.

use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use super::collector::Collector;
use super::spans::numbered;
use super::{close, start};

/// A certificate authority of our own, what it signed, and its folder.
struct Certificates {
    folder: std::path::PathBuf,
    authority: String,
    certificate: String,
    key: String,
}

impl Certificates {
    fn new(name: &str) -> Self {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_certificate = authority.self_signed(&authority_key).unwrap();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let folder = std::env::temp_dir().join(format!("celeryscope-tls-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let made = Self {
            folder,
            authority: authority_certificate.pem(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        };
        for (file, pem) in [
            ("ca", &made.authority),
            ("cert", &made.certificate),
            ("key", &made.key),
        ] {
            std::fs::write(made.folder.join(file), pem).unwrap();
        }
        made
    }

    fn path(&self, file: &str) -> String {
        self.folder.join(file).display().to_string()
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Scenario: gRPC under TLS to a collector that wants to know its clients; the variables name authority, certificate
/// and key. Then an agent that does not know the authority.
/// Guarantees: the first delivers, the second delivers nothing.
#[tokio::test(flavor = "multi_thread")]
async fn grpc_under_tls() {
    let made = Certificates::new("grpc");
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(&made.certificate, &made.key))
        .client_ca_root(Certificate::from_pem(&made.authority));
    let collector = Collector::default();
    let (at, _stop) = collector
        .serve_with("127.0.0.1:0".parse().unwrap(), Some(tls))
        .await;
    let endpoint = format!("https://localhost:{}", at.port());
    let (ca, cert, key) = (made.path("ca"), made.path("cert"), made.path("key"));
    let vars = [
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", ca.as_str()),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", cert.as_str()),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", key.as_str()),
    ];
    let mut exporters = start("otlp", Some(endpoint.clone()), &vars);
    exporters.send(&numbered(0));
    assert_eq!(close(exporters, Duration::from_secs(4))["otlp_exported"], 1);

    let mut stranger = start("otlp", Some(endpoint), &[]);
    stranger.send(&numbered(1));
    assert_eq!(close(stranger, Duration::from_secs(1))["otlp_exported"], 0);
    assert_eq!(collector.spans().len(), 1);
}

/// Scenario: OTLP/HTTP under TLS, the authority named by its variable; then without.
/// Guarantees: the first delivers, the second delivers nothing.
#[tokio::test(flavor = "multi_thread")]
async fn http_under_tls() {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    let made = Certificates::new("http");
    let certificate = CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let collector = Collector::default();
    let at = collector.serve_http(Some(Arc::new(config).into())).await;
    let endpoint = format!("https://localhost:{}", at.port());
    let ca = made.path("ca");
    let protocol = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf");
    let vars = [protocol, ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", ca.as_str())];
    let mut exporters = start("otlp", Some(endpoint.clone()), &vars);
    exporters.send(&numbered(0));
    assert_eq!(close(exporters, Duration::from_secs(4))["otlp_exported"], 1);

    let mut stranger = start("otlp", Some(endpoint), &[protocol]);
    stranger.send(&numbered(1));
    assert_eq!(close(stranger, Duration::from_secs(1))["otlp_exported"], 0);
    assert_eq!(collector.spans().len(), 1);
}
