//! `celeryscope replay`: a recording through the same core, with the same outputs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use celeryscope_core::{Output, Pipeline};
use clap::Args;

use super::ConfigArgs;
use crate::config::{OutputArgs, SpanArgs};
use crate::export::{self, Exporters};
use crate::metrics;
use crate::recording::Reader;
use crate::runtime::{Exporting, Sink};

const HELP: &str = "\
Examples:
  celeryscope replay shop.rec
  celeryscope replay shop.rec --output otlp-json > spans.jsonl
  celeryscope replay shop.rec --output otlp --otlp-endpoint http://localhost:4317";

/// How long a replay waits for the collector to take the last spans: nobody waits behind it but the user.
const FLUSH: Duration = Duration::from_secs(30);

/// Make spans from a recording
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct ReplayArgs {
    /// What `celeryscope record` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
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

    let shown = args.file.display();
    let mut reader = Reader::open(&args.file).with_context(|| format!("can't replay {shown}"))?;
    let exporters = Exporters::start(&plan, export::Mode::Replay)?;
    let mut sink = Exporting::new(exporters, None, output.stats.unwrap_or(false));
    let mut pipeline = Pipeline::new(config);
    let damage = loop {
        match reader.next_record() {
            Ok(Some(record)) => {
                sink.record(&record);
                pipeline.feed(&record);
                take_spans(&mut pipeline, &mut sink);
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    if let Some(cut) = reader.cut() {
        tracing::warn!(
            "{shown} ends in the middle of a record ({cut}): the whole ones before it were replayed"
        );
    }
    pipeline.finish();
    take_spans(&mut pipeline, &mut sink);
    let code = sink.finish(metrics::of_core(&pipeline.stats(), &pipeline.held()), FLUSH)?;
    match damage {
        Some(error) => Err(error).with_context(|| format!("can't replay all of {shown}")),
        None => Ok(code),
    }
}

fn take_spans(pipeline: &mut Pipeline, sink: &mut Exporting) {
    while let Some(output) = pipeline.poll() {
        if let Output::Span(span) = output {
            sink.span(span);
        }
    }
}
