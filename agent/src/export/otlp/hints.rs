//! What a collector says of when to come again. The exporter's errors are text without it, so it is noted on the way: by gRPC here, by
//! HTTP in the [client](super::client).

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry_http::{Bytes, Response};
use tonic::Status;

/// Longest wait that is granted: a collector that wants more gets less peace.
const LONGEST: Duration = Duration::from_secs(600);

/// Of one export.
#[derive(Debug, Default)]
pub(super) struct Hints {
    attempts: AtomicU32,
    retry_after: Mutex<Option<Duration>>,
}

impl Hints {
    /// A new export begins.
    pub(super) fn clear(&self) {
        self.attempts.store(0, Relaxed);
        self.retry_after();
    }

    /// Whether the exporter itself tried again: what it got before was passing, by its own judgement.
    pub(super) fn tried_again(&self) -> bool {
        self.attempts.load(Relaxed) > 1
    }

    /// How long the collector asked to be left alone, from its last answer on.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let mut asked = self.retry_after.lock().unwrap_or_else(PoisonError::into_inner);
        asked.take().map(|asked| asked.min(LONGEST))
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
        *self.retry_after.lock().unwrap_or_else(PoisonError::into_inner) = seconds.map(Duration::from_secs);
    }
}
