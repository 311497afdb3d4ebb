//! `celeryscope record`: capture live into a file, masked.

use std::fs::File;
use std::io::BufWriter;
use std::process::ExitCode;

use anyhow::Context;
use celeryscope_common::Record;
use celeryscope_core::{Area, Metric, MetricKind, Span};
use clap::Args;

use super::ConfigArgs;
use super::run::require_privileges;
use crate::config::{CaptureArgs, RecordingArgs, SpanArgs, UsageError};
use crate::metrics::{Reading, metric};
use crate::recording::{Redactor, Writer};
use crate::runtime::{self, Sink};

const HELP: &str = "\
The file holds what the kernel half saw, with secrets overwritten byte for byte before they reach the disk: Redis
passwords, message bodies, argsrepr and kwargsrepr, results, tracebacks and exception messages, values of headers that
are neither Celery's nor a tracer's, values of other programs on the same Redis. Task names, ids, queues, statuses,
exception classes, host and process names and trace context stay. RabbitMQ's traffic is masked whole. The file is
readable by its owner only; `celeryscope replay` shows it.

Example:
  celeryscope record -o shop.rec --duration 1m";

/// Write what the kernel half sees to a file, secrets masked
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct RecordArgs {
    #[command(flatten)]
    recording: RecordingArgs,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    capture: CaptureArgs,
}

pub(super) fn run(args: RecordArgs) -> anyhow::Result<ExitCode> {
    let file = args.config.read()?;
    let options = args.capture.or_file(&file)?.options();
    let recording = args.recording.or_file(&file)?;
    let path = recording
        .recording
        .ok_or_else(|| UsageError("record needs a file to write: give -o FILE".to_owned()))?;
    let masked = !recording.include_payloads.unwrap_or(false);
    require_privileges("record")?;

    let writer = Writer::create(&path, masked)
        .with_context(|| format!("can't write the recording {}", path.display()))?;
    let sink = Recording {
        writer,
        redactor: masked.then(Redactor::default),
        failed: None,
    };
    // The core runs along: its verdicts tell the kernel half what not to copy.
    let config = SpanArgs::default().config();
    let duration = recording.duration.map(|period| period.0);
    let (watched, sink) = runtime::watch(&options, config, duration, None, || Ok(sink))?;
    let written = match sink.failed {
        Some(error) => Err(error),
        None => sink.writer.finish().map_err(Into::into),
    };
    let (records, bytes) =
        written.with_context(|| format!("can't write the recording {}", path.display()))?;
    watched.detached();
    eprintln!("recorded records={records} bytes={bytes} file={}", path.display());
    Ok(ExitCode::SUCCESS)
}

static WRITTEN: Metric = metric(
    "recording_records",
    "Records written to the file.",
    "{record}",
    Area::Export,
    MetricKind::Counter,
);

struct Recording {
    writer: Writer<BufWriter<File>>,
    redactor: Option<Redactor>,
    failed: Option<anyhow::Error>,
}

impl Sink for Recording {
    fn record(&mut self, record: &Record<'_>) {
        if self.failed.is_some() {
            return;
        }
        let written = match &mut self.redactor {
            Some(redactor) => self.writer.write(&redactor.mask(record)),
            None => self.writer.write(record),
        };
        self.failed = written.err().map(Into::into);
    }

    fn span(&mut self, _span: Box<Span>) {}

    fn readings(&self) -> Vec<Reading> {
        vec![Reading::new(&WRITTEN, self.writer.records())]
    }

    fn ended(&mut self) -> bool {
        self.failed.is_some()
    }
}
