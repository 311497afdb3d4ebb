//! Probes on the TLS libraries of the processes that talk to a broker over TLS, a process at a time: its memory alone gets the
//! breakpoints, so that others that use the same file pay nothing.
//!
//! Covered are: who connects to a TLS port, or uses a connection that turns out to speak TLS; the children that such a process
//! makes; and all that run the same program with the same first arguments, from the moment they begin to, because to put a
//! probe in takes the kernel longer than a short-lived publisher needs to connect. A process stays covered until it ends or
//! executes another program.
//!
//! To attach and to let go waits for the kernel, milliseconds to tenths of a second, so a thread of its own does it. What is asked
//! of it while it is behind is bounded; what finds no room is counted.

mod cover;
mod multi;
mod peers;
mod probes;
mod programs;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use celeryscope_common::Endpoint;

use crate::host::tls::TlsProcess;
use cover::Cover;
pub(super) use multi::{Maps, Multi, supported as has_multi};
use peers::Peers;
pub(super) use probes::UserProbes;

/// Most orders that wait.
const ORDERS: usize = 4096;

/// What is to be done.
enum Order {
    /// The process talks to a broker over TLS.
    Cover(u32),
    /// A process made another.
    Forked { parent: u32, child: u32 },
    /// The process runs another program.
    Executed(u32),
    /// The process is gone.
    Gone(u32),
    /// Answer when all before this is done.
    Settle(SyncSender<()>),
}

/// What came of it so far.
#[derive(Debug, Default)]
struct Counts {
    covered: AtomicU64,
    not_covered: AtomicU64,
    dropped: AtomicU64,
    /// Covered now.
    held: AtomicU64,
}

/// The thread that covers processes. Dropping it takes all probes out.
pub(super) struct Tls {
    /// None only while it is dropped.
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
    counts: Arc<Counts>,
    peers: Peers,
}

impl Tls {
    /// `ports`: who talks to one of these does so over TLS. `named`: processes to be covered whatever they talk to.
    ///
    /// # Errors
    /// No thread is to be had.
    pub(super) fn start(
        proc_root: &Path,
        ports: &[u16],
        named: &[TlsProcess],
        probes: UserProbes,
    ) -> Result<Self> {
        let (orders, received) = sync_channel(ORDERS);
        let counts = Arc::new(Counts::default());
        let mut cover = Cover::new(proc_root, named, probes, Arc::clone(&counts));
        let thread = thread::Builder::new()
            .name("tls".to_owned())
            .spawn(move || cover.run(&received))
            .context("can't start a thread")?;
        Ok(Self {
            orders: Some(orders),
            thread: Some(thread),
            counts,
            peers: Peers::new(ports),
        })
    }

    /// Do brokers speak TLS on this port?
    pub(super) fn is_tls(&self, port: u16) -> bool {
        self.peers.is_tls(port)
    }

    /// The process has made a connection.
    pub(super) fn opened(&mut self, pid: u32, conn: u64, endpoint: Endpoint) {
        if self.peers.opened(conn, endpoint) {
            self.cover(pid);
        }
    }

    /// A connection of the process speaks TLS.
    pub(super) fn sealed(&mut self, pid: u32, conn: u64) {
        self.peers.sealed(conn);
        self.cover(pid);
    }

    /// The process talks to a broker over TLS.
    pub(super) fn cover(&self, pid: u32) {
        self.order(Order::Cover(pid));
    }

    pub(super) fn forked(&self, parent: u32, child: u32) {
        self.order(Order::Forked { parent, child });
    }

    pub(super) fn executed(&self, pid: u32) {
        self.order(Order::Executed(pid));
    }

    pub(super) fn gone(&self, pid: u32) {
        self.order(Order::Gone(pid));
    }

    /// Waits until everything that was asked for is done.
    pub(super) fn settle(&self) {
        let (done, wait) = sync_channel(1);
        if let Some(orders) = &self.orders
            && orders.send(Order::Settle(done)).is_ok()
        {
            // An error is the thread's end: nothing more to wait for.
            let _ = wait.recv();
        }
    }

    /// The numbers that `counters` names, in its order.
    pub(super) fn numbers(&self) -> [u64; 5] {
        let value = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            value(&self.counts.covered),
            value(&self.counts.not_covered),
            value(&self.counts.dropped),
            value(&self.counts.held),
            Cover::LIMIT as u64,
        ]
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders
            && orders.try_send(order).is_err()
        {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic in there has been reported by its thread.
            let _ = thread.join();
        }
    }
}
