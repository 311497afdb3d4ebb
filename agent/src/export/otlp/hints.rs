//! What comes of an export that the exporter does not tell: when to come again, how many spans were not taken, why it was not reached. Its
//! errors are text without it, so it is noted on the way: by gRPC here, by HTTP in the [client](super::client).

use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry_http::{Bytes, Response};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message as _;
use tonic::Status;

/// Longest wait that is granted: a collector that wants more gets less peace.
const LONGEST: Duration = Duration::from_secs(600);

/// Of one export.
#[derive(Debug, Default)]
pub(super) struct Hints {
    attempts: AtomicU32,
    retry_after: Mutex<Option<Duration>>,
    /// By HTTP: what the collector says of spans that it did not take, though it answered well.
    partly: Mutex<Option<ExportTracePartialSuccess>>,
    /// By HTTP: why it was not reached.
    cause: Mutex<Option<String>>,
}

impl Hints {
    /// A new export begins.
    pub(super) fn clear(&self) {
        self.attempts.store(0, Relaxed);
        self.retry_after();
        self.partly();
        self.cause();
    }

    /// Whether the exporter itself tried again: what it got before was passing, by its own judgement.
    pub(super) fn tried_again(&self) -> bool {
        self.attempts.load(Relaxed) > 1
    }

    /// How long the collector asked to be left alone, from its last answer on.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        take(&self.retry_after).map(|asked| asked.min(LONGEST))
    }

    /// How many spans were not taken, and why.
    pub(super) fn partly(&self) -> Option<(usize, String)> {
        let partly = take(&self.partly)?;
        let rejected = usize::try_from(partly.rejected_spans).unwrap_or(0);
        (rejected > 0 || !partly.error_message.is_empty()).then_some((rejected, partly.error_message))
    }

    /// Why the collector was not reached.
    pub(super) fn cause(&self) -> Option<String> {
        take(&self.cause)
    }

    /// Counts calls by gRPC.
    pub(super) fn counting(
        hints: &Arc<Self>,
    ) -> impl FnMut(tonic::Request<()>) -> Result<tonic::Request<()>, Status> + Clone + Send + Sync + 'static
    {
        let hints = Arc::clone(hints);
        move |request| {
            hints.count();
            Ok(request)
        }
    }

    /// An attempt begins.
    pub(super) fn count(&self) {
        self.attempts.fetch_add(1, Relaxed);
    }

    /// Its answer.
    pub(super) fn note(&self, response: &Response<Bytes>) {
        let seconds = response.headers().get("retry-after");
        let seconds = seconds.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        put(&self.retry_after, seconds.map(Duration::from_secs));
        put(&self.cause, None);
        let told = ExportTraceServiceResponse::decode(response.body().as_ref());
        put(&self.partly, told.ok().and_then(|told| told.partial_success));
    }

    /// There was none. The innermost cause says most, and nothing of the URL.
    pub(super) fn note_failure(&self, error: &(dyn Error + 'static)) {
        let mut cause = error.source();
        while let Some(deeper) = cause.and_then(Error::source) {
            cause = Some(deeper);
        }
        put(&self.cause, cause.map(ToString::to_string));
    }
}

fn take<T>(of: &Mutex<Option<T>>) -> Option<T> {
    of.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn put<T>(of: &Mutex<Option<T>>, value: Option<T>) {
    *of.lock().unwrap_or_else(PoisonError::into_inner) = value;
}
