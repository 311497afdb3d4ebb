//! `celeryscope record`: capture live into a file, masked.

mod progress;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use celeryscope_common::Record;
use celeryscope_core::{Area, Metric, MetricKind, Span};
use clap::Args;
use progress::Progress;

use super::ConfigArgs;
use super::run::require_privileges;
use crate::capture::LiveOptions;
use crate::config::{CaptureArgs, RecordingArgs, SpanArgs, UsageError};
use crate::metrics::{Reading, metric};
use crate::recording::{Recorder, RecordingError};
use crate::runtime::{self, Sink};

const HELP: &str = "\
The file holds what the kernel half saw, with secrets overwritten byte for byte before they reach the disk: passwords,
message bodies, argsrepr and kwargsrepr, results, tracebacks and exception messages, values of headers that are neither
Celery's nor a tracer's, values of other programs on the same Redis. Task names, ids, queues, statuses, exception
classes, host and process names and trace context stay. docs/recordings.md tells more, and the file's format.

The file is readable by its owner only. It takes the place of an earlier recording of that name, never that of another
file, and no symbolic link is followed in a folder that everybody may write to. While it grows, its size is shown on
standard error. With --rotate-size FILE becomes FILE.1 when it is full, FILE.1 becomes FILE.2, and so on; each can be
replayed alone, or several together.

It ends at Ctrl-C, SIGTERM, SIGHUP, the end of --duration, or when the file can't be written (a full disk): what was written until
then can be replayed. Exit codes: 0 done, 1 failed, 2 usage.

Examples:
  celeryscope record -o shop.rec --duration 1m
  celeryscope record -o /var/tmp/shop.rec --rotate-size 256M --rotate-keep 3
  celeryscope record -o shop.rec --broker-port 6390 --include-payloads";

/// How often what was recorded is brought to the disk: no more than this is lost when the agent is killed.
const FLUSH: Duration = Duration::from_secs(1);

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
    let recording = args.recording.or_file(&file)?;
    let rotation = recording.rotation()?;
    let options = LiveOptions {
        new_files: rotation.is_some(),
        ..args.capture.or_file(&file)?.options()
    };
    let path = recording
        .recording
        .ok_or_else(|| UsageError("record needs a file to write: give -o FILE".to_owned()))?;
    let masked = !recording.include_payloads.unwrap_or(false);
    require_privileges("record")?;

    let recorder = Recorder::create(&path, masked, rotation).context("can't record")?;
    let sink = Recording {
        recorder,
        progress: Progress::start(&path, masked),
        flushed: Instant::now(),
        failed: None,
    };
    // The core runs along: its verdicts tell the kernel half what not to copy.
    let config = SpanArgs::default().config();
    let duration = recording.duration.map(|period| period.0);
    let (watched, sink) = runtime::watch(&options, config, duration, None, || Ok(sink))?;
    sink.progress.end();
    let written = match sink.failed {
        Some(error) => Err(error),
        None => sink.recorder.finish(),
    };
    watched.detached();
    let size = written.context("the recording ended")?;
    eprintln!(
        "recorded records={} bytes={} files={} file={}",
        size.records,
        size.bytes,
        size.files,
        path.display()
    );
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
    recorder: Recorder,
    progress: Progress,
    flushed: Instant,
    failed: Option<RecordingError>,
}

impl Sink for Recording {
    fn record(&mut self, record: &Record<'_>) {
        if self.failed.is_none() {
            self.failed = self.recorder.write(record).err();
        }
    }

    fn span(&mut self, _span: Box<Span>) {}

    fn turn(&mut self) {
        if self.failed.is_none() && self.flushed.elapsed() >= FLUSH {
            self.failed = self.recorder.flush().err();
            self.flushed = Instant::now();
        }
        self.progress.turn(self.recorder.size());
    }

    fn readings(&self) -> Vec<Reading> {
        vec![Reading::new(&WRITTEN, self.recorder.size().records)]
    }

    fn ended(&mut self) -> bool {
        self.failed.is_some()
    }
}
