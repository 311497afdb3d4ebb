//! Where spans go: any number of outputs, each on a thread of its own behind a bounded queue.
//!
//! A stuck output hurts nobody: live capture never waits for a queue ([`Mode::Live`] drops and counts), a replay does,
//! for its input can wait ([`Mode::Replay`]). For each output accepted + dropped + unsampled is what was offered, and
//! accepted = exported + failed + held; in the end nothing is held.

mod convert;
mod intake;
mod otlp;
mod otlp_json;
mod sampling;
mod settings;
mod tree;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{self as std_mpsc, RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use celeryscope_core::{Area, Metric, MetricKind, Span};
use serde::Deserialize;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::error::TrySendError;

use crate::metrics::{Reading, metric};
use intake::{Counts, Inlet};
use sampling::Sampling;
use settings::Batching;

pub use otlp::Telemetry;
pub use settings::{Fallback, Plan};

/// One `--output`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub enum OutputSpec {
    /// To a collector.
    Otlp,
    /// Trace trees for people, on standard output.
    Tree,
    /// OTLP/JSON lines to a file, or to standard output.
    OtlpJson(Option<PathBuf>),
}

/// What a full queue means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Spans come from a live capture, which must not wait: drop.
    Live,
    /// Spans come from a file: wait, and let no clock decide what goes out together.
    Replay,
}

/// Sums over all outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Spans delivered.
    pub exported: u64,
    /// Spans that found a full queue or were still held at the end.
    pub dropped: u64,
    /// Spans that were refused for good.
    pub failed: u64,
}

const fn of_output(name: &'static str, meaning: &'static str, kind: MetricKind) -> Metric {
    metric(name, meaning, "{span}", Area::Export, kind)
}

/// What each output counts and holds, in the order in which it is read.
pub(crate) static METRICS: &[Metric] = &[
    of_output(
        "export_accepted",
        "Spans taken into the queue.",
        MetricKind::Counter,
    ),
    of_output("export_exported", "Spans delivered.", MetricKind::Counter),
    of_output("export_failed", "Spans refused for good.", MetricKind::Counter),
    of_output(
        "export_dropped",
        "Spans lost to a full queue or the end.",
        MetricKind::Counter,
    ),
    of_output(
        "export_unsampled",
        "Spans the sampler left out.",
        MetricKind::Counter,
    ),
    of_output(
        "export_held",
        "Spans accepted of which nothing has become yet.",
        MetricKind::Gauge,
    ),
    of_output("export_queue", "Spans that wait in the queue.", MetricKind::Gauge),
    of_output(
        "export_queue_limit",
        "Most spans that the queue holds.",
        MetricKind::Gauge,
    ),
];

/// Outputs that can start: their files are open, their settings were understood.
pub struct Prepared {
    outputs: Vec<Ready>,
    mode: Mode,
}

/// The running outputs.
#[derive(Debug)]
pub struct Exporters {
    outputs: Vec<Running>,
    mode: Mode,
}

type Work = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

#[derive(Debug)]
struct Running {
    name: &'static str,
    queue: Inlet,
    counts: Arc<Counts>,
    sampling: Option<Sampling>,
    done: std_mpsc::Receiver<anyhow::Result<()>>,
    end: Option<Result<(), String>>,
    warned: Option<Instant>,
}

impl Prepared {
    /// Opens what each output of the plan writes to.
    ///
    /// # Errors
    /// An output can't be set up: a file that can't be written, an endpoint that is not a URL.
    pub fn new(plan: &Plan, mode: Mode) -> anyhow::Result<Self> {
        let outputs = plan
            .outputs
            .iter()
            .map(|spec| Ready::new(spec, plan, mode))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { outputs, mode })
    }

    /// Starts them, each on a thread that has the privileges of this one.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn start(self) -> anyhow::Result<Exporters> {
        Ok(Exporters {
            outputs: self
                .outputs
                .into_iter()
                .map(Ready::start)
                .collect::<anyhow::Result<_>>()?,
            mode: self.mode,
        })
    }
}

impl Exporters {
    /// Starts each output of the plan.
    ///
    /// # Errors
    /// An output can't be set up: a file that can't be written, an endpoint that is not a URL.
    pub fn start(plan: &Plan, mode: Mode) -> anyhow::Result<Self> {
        Prepared::new(plan, mode)?.start()
    }

    /// Offers a span to every output.
    pub fn send(&mut self, span: &Arc<Span>) {
        for output in &mut self.outputs {
            output.offer(span, self.mode);
        }
    }

    /// Whether all outputs have ended by themselves (a closed pipe, a full disk).
    pub fn ended(&mut self) -> bool {
        for output in &mut self.outputs {
            if output.end.is_none()
                && let Some(end) = match output.done.try_recv() {
                    Ok(result) => Some(result.map_err(|error| format!("{error:#}"))),
                    Err(TryRecvError::Disconnected) => Some(Err("its thread died".to_owned())),
                    Err(TryRecvError::Empty) => None,
                }
            {
                if let Err(error) = &end {
                    tracing::error!("output {} stopped: {error}", output.name);
                }
                output.end = Some(end);
            }
        }
        !self.outputs.is_empty() && self.outputs.iter().all(|output| output.end.is_some())
    }

