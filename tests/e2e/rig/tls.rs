//! Servers that speak TLS: an authority of the test's own, what it signed, and what makes a client trust it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};

use super::broker::Broker;

/// The one version of TLS that a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    V12,
    V13,
}

/// A server's certificate and key and the authority that signed it, in PEM.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) tls: Tls,
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Identity {
    /// Makes all of it, good for every loopback address, in this folder.
    pub(crate) fn make(tls: Tls, folder: &Path) -> Self {
        const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
        let new_key = || rcgen::KeyPair::generate().expect("a key pair");
        let names = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            rcgen::CertificateParams::new(names).expect("names of a certificate")
        };
        let authority_key = new_key();
        let mut authority = names(&[]);
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        // Python 3.13 and later refuse an authority that does not say what its key is for.
        authority.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let authority_certificate = authority.self_signed(&authority_key).expect("an authority");
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = new_key();
        let mut server = names(&NAMES);
        server
            .distinguished_name
            .push(rcgen::DnType::CommonName, NAMES[0]);
        server.use_authority_key_identifier_extension = true;
        let certificate = server.signed_by(&key, &issuer).expect("a certificate");
        let write = |name: &str, pem: String| {
            let path = folder.join(name);
            std::fs::write(&path, pem).expect("a PEM file");
            path
        };
        Self {
            tls,
            authority: write("authority.pem", authority_certificate.pem()),
            certificate: write("certificate.pem", certificate.pem()),
            key: write("key.pem", key.serialize_pem()),
        }
    }

    /// Celery's settings for clients of this broker and of a Redis as result backend: certificates are checked.
    pub(crate) fn settings(&self, broker: Broker) -> Value {
        let authority = &self.authority;
        let redis = json!({"ssl_cert_reqs": "required", "ssl_ca_certs": authority});
        let broker = if broker == Broker::Redis {
            redis.clone()
        } else {
            // ssl.CERT_REQUIRED; with no name given, kombu has the one of the URL checked.
            json!({"cert_reqs": 2, "ca_certs": authority, "server_hostname": null})
        };
        json!({"broker_use_ssl": broker, "redis_backend_use_ssl": redis})
    }

    /// Does something within a session over this connection to a server on this host.
    pub(crate) fn within<T>(&self, mut stream: TcpStream, exchange: impl FnOnce(&mut dyn Duplex) -> T) -> T {
        let mut roots = rustls::RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(&self.authority).expect("the authority's PEM file");
        roots.add(authority).expect("an authority to trust");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let mut session = rustls::ClientConnection::new(Arc::new(config), name).expect("a session");
        exchange(&mut rustls::Stream::new(&mut session, &mut stream))
    }
}

/// Both directions of a connection.
pub(crate) trait Duplex: Read + Write {}

impl<T: Read + Write> Duplex for T {}
