//! The agent's own numbers as OpenTelemetry metrics, to the collector that gets the spans.
//!
//! The SDK's reader asks for them every interval on a thread of its own, and takes them from the [`Board`]. A collector that
//! takes no metrics is told of once; spans are not held up by any of this.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use celeryscope_core::{Area, Metric, MetricKind};
use opentelemetry::metrics::{AsyncInstrument, Meter, MeterProvider};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use opentelemetry_sdk::resource::EnvResourceDetector;
use tokio::runtime::Runtime;

use super::settings::Settings;
use super::{is_transient, reason};
use crate::metrics::own::Usage;
use crate::metrics::{Board, Reading, catalogue, sentence};

/// How long the loop is waited for when the numbers there are old.
const PATIENCE: Duration = Duration::from_secs(1);
/// What is asked within this time is one collection; no interval is shorter in earnest.
const TOGETHER: Duration = Duration::from_millis(100);

/// Metrics on their way. They stop with [`Telemetry::finish`].
#[derive(Debug)]
pub struct Telemetry {
    /// There until it is finished.
    provider: Option<SdkMeterProvider>,
    board: Arc<Board>,
}

/// The board, asked once for all the instruments of one collection: a loop that is stuck is waited for once.
#[derive(Debug)]
struct Source {
    board: Arc<Board>,
    last: Mutex<Option<(Instant, Arc<[Reading]>)>>,
}

impl Source {
    fn readings(&self) -> Arc<[Reading]> {
        let Ok(mut last) = self.last.lock() else {
            return Arc::from([]);
        };
        if let Some((at, readings)) = &*last
            && at.elapsed() < TOGETHER
        {
            return Arc::clone(readings);
        }
        let readings = Arc::from(self.board.recent_blocking(PATIENCE).readings);
        *last = Some((Instant::now(), Arc::clone(&readings)));
        readings
    }
}

impl Telemetry {
    /// Starts to send what is on the board, every `interval`.
    ///
    /// # Errors
    /// The exporter can't be set up.
    pub(in crate::export) fn start(
        settings: &Settings,
        interval: Duration,
        board: Arc<Board>,
    ) -> anyhow::Result<Self> {
        // One worker drives the connection between exports; the reader's thread waits for it.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("otlp-metrics")
            .enable_all()
            .build()
            .context("can't start the event loop of the agent's own metrics")?;
        let inside = runtime.enter();
        let exporter = settings.metric_exporter()?;
        drop(inside);
        let exporter = Once {
            exporter,
            runtime: Some(runtime),
            shown: settings.shown().to_owned(),
            refused: Mutex::default(),
        };
        let reader = PeriodicReader::builder(exporter).with_interval(interval).build();
        let provider = SdkMeterProvider::builder()
            .with_resource(resource())
            .with_reader(reader)
            .build();
        let scope = InstrumentationScope::builder("celeryscope")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        let meter = provider.meter_with_scope(scope);
        let source = Arc::new(Source {
            board: Arc::clone(&board),
            last: Mutex::default(),
        });
        for metric in catalogue() {
            instrument(&meter, metric, &source);
        }
        Ok(Self {
            provider: Some(provider),
            board,
        })
    }