    /// Lets every output write what it holds, all of them within `deadline`.
    ///
    /// # Errors
    /// An output failed, or, in a replay, did not get rid of all its spans in time.
    pub fn close(&mut self, deadline: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + deadline;
        for output in &mut self.outputs {
            output.queue.close();
        }
        let mut result = Ok(());
        for output in &mut self.outputs {
            let ended = output.wait(end);
            let counts = output.counts.settle();
            let trouble = match ended {
                Some(Err(error)) => Some(error),
                None if counts.held > 0 => {
                    tracing::warn!(
                        "output {}: {} spans could not be delivered in time",
                        output.name,
                        counts.held
                    );
                    (self.mode == Mode::Replay).then(|| format!("{} spans were not delivered", counts.held))
                }
                // Its reader has gone, or everything was delivered.
                Some(Ok(())) | None => None,
            };
            let refused = (self.mode == Mode::Replay && counts.failed > 0)
                .then(|| format!("{} spans were refused", counts.failed));
            if let Some(trouble) = trouble.or(refused) {
                result = Err(anyhow!("output {}: {trouble}", output.name));
            }
        }
        result
    }

    /// Sums over all outputs.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.outputs.iter().fold(Totals::default(), |sum, output| {
            let counts = output.counts.read();
            Totals {
                exported: sum.exported + counts.exported,
                dropped: sum.dropped + counts.dropped,
                failed: sum.failed + counts.failed,
            }
        })
    }

    /// Every output's counters and queue.
    #[must_use]
    pub fn readings(&self) -> Vec<Reading> {
        let of = |output: &Running| {
            let counts = output.counts.read();
            let values = [
                counts.accepted,
                counts.exported,
                counts.failed,
                counts.dropped,
                counts.unsampled,
                counts.held,
                output.queue.queued() as u64,
                output.queue.room() as u64,
            ];
            let name = output.name;
            METRICS.iter().zip(values).map(move |(metric, value)| Reading {
                output: Some(name),
                ..Reading::new(metric, value)
            })
        };
        self.outputs.iter().flat_map(of).collect()
    }
}

/// An output without its thread.
struct Ready {
    name: &'static str,
    runtime: Runtime,
    work: Work,
    queue: Inlet,
    counts: Arc<Counts>,
    sampling: Option<Sampling>,
}

impl Ready {
    fn new(spec: &OutputSpec, plan: &Plan, mode: Mode) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("can't start an output's event loop")?;
        let batching = Batching {
            delay: plan.batching.delay.filter(|_| mode == Mode::Live),
            ..plan.batching
        };
        let counts = Arc::new(Counts::default());
        let (queue, intake) = intake::queue(plan.batching.queue, plan.batching.batch, &counts);

        // The channel to a collector binds to the runtime it is made in.
        let inside = runtime.enter();
        let (name, work): (_, Work) = match spec {
            OutputSpec::Otlp => {
                let give_up = (mode == Mode::Replay).then_some(Duration::from_secs(30));
                let exporter = otlp::Otlp::new(&plan.otlp, batching, give_up)?;
                ("otlp", Box::pin(exporter.run(intake)))
            }
            OutputSpec::Tree => {
                let quiet = (mode == Mode::Live).then_some(tree::QUIET);
                ("tree", Box::pin(tree::run(intake, quiet)))
            }
            OutputSpec::OtlpJson(path) => {
                let lines = otlp_json::OtlpJson::open(path.as_deref(), batching)?;
                ("otlp-json", Box::pin(lines.run(intake)))
            }
        };
        drop(inside);
        Ok(Self {
            name,
            runtime,
            work,
            queue,
            counts,
            sampling: (*spec != OutputSpec::Tree).then(|| plan.sampling.clone()),
        })
    }

    fn start(self) -> anyhow::Result<Running> {
        let Self {
            name, runtime, work, ..
        } = self;
        let (finished, done) = std_mpsc::sync_channel(1);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let result = runtime.block_on(work);
                runtime.shutdown_background();
                let _ = finished.send(result);
            })
            .with_context(|| format!("can't start the thread of output {name}"))?;
        Ok(Running {
            name,
            queue: self.queue,
            counts: self.counts,
            sampling: self.sampling,
            done,
            end: None,
            warned: None,
        })
    }
}

impl Running {
    fn offer(&mut self, span: &Arc<Span>, mode: Mode) {
        if self
            .sampling
            .as_ref()
            .is_some_and(|sampling| !sampling.keeps(span))
        {
            self.counts.unsampled(1);
            return;
        }
        // Counted first: the output may have delivered it before this thread goes on.
        self.counts.accepted(1);
        if let Err(error) = self.queue.send(Arc::clone(span), mode) {
            self.counts.take_back(1);
            self.counts.dropped(1);
            let due = self
                .warned
                .is_none_or(|at| at.elapsed() > Duration::from_secs(60));
            if due && matches!(error, TrySendError::Full(_)) {
                tracing::warn!(
                    "output {} can't keep up, its queue is full: dropping spans",
                    self.name
                );
                self.warned = Some(Instant::now());
            }
        }
    }

    /// Waits for the output's end; None when it takes too long.
    fn wait(&mut self, end: Instant) -> Option<Result<(), String>> {
        if self.end.is_some() {
            return self.end.clone();
        }
        match self
            .done
            .recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            Ok(result) => Some(result.map_err(|error| format!("{error:#}"))),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err("its thread died".to_owned())),
        }
    }
}
