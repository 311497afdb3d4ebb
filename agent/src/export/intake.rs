//! An output's end of its queue, and its counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use celeryscope_core::Span;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};

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

/// The receiving end of one output's queue.
#[derive(Debug)]
pub(super) struct Intake {
    spans: mpsc::Receiver<Arc<Span>>,
    closing: watch::Receiver<bool>,
    pub(super) counts: Arc<Counts>,
}

impl Intake {
    pub(super) fn new(
        spans: mpsc::Receiver<Arc<Span>>,
        closing: watch::Receiver<bool>,
        counts: Arc<Counts>,
    ) -> Self {
        Self {
            spans,
            closing,
            counts,
        }
    }

    /// The next spans: as soon as there are `max`, or `delay` after the first. None when no more will come.
    ///
    /// Without a delay no clock decides where one batch ends and the next begins.
    pub(super) async fn batch(&mut self, max: usize, delay: Option<Duration>) -> Option<Vec<Arc<Span>>> {
        let mut batch = Vec::new();
        if self.spans.recv_many(&mut batch, max).await == 0 {
            return None;
        }
        let end = delay.map(|delay| Instant::now() + delay);
        while batch.len() < max {
            let room = max - batch.len();
            let more = self.spans.recv_many(&mut batch, room);
            let came = match end {
                Some(end) => timeout_at(end, more).await.unwrap_or(0),
                None => more.await,
            };
            if came == 0 {
                break;
            }
        }
        Some(batch)
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
            return tokio::time::sleep(length.min(Duration::from_millis(200))).await;
        }
        let _ = timeout(length, self.closing.wait_for(|closing| *closing)).await;
    }

    /// Sleeps as long as somebody else asks, at the program's end too: what comes sooner is refused.
    pub(super) async fn obey(&self, length: Duration) {
        tokio::time::sleep(length).await;
    }

    /// Whether the program is about to end.
    pub(super) fn closing(&self) -> bool {
        *self.closing.borrow()
    }
}