    /// Sends the last numbers, within `deadline`.
    pub fn finish(mut self, readings: Vec<Reading>, deadline: Duration) {
        let Some(provider) = self.provider.take() else {
            return;
        };
        // Not among what has just been collected.
        thread::sleep(TOGETHER.min(deadline));
        self.board.put(readings);
        let (ended, end) = mpsc::channel();
        let spawned = thread::Builder::new()
            .name("metrics-end".to_owned())
            .spawn(move || {
                let _ = provider.shutdown();
                let _ = ended.send(());
            });
        // Spans are what counts; a collector that is away does not keep the program from ending.
        if spawned.is_ok() {
            let _ = end.recv_timeout(deadline.min(Duration::from_secs(2)));
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        // The program could not start. Its provider would send what there is first, and wait for that.
        if let Some(provider) = self.provider.take() {
            let _ = thread::Builder::new().spawn(move || drop(provider));
        }
    }
}

/// The agent itself, on this host; more where the user says so (`OTEL_RESOURCE_ATTRIBUTES`).
fn resource() -> Resource {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Resource::builder_empty()
        .with_detector(Box::new(EnvResourceDetector::new()))
        .with_attributes([
            KeyValue::new("service.name", "celeryscope"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("host.name", host),
        ])
        .build()
}

/// An instrument of the metric that reads the board.
fn instrument(meter: &Meter, metric: &'static Metric, source: &Arc<Source>) {
    let description = sentence(metric.meaning);
    let source = Arc::clone(source);
    if metric.area == Area::Agent {
        // Of the process: named by the conventions, and not on the board.
        match metric.kind {
            MetricKind::Counter => {
                _ = meter
                    .f64_observable_counter("process.cpu.time")
                    .with_unit("s")
                    .with_description(description)
                    .with_callback(|observer| observer.observe(Usage::now().cpu as f64 / 1000.0, &[]))
                    .build()
            }
            MetricKind::Gauge => {
                _ = meter
                    .i64_observable_up_down_counter("process.memory.usage")
                    .with_unit("By")
                    .with_description(description)
                    .with_callback(|observer| {
                        observer.observe(i64::try_from(Usage::now().resident).unwrap_or(i64::MAX), &[]);
                    })
                    .build()
            }
        }
        return;
    }
    let name = format!("celeryscope.{}", metric.name);
    let observe = move |observer: &dyn AsyncInstrument<u64>| {
        for reading in source.readings().iter() {
            if reading.metric.name == metric.name {
                let output = reading
                    .output
                    .map(|output| KeyValue::new("celeryscope.output", output));
                observer.observe(reading.value, output.as_slice());
            }
        }
    };
    match metric.kind {
        MetricKind::Counter => {
            _ = meter
                .u64_observable_counter(name)
                .with_unit(metric.unit)
                .with_description(description)
                .with_callback(observe)
                .build()
        }
        MetricKind::Gauge => {
            _ = meter
                .u64_observable_gauge(name)
                .with_unit(metric.unit)
                .with_description(description)
                .with_callback(observe)
                .build()
        }
    }
}

/// An exporter that says once that the collector takes no metrics. That it is away, the spans' exporter says.
#[derive(Debug)]
struct Once {
    exporter: MetricExporter,
    /// Always there, until it is dropped.
    runtime: Option<Runtime>,
    shown: String,
    refused: Mutex<bool>,
}

impl Once {
    fn told(&self, result: &OTelSdkResult) {
        let Ok(mut refused) = self.refused.lock() else {
            return;
        };
        match result {
            Ok(()) if std::mem::take(&mut *refused) => {
                tracing::info!("collector {} takes metrics now", self.shown);
            }
            Ok(()) => {}
            Err(error) if is_transient(error, false) => {
                tracing::debug!("metrics not delivered: {}", reason(error));
            }
            Err(error) => {
                if !std::mem::replace(&mut *refused, true) {
                    tracing::warn!(
                        "collector {} takes no metrics ({}): only spans are sent (OTEL_METRICS_EXPORTER=none spares the \
                         attempt)",
                        self.shown,
                        reason(error)
                    );
                }
            }
        }
    }
}

impl PushMetricExporter for Once {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let Some(runtime) = &self.runtime else {
            return Ok(());
        };
        // The reader's thread is none of the runtime's, and has nothing else to do.
        let result = runtime.block_on(self.exporter.export(metrics));
        self.told(&result);
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}

impl Drop for Once {
    fn drop(&mut self) {
        // A call that hangs must not hold up whoever drops this.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use opentelemetry_sdk::error::OTelSdkError;
    use tracing_subscriber::fmt::MakeWriter;

    use super::super::Signal;
    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Log {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// Scenario: a collection of many instruments while the loop stands still; a program that does not start while its
    /// collector says nothing.
    /// Guarantees: the loop is waited for once, not once for each; giving up takes no time.
    #[test]
    fn a_stuck_loop_and_a_failed_start() {
        let source = Source {
            board: Arc::default(),
            last: Mutex::default(),
        };
        let began = Instant::now();
        for _ in 0..100 {
            assert!(source.readings().is_empty());
        }
        assert!(began.elapsed() < 2 * PATIENCE, "{:?}", began.elapsed());

        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let settings = Settings::new(Signal::Metrics, Some(&url), &|_| None).unwrap();
        let telemetry = Telemetry::start(&settings, Duration::from_secs(60), Arc::default()).unwrap();
        let began = Instant::now();
        drop(telemetry);
        assert!(
            began.elapsed() < Duration::from_millis(500),
            "{:?}",
            began.elapsed()
        );
    }

    /// Scenario: a collector that is away, that knows no metrics (again and again), and that takes them after all.
    /// Guarantees: nothing is said of the first, one line of the second however often, one line of the third.
    #[test]
    fn said_once() {
        let runtime = Runtime::new().unwrap();
        let inside = runtime.enter();
        let settings = Settings::new(Signal::Metrics, Some("http://127.0.0.1:9"), &|_| None).unwrap();
        let exporter = settings.metric_exporter().unwrap();
        drop(inside);
        let once = Once {
            exporter,
            runtime: Some(runtime),
            shown: settings.shown().to_owned(),
            refused: Mutex::default(),
        };
        let failed = |text: &str| Err(OTelSdkError::InternalFailure(text.to_owned()));
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            once.told(&failed(
                "TonicMetricsClient export failed with gRPC code: Unavailable",
            ));
            for _ in 0..3 {
                once.told(&failed(
                    "TonicMetricsClient export failed with gRPC code: Unimplemented",
                ));
                once.told(&failed("HTTP export failed with status code: 404"));
            }
            once.told(&Ok(()));
            once.told(&Ok(()));
        });
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = log.lines().collect();
        assert_eq!(lines.len(), 2, "{log}");
        assert!(lines[0].contains("http://127.0.0.1:9 takes no metrics (gRPC code: Unimplemented)"));
        assert!(lines[1].contains("takes metrics now"));
    }
}
