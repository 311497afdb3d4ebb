//! The queue in front of an output, and its counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use celeryscope_core::Span;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, timeout};

use super::Mode;
use crate::capture;

/// An output that has had nothing to do for so long gives back what memory it needs no more.
const IDLE: Duration = Duration::from_secs(1);

/// What became of the spans offered to one output.
#[derive(Debug, Default)]
pub(super) struct Counts {
    accepted: AtomicU64,
    exported: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    unsampled: AtomicU64,
}

/// [`Counts`] at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) accepted: u64,
    pub(super) exported: u64,
    pub(super) failed: u64,
    pub(super) dropped: u64,
    pub(super) unsampled: u64,
    /// Accepted, and nothing has become of it.
    pub(super) held: u64,
}

fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Relaxed);
}

impl Counts {
    pub(super) fn accepted(&self, n: usize) {
        add(&self.accepted, n);
    }

    pub(super) fn take_back(&self, n: u64) {
        self.accepted.fetch_sub(n, Relaxed);
    }

    pub(super) fn exported(&self, n: usize) {
        add(&self.exported, n);
    }

    pub(super) fn failed(&self, n: usize) {
        add(&self.failed, n);
    }

    pub(super) fn dropped(&self, n: usize) {
        add(&self.dropped, n);
    }

    pub(super) fn unsampled(&self, n: usize) {
        add(&self.unsampled, n);
    }

    pub(super) fn read(&self) -> Reading {
        let (accepted, exported) = (self.accepted.load(Relaxed), self.exported.load(Relaxed));
        let failed = self.failed.load(Relaxed);
        Reading {
            accepted,
            exported,
            failed,
            dropped: self.dropped.load(Relaxed),
            unsampled: self.unsampled.load(Relaxed),
            held: accepted.saturating_sub(exported.saturating_add(failed)),
        }
    }

    /// At the end: what is held then is dropped. Returns how it stood before.
    pub(super) fn settle(&self) -> Reading {
        let now = self.read();
        self.accepted.fetch_sub(now.held, Relaxed);
        self.dropped.fetch_add(now.held, Relaxed);
        now
    }
}

/// A queue for `room` spans whose reader is woken early once it holds `batch` of them.
pub(super) fn queue(room: usize, batch: usize, counts: &Arc<Counts>) -> (Inlet, Intake) {
    let (sender, spans) = mpsc::channel(room);
    let (closing, closed) = watch::channel(false);
    let enough = Arc::new(Notify::new());
    let inlet = Inlet {
        queue: Some(sender),
        closing,
        enough: Arc::clone(&enough),
        batch: batch.min(room),
        room,
    };
    let intake = Intake {
        spans,
        closing: closed,
        enough,
        counts: Arc::clone(counts),
    };
    (inlet, intake)
}

/// The sending end of one output's queue.
#[derive(Debug)]
pub(super) struct Inlet {
    /// None once it is closed.
    queue: Option<mpsc::Sender<Arc<Span>>>,
    closing: watch::Sender<bool>,
    enough: Arc<Notify>,
    batch: usize,
    room: usize,
}

impl Inlet {
    /// Puts a span in; in a replay it waits for room.
    ///
    /// # Errors
    /// There is no room, or nobody reads any more.
    pub(super) fn send(&self, span: Arc<Span>, mode: Mode) -> Result<(), TrySendError<Arc<Span>>> {
        let Some(queue) = &self.queue else {
            return Err(TrySendError::Closed(span));
        };
        match mode {
            Mode::Live => queue.try_send(span)?,
            Mode::Replay => queue
                .blocking_send(span)
                .map_err(|error| TrySendError::Closed(error.0))?,
        }
        if self.queued() == self.batch {
            self.enough.notify_one();
        }
        Ok(())
    }

    /// Spans in the queue.
    pub(super) fn queued(&self) -> usize {
        let queued = |queue: &mpsc::Sender<_>| self.room.saturating_sub(queue.capacity());
        self.queue.as_ref().map_or(0, queued)
    }

    /// Spans that it holds at most.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// No more will come: what is in it is the rest.
    pub(super) fn close(&mut self) {
        self.queue = None;
        self.closing.send_replace(true);
    }
}

/// The receiving end of one output's queue.
#[derive(Debug)]
pub(super) struct Intake {
    spans: mpsc::Receiver<Arc<Span>>,
    closing: watch::Receiver<bool>,
    enough: Arc<Notify>,
    pub(super) counts: Arc<Counts>,
}

impl Intake {
    /// The next spans: as soon as there are `max`, or `delay` after the first. None when no more will come.
    ///
    /// Without a delay no clock decides where one batch ends and the next begins.
    pub(super) async fn batch(&mut self, max: usize, delay: Option<Duration>) -> Option<Vec<Arc<Span>>> {
        let mut batch = Vec::new();
        let first = timeout(IDLE, self.spans.recv_many(&mut batch, max)).await;
        let came = match first {
            Ok(came) => came,
            Err(_) => {
                // Batches are the most that this thread ever holds.
                capture::give_back();
                self.spans.recv_many(&mut batch, max).await
            }
        };
        if came == 0 {
            return None;
        }
        let Some(delay) = delay else {
            let mut room = max - batch.len();
            while room > 0 {
                match self.spans.recv_many(&mut batch, room).await {
                    0 => break,
                    came => room -= came,
                }
            }
            return Some(batch);
        };
        let end = sleep(delay);
        tokio::pin!(end);
        loop {
            while batch.len() < max
                && let Ok(span) = self.spans.try_recv()
            {
                batch.push(span);
            }
            if batch.len() == max || end.is_elapsed() || self.closing() {
                return Some(batch);
            }
            // To wake for each span that comes would cost more than the span.
            tokio::select! {
                () = self.enough.notified() => {}
                () = &mut end => {}
                _ = self.closing.wait_for(|closing| *closing) => {}
            }
        }
    }

    /// The next span within `wait`: None when no more will come, `Some(None)` when none came in time.
    pub(super) async fn next(&mut self, wait: Option<Duration>) -> Option<Option<Arc<Span>>> {
        match wait {
            None => self.spans.recv().await.map(Some),
            Some(wait) => match timeout(wait, self.spans.recv()).await {
                Ok(span) => span.map(Some),
                Err(_) => Some(None),
            },
        }
    }

    /// Sleeps, but not longer than the program lives.
    pub(super) async fn pause(&mut self, length: Duration) {
        if self.closing() {
            return sleep(length.min(Duration::from_millis(200))).await;
        }
        let _ = timeout(length, self.closing.wait_for(|closing| *closing)).await;
    }

    /// Sleeps as long as somebody else asks, at the program's end too: what comes sooner is refused.
    pub(super) async fn obey(&self, length: Duration) {
        sleep(length).await;
    }

    /// Whether the program is about to end.
    pub(super) fn closing(&self) -> bool {
        *self.closing.borrow()
    }
}
