//! `celeryscope replay`: a recording through the same core, with the same outputs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use celeryscope_core::{Area, Metric, MetricKind, Output, Pipeline};
use clap::Args;

use super::ConfigArgs;
use crate::config::{OutputArgs, SpanArgs};
use crate::export::{self, Exporters};
use crate::metrics::{self, Reading, metric};
use crate::recording::{Parts, Report};
use crate::runtime::{Exporting, Sink};

const HELP: &str = "\
The same recording gives the same spans, byte for byte, on any machine and as often as it is replayed. Several FILEs are
the parts of one recording that was rotated, in any order; together they give what one whole file would, and each alone
what an agent would have told that had started with it.

A file that was cut off is replayed up to there, with a warning. Damage costs the records that it hit: the rest is
replayed, and the exit code is 1. docs/recordings.md tells more.

Exit codes: 0 all of it replayed, 1 failed or damaged, 2 usage.

Examples:
  celeryscope replay shop.rec
  celeryscope replay shop.rec --output otlp-json > spans.jsonl
  celeryscope replay shop.rec.2 shop.rec.1 shop.rec --stats
  celeryscope replay shop.rec --output otlp --otlp-endpoint http://localhost:4317";

/// How long a replay waits for the collector to take the last spans: nobody waits behind it but the user.
const FLUSH: Duration = Duration::from_secs(30);

/// Make spans from a recording
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct ReplayArgs {
    /// What `celeryscope record` wrote; several where it was rotated
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    span: SpanArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(args: ReplayArgs) -> anyhow::Result<ExitCode> {
    let file = args.config.read()?;
    let config = args.span.or_file(&file)?.config();
    let output = args.output.or_file(&file)?;
    let plan = export::Plan::new(&output, export::Fallback::Tree)?;

    let mut parts = Parts::open(&args.files).context("can't replay")?;
    let exporters = Exporters::start(&plan, export::Mode::Replay)?;
    let mut sink = Exporting::new(exporters, None, output.stats.unwrap_or(false));
    let mut pipeline = Pipeline::new(config);
    let broken = loop {
        match parts.next_record() {
            Ok(Some(record)) => {
                sink.record(&record);
                pipeline.feed(&record);
                take_spans(&mut pipeline, &mut sink);
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    pipeline.finish();
    take_spans(&mut pipeline, &mut sink);
    let mut readings = of_reading(&parts);
    readings.extend(metrics::of_core(&pipeline.stats(), &pipeline.held()));
    let code = sink.finish(readings, FLUSH)?;
    if let Some(error) = broken {
        return Err(error).context("can't replay all of it");
    }
    judge(&parts)?;
    Ok(code)
}

fn take_spans(pipeline: &mut Pipeline, sink: &mut Exporting) {
    while let Some(output) = pipeline.poll() {
        if let Output::Span(span) = output {
            sink.span(span);
        }
    }
}

/// Says of each file what could not be read of it: damage is an error, all else a warning.
fn judge(parts: &Parts) -> anyhow::Result<()> {
    if parts.absent() > 0 {
        tracing::warn!(
            "{} records stand in parts of the recording that were not given",
            parts.absent()
        );
    }
    let mut damaged = Vec::new();
    for (path, report) in parts.reports() {
        let shown = path.display();
        if let Some(at) = report.cut {
            tracing::warn!("{shown} was cut off at byte {at}: what came before was replayed");
        }
        if report.unknown > 0 {
            tracing::warn!(
                "{shown}: {} records are of kinds that this agent does not know (a newer one wrote it): skipped",
                report.unknown
            );
        }
        if report.damaged > 0 {
            damaged.push(damage(path, report));
        }
    }
    if !damaged.is_empty() {
        bail!("{}; the rest was replayed", damaged.join("; "));
    }
    Ok(())
}

fn damage(path: &Path, report: &Report) -> String {
    format!(
        "{} is damaged in {} places, first at byte {}: {} records are lost",
        path.display(),
        report.damaged,
        report.first_damage,
        report.lost
    )
}

const fn of_file(name: &'static str, meaning: &'static str, unit: &'static str) -> Metric {
    metric(name, meaning, unit, Area::Capture, MetricKind::Counter)
}

static DAMAGED: Metric = of_file("recording_damaged", "Damaged places in the recording.", "{place}");
static UNKNOWN: Metric = of_file(
    "recording_unknown",
    "Records of kinds that only a newer agent knows, skipped.",
    "{record}",
);

fn of_reading(parts: &Parts) -> Vec<Reading> {
    let sum = |of: fn(&Report) -> u64| parts.reports().iter().map(|(_, report)| of(report)).sum();
    vec![
        Reading::new(&DAMAGED, sum(|report| report.damaged)),
        Reading::new(&UNKNOWN, sum(|report| report.unknown)),
    ]
}
