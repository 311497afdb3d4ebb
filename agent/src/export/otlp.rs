//! OTLP to a collector, by gRPC or HTTP/protobuf, as the standard `OTEL_EXPORTER_OTLP_*` variables say.
//!
//! One export at a time, one call for each observed process (its own Resource). What fails for a passing reason is
//! tried again until it succeeds or the program ends, while the bounded queue behind it fills; what the collector
//! refuses for good is dropped and counted. The log says once that the collector went away, and once that it is back.

mod client;
mod complaints;
mod encode;
mod hints;
mod settings;
mod telemetry;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::SpanExporter as Export;
use tokio::time::Instant;

use super::convert::{Group, group};
use super::intake::Intake;
use super::settings::Batching;
use client::Body;
use hints::Hints;

pub(super) use settings::{Settings, Signal};
pub use telemetry::Telemetry;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The output.
#[derive(Debug)]
pub(super) struct Otlp<E = SpanExporter> {
    exporter: E,
    hints: Arc<Hints>,
    /// What the exporter sends, where that is encoded here and not by itself.
    body: Option<Arc<Body>>,
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
        let hints = Arc::default();
        let body = settings.takes_a_body().then(Arc::default);
        let exporter = settings.span_exporter(&hints, body.as_ref())?;
        let otlp = Self::with(exporter, hints, batching, settings.shown(), give_up);
        Ok(Self { body, ..otlp })
    }
}

impl<E: Export> Otlp<E> {
    fn with(
        exporter: E,
        hints: Arc<Hints>,
        batching: Batching,
        shown: &str,
        give_up: Option<Duration>,
    ) -> Self {
        Self {
            exporter,
            hints,
            body: None,
            batching,
            shown: shown.to_owned(),
            give_up,
            away: None,
            refusal: None,
        }
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
    async fn deliver(&mut self, group: Group<'_>, intake: &mut Intake) -> anyhow::Result<()> {
        let count = group.len();
        let mut pause = FIRST_PAUSE;
        match &self.body {
            Some(body) => body.set(encode::request(&group)),
            None => self.exporter.set_resource(&group.resource()),
        }
        loop {
            self.hints.clear();
            let spans = if self.body.is_some() {
                Vec::new()
            } else {
                group.data()
            };
            let error = match self.exporter.export(spans).await {
                Ok(()) => {
                    self.arrived();
                    let rejected = self.not_taken().min(count);
                    intake.counts.exported(count - rejected);
                    intake.counts.failed(rejected);
                    return Ok(());
                }
                Err(error) => error,
            };
            let mut reason = reason(&error);
            if let Some(cause) = self.hints.cause() {
                reason = format!("{reason}: {cause}");
            }
            if !is_transient(&error, self.hints.tried_again()) {
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
            let asked = self.hints.retry_after().filter(|asked| *asked > pause);
            let until = since.elapsed() + asked.unwrap_or_default();
            if self.give_up.is_some_and(|patience| until > patience) {
                bail!("collector {} stays away ({reason}): is it running?", self.shown);
            }
            if let Some(asked) = asked {
                intake.obey(asked).await;
            } else {
                intake.pause(spread(pause)).await;
            }
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
    }

    /// Of an export that went well, how many spans the collector says that it left out. It says so for the same reason again and again.
    fn not_taken(&mut self) -> usize {
        let Some((rejected, why)) = self.hints.partly() else {
            self.refusal = None;
            return 0;
        };
        if self.refusal.as_ref() != Some(&why) {
            tracing::warn!(
                "collector {} did not take {rejected} of the spans it was sent ({})",
                self.shown,
                why.escape_debug()
            );
            self.refusal = Some(why);
        }
        rejected
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

/// From three quarters to five quarters of it, so that a collector that comes back is not met by all agents at once.
fn spread(pause: Duration) -> Duration {
    let dice = u8::try_from(RandomState::new().hash_one(()) % 64).unwrap_or_default();
    pause * (96 + u32::from(dice)) / 128
}

fn reason(error: &OTelSdkError) -> String {
    match error {
        OTelSdkError::InternalFailure(text) => text
            .trim_start_matches("TonicTracesClient export failed with ")
            .trim_start_matches("TonicMetricsClient export failed with ")
            .trim_start_matches("HTTP export failed: ")
            .trim_start_matches("HTTP export failed with ")
            .to_owned(),
        other => other.to_string(),
    }
}

/// Whether the same spans may be taken later, by the OTLP specification's lists (OTLP/gRPC and OTLP/HTTP "Failures").
///
/// The exporter tells the reason as text only. It has honoured RetryInfo by then as far as its own patience goes, the timeout of a
/// call; that it tried again is how one knows that a collector that is out of resources expects to have some later.
fn is_transient(error: &OTelSdkError, tried_again: bool) -> bool {
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
        if code.trim() == "ResourceExhausted" && tried_again {
            return true;
        }
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
mod tests;
