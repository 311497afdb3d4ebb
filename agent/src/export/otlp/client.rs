//! The HTTP client beneath the exporter: sends spans that are encoded already, and notes what the collector says to that.
//!
//! Endpoint, headers, compression, attempts and errors are the exporter's. It is asked to export no spans, and what it then hands down to be
//! sent has its body replaced here: encoding is what a span costs, and the exporter's costs several times as much as [ours](super::encode).

use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{CONTENT_ENCODING, HeaderValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};

use super::hints::Hints;

/// What the exporter's next requests carry.
#[derive(Debug, Default)]
pub(super) struct Body(Mutex<Bytes>);

impl Body {
    /// From here on.
    pub(super) fn set(&self, body: Bytes) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = body;
    }

    /// Encoded as the exporter has said that it is.
    fn encoded(&self, encoding: Option<&HeaderValue>) -> Result<Bytes, HttpError> {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match encoding.map(HeaderValue::as_bytes) {
            None => Ok(body),
            Some(b"gzip") => {
                let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::default());
                encoder.write_all(&body)?;
                Ok(encoder.finish()?.into())
            }
            Some(other) => Err(format!("no compression by {}", other.escape_ascii()).into()),
        }
    }
}

/// The client.
#[derive(Debug)]
pub(super) struct Client {
    client: reqwest::Client,
    hints: Arc<Hints>,
    /// None where the exporter encodes itself.
    body: Option<Arc<Body>>,
}

impl Client {
    pub(super) fn new(client: reqwest::Client, hints: &Arc<Hints>, body: Option<&Arc<Body>>) -> Self {
        Self {
            client,
            hints: Arc::clone(hints),
            body: body.cloned(),
        }
    }
}

#[tonic::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.hints.count();
        if let Some(body) = &self.body {
            *request.body_mut() = body.encoded(request.headers().get(CONTENT_ENCODING))?;
        }
        let sent = self.client.send_bytes(request).await;
        match &sent {
            Ok(response) => self.hints.note(response),
            Err(error) => self.hints.note_failure(error.as_ref()),
        }
        sent
    }
}
