//! The live loop: records from the kernel to the core, the core's outputs to whoever wants them, until told to stop.
//!
//! One thread, and nothing in it waits for an exporter: each output has a thread and a bounded queue of its own
//! ([`crate::export`]). The order at the end: drain what capture holds, let the core finish, flush the outputs against a
//! deadline; meanwhile the probes are detached, which takes the kernel a second or two.

use std::io::{Read as _, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use celeryscope_common::{Kind, Record};
use celeryscope_core::time::Mono;
use celeryscope_core::{Config, Output, Pipeline, Span, SpanKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::{flag, low_level};

use crate::capture::{Live, LiveOptions};
use crate::export::{Exporters, Telemetry};
use crate::metrics::{self, Board, Reading, summary};

/// How long `run` lets the outputs flush at the end; with the rest it stays under the promised 5 s.
pub(crate) const FLUSH: Duration = Duration::from_secs(4);

/// Who takes what a live capture yields.
pub(crate) trait Sink {
    /// A record, before the core sees it.
    fn record(&mut self, record: &Record<'_>);
    /// A span is complete.
    fn span(&mut self, span: Box<Span>);
    /// All that had come has been handed over; more will come.
    fn turn(&mut self) {}
    /// Its own numbers.
    fn readings(&self) -> Vec<Reading>;
    /// Nothing can come of going on: stop.
    fn ended(&mut self) -> bool;
}

/// A capture that has come to its end.
#[derive(Debug)]
pub(crate) struct Watched {
    /// The capture's and the core's numbers.
    pub(crate) readings: Vec<Reading>,
    detaching: JoinHandle<()>,
}

impl Watched {
    /// Waits until the probes are detached.
    pub(crate) fn detached(self) {
        // A panic in there has been reported by its thread.
        let _ = self.detaching.join();
    }
}

/// Captures until a signal, until `duration` is over or the sink has ended; `board` learns how it goes. The sink is made when
/// the probes are attached, on a thread that is locked down as outputs are.
///
/// # Errors
/// The capture or the sink can't start.
pub(crate) fn watch<S: Sink + Send>(
    options: &LiveOptions,
    config: Config,
    duration: Option<Duration>,
    board: Option<&Board>,
    sink: impl FnOnce() -> anyhow::Result<S> + Send,
) -> anyhow::Result<(Watched, S)> {
    let mut signals = Signals::new()?;
    let live = Live::start(options)?;
    live.also_woken_by(signals.descriptor())?;
    let mut sink = live.locked().outputs(sink)?;
    let watched = watch_until_told(&mut signals, live, config, duration, board, &mut sink)?;
    Ok((watched, sink))
}

fn watch_until_told(
    signals: &mut Signals,
    mut live: Live,
    config: Config,
    duration: Option<Duration>,
    board: Option<&Board>,
    sink: &mut dyn Sink,
) -> anyhow::Result<Watched> {
    if let Some(board) = board {
        board.attached(true);
    }
    let attached = live.attached();
    let ports: Vec<_> = attached.ports.iter().map(u16::to_string).collect();
    say(&format!(
        "ready probes={} ports={} processes={} connections={}",
        attached.backend.name(),
        ports.join(","),
        attached.processes,
        attached.connections
    ));

    let mut pipeline = Pipeline::new(config);
    let begun = Instant::now();
    while !sink.ended() {
        let left = duration.map_or(Duration::MAX, |duration| duration.saturating_sub(begun.elapsed()));
        live.wait(left);
        match signals.asked() {
            Some(Asked::Stop) => break,
            Some(Asked::Counters) => show(&summary::full(&numbers(&live, &pipeline, sink))),
            None if left.is_zero() => break,
            None => {}
        }
        pump(&mut live, &mut pipeline, sink);
        sink.turn();
        if let Some(board) = board {
            board.turn(|| numbers(&live, &pipeline, sink));
        }
    }

    if let Some(board) = board {
        board.attached(false);
    }
    pump(&mut live, &mut pipeline, sink);
    pipeline.finish();
    hand_out(&mut live, &mut pipeline, sink);
    let mut readings = live.readings();
    readings.extend(metrics::of_core(&pipeline.stats(), &pipeline.held()));
    let detaching = thread::Builder::new()
        .name("detach".to_owned())
        .spawn(move || drop(live))
        .context("can't start a thread")?;
    Ok(Watched { readings, detaching })
}

/// Most drains in a row, so that where more comes than can be followed signals are still heard.
const DRAINS: usize = 128;

/// Everything that has come, through the core, out.
fn pump(live: &mut Live, pipeline: &mut Pipeline, sink: &mut dyn Sink) {
    // Read before the drain: whatever was older than this is then in the core.
    let now = monotonic();
    for _ in 0..DRAINS {
        let more = live.drain(&mut |record| {
            sink.record(record);
            pipeline.feed(record);
        });
        if !more {
            pipeline.advance(now);
            break;
        }
        hand_out(live, pipeline, sink);
    }
    hand_out(live, pipeline, sink);
}

fn hand_out(live: &mut Live, pipeline: &mut Pipeline, sink: &mut dyn Sink) {
    while let Some(output) = pipeline.poll() {
        live.apply(&output);
        if let Output::Span(span) = output {
            sink.span(span);
        }
    }
}

fn monotonic() -> Mono {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Mono(seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0))
}

fn numbers(live: &Live, pipeline: &Pipeline, sink: &dyn Sink) -> Vec<Reading> {
    let mut readings = live.readings();
    readings.extend(metrics::of_core(&pipeline.stats(), &pipeline.held()));
    readings.extend(sink.readings());
    readings
}

fn show(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Was the signal ignored by whoever started this, as SIGHUP is by `nohup`? Then it stays so.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    ignored.is_some_and(|bits| bits & 1 << (signal - 1) != 0)
}

enum Asked {
    Stop,
    Counters,
}

/// Signals from others, and the descriptor that has something to read when one comes.
struct Signals {
    stop: Arc<AtomicBool>,
    counters: Arc<AtomicBool>,
    woken: UnixStream,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = || -> std::io::Result<Self> {
            let (woken, wakes) = UnixStream::pair()?;
            woken.set_nonblocking(true)?;
            let (stop, counters) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
            let hangup = (!is_ignored(SIGHUP)).then_some((SIGHUP, &stop));
            let others = [(SIGINT, &stop), (SIGTERM, &stop), (SIGUSR1, &counters)];
            for (signal, told) in hangup.into_iter().chain(others) {
                flag::register(signal, Arc::clone(told))?;
                low_level::pipe::register(signal, wakes.try_clone()?)?;
            }
            // A file that may grow no more is an error of the write.
            flag::register(SIGXFSZ, Arc::default())?;
            Ok(Self {
                stop,
                counters,
                woken,
            })
        };
        listen().context("can't listen for signals")
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }

    /// What was asked since the last time.
    fn asked(&mut self) -> Option<Asked> {
        if self.stop.load(Ordering::Relaxed) {
            return Some(Asked::Stop);
        }
        if !self.counters.swap(false, Ordering::Relaxed) {
            return None;
        }
        // A byte for each signal, so that there is always room for the next.
        while self.woken.read(&mut [0; 16]).is_ok_and(|bytes| bytes > 0) {}
        Some(Asked::Counters)
    }
}

/// The sink of `run` and `replay`: spans to the exporters, a summary at the end.
#[derive(Debug)]
pub struct Exporting {
    exporters: Exporters,
    telemetry: Option<Telemetry>,
    stats: bool,
    publishes: u64,
    runs: u64,
    lost: u64,
}

impl Exporting {
    /// Spans go to `exporters`, the agent's own numbers by `telemetry`; `stats` prints all of them at the end.
    #[must_use]
    pub fn new(exporters: Exporters, telemetry: Option<Telemetry>, stats: bool) -> Self {
        Self {
            exporters,
            telemetry,
            stats,
            publishes: 0,
            runs: 0,
            lost: 0,
        }
    }

    /// Flushes the outputs and prints the summary, of which `readings` are those of capture and core.
    ///
    /// # Errors
    /// An output could not write what it had.
    pub fn finish(mut self, mut readings: Vec<Reading>, flush: Duration) -> anyhow::Result<ExitCode> {
        let end = Instant::now() + flush;
        let result = self.exporters.close(flush);
        let totals = self.exporters.totals();
        readings.extend(self.readings());
        if let Some(telemetry) = self.telemetry {
            telemetry.finish(readings.clone(), end.saturating_duration_since(Instant::now()));
        }
        if self.stats {
            readings.retain(Reading::is_counter);
            show(&summary::full(&readings));
        } else {
            show(&summary::short(&readings));
        }
        say(&format!(
            "done publishes={} runs={} exported={} dropped={} failed={} lost_records={}",
            self.publishes, self.runs, totals.exported, totals.dropped, totals.failed, self.lost
        ));
        match result {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => bail!(error),
        }
    }
}

impl Sink for Exporting {
    fn record(&mut self, record: &Record<'_>) {
        if record.kind == Kind::Lost {
            self.lost = self.lost.saturating_add(record.header.conn);
        }
    }

    fn span(&mut self, span: Box<Span>) {
        match span.kind {
            SpanKind::Publish => self.publishes += 1,
            SpanKind::Run => self.runs += 1,
        }
        self.exporters.send(&Arc::new(*span));
    }

    fn readings(&self) -> Vec<Reading> {
        self.exporters.readings()
    }

    fn ended(&mut self) -> bool {
        self.exporters.ended()
    }
}
