//! `celeryscope run`: capture live, export until told to stop.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;

use super::ConfigArgs;
use crate::capture;
use crate::config::{CaptureArgs, MetricsArgs, OutputArgs, SpanArgs};
use crate::export::{self, Prepared};
use crate::metrics::{Board, Bound, Endpoint};
use crate::runtime::{self, Exporting};

const HELP: &str = "\
Without --output spans go to OTLP where an endpoint is set (--otlp-endpoint, OTEL_EXPORTER_OTLP_ENDPOINT or
OTEL_EXPORTER_OTLP_TRACES_ENDPOINT), else they are shown as trees.

OTLP follows OTEL_EXPORTER_OTLP_{ENDPOINT,PROTOCOL,HEADERS,TIMEOUT,COMPRESSION,CERTIFICATE,CLIENT_CERTIFICATE,
CLIENT_KEY} and their _TRACES_ forms. The protocol is grpc or http/protobuf; default grpc, for port 4318 the other.
OTEL_TRACES_SAMPLER and _ARG, OTEL_BSP_SCHEDULE_DELAY (1000 ms), OTEL_BSP_MAX_QUEUE_SIZE (16384) and
OTEL_BSP_MAX_EXPORT_BATCH_SIZE (512) hold too. The sampler is not asked for trees.

A line `ready probes=… ports=… processes=… connections=…` on standard error tells that capture has begun. Ctrl-C,
SIGTERM and SIGHUP flush and end within 5 s; SIGUSR1 prints all counters, and what is held beside its cap.

With --output otlp the agent's own metrics go to the same collector, as OTEL_METRICS_EXPORTER (otlp, none) and
OTEL_METRIC_EXPORT_INTERVAL (60000 ms) say.

Examples:
  celeryscope run
  celeryscope run --broker-port 6390 --output tree --output otlp-json=spans.jsonl
  OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4317 celeryscope run --span-style contrib";

/// Watch this host and export spans until Ctrl-C
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    capture: CaptureArgs,
    #[command(flatten)]
    span: SpanArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    metrics: MetricsArgs,
}

pub(super) fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let file = args.config.read()?;
    let options = args.capture.or_file(&file)?.options();
    let config = args.span.or_file(&file)?.config();
    let output = args.output.or_file(&file)?;
    let metrics = args.metrics.or_file(&file)?;
    let plan = export::Plan::new(&output, export::Fallback::ByEndpoint)?;
    require_privileges("run")?;

    let board = Arc::new(Board::default());
    // What takes privileges of the outputs, before they have none: files and addresses.
    let bound = metrics.metrics_listen.map(Bound::new).transpose()?;
    let prepared = Prepared::new(&plan, export::Mode::Live)?;
    let mut listening = None;
    let (watched, sink) = runtime::watch(&options, config, None, Some(&board), || {
        listening = bound
            .map(|bound| Endpoint::start(bound, Arc::clone(&board)))
            .transpose()?;
        let telemetry = plan.telemetry(&board);
        let exporters = prepared.start()?;
        Ok(Exporting::new(
            exporters,
            telemetry,
            output.stats.unwrap_or(false),
        ))
    })?;
    let code = sink.finish(watched.readings.clone(), runtime::FLUSH);
    drop(listening);
    watched.detached();
    code
}

/// Refuses in one line when the kernel will.
pub(super) fn require_privileges(command: &str) -> anyhow::Result<()> {
    let missing = capture::missing_privileges();
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "{command} needs {}, which this process lacks: start it as root, or grant them to the service \
         (celeryscope doctor tells how)",
        missing.join(", ")
    )
}
