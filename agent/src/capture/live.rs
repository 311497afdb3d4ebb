//! The running capture: start it, wait for it, drain it, tell it what the core concluded.

use std::collections::HashSet;
use std::fs;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use celeryscope_common::maps::Counter;
use celeryscope_common::{Header, Kind, Record, flags};
use celeryscope_core::{Output, Verdict};

use super::attach::{self, State};
use super::clock::{self, Clocks};
use super::counters;
use super::ignored::{Added, Ignored};
use super::implied::Implied;
use super::kernel::{self, Kernel};
use super::loaded::Loaded;
use super::memory;
use super::missing_privileges;
use super::netns::Netns;
use super::notes::Notes;
use super::options::LiveOptions;
use super::plan::Backend;
use super::ring::Ring;
use super::scan::{Found, Scanner};
use super::tls::{self, Tls};
use super::waiter::Waiter;
use crate::host::proc;
use crate::lock_down::{self, Locked, Needs};
use crate::metrics::Reading;

/// The ring is drained at least this often: nearly all records are put there without waking the reader, since to wake, and find all
/// caches filled by others, costs as much as a hundred of them.
const DRAIN_EVERY: Duration = Duration::from_millis(200);
/// And this often for a while after a connection was opened: what it is, and whose pool is to be watched, shows in its first bytes.
const DRAIN_NEWS_EVERY: Duration = Duration::from_millis(20);
/// How long that is, in ns.
const NEWS: u64 = 2_000_000_000;
/// Maps are swept this often, in ns.
const SWEEP_EVERY: u64 = 10_000_000_000;
/// Most records in one drain, so that what becomes of them does not pile up meanwhile.
const DRAIN_LIMIT: usize = 512;
/// The initial pid namespace's inode: PROC_PID_INIT_INO, include/linux/proc_ns.h.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// What capture has been attached to.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    /// The back end.
    pub(crate) backend: Backend,
    /// What came of each row of its plan.
    pub(crate) hooks: Vec<State>,
    /// The better ones that this kernel does not allow, and why.
    pub(crate) passed_over: Vec<(Backend, String)>,
    /// Remote ports watched.
    pub(crate) ports: Vec<u16>,
    /// Processes that held connections to them at the start.
    pub(crate) processes: usize,
    /// Connections that were open at the start.
    pub(crate) connections: usize,
}

/// A running capture. Dropping it detaches everything.
pub(crate) struct Live {
    // Dropped first: it lets go of what the kernel half's programs are attached to.
    tls: Tls,
    kernel: Kernel,
    ring: Ring,
    waiter: Waiter,
    scanner: Scanner,
    implied: Implied,
    notes: Notes,
    /// Whose processes are ours, where not all are.
    netns: Option<Netns>,
    clocks: Clocks,
    attached: Attached,
    locked: Locked,
    /// Size of the ring.
    ring_bytes: usize,
    proc_root: PathBuf,
    /// Found at the start, not yet told.
    found: Vec<Found>,
    /// Connections in the kernel half's list of those to ignore.
    ignored: Ignored,
    swept: u64,
    /// Until when the ring is looked at more often.
    news_until: u64,
    /// Bytes read since the ring was last found empty, or since it was last asked what was lost.
    unemptied: usize,
    lost_told: u64,
    records: u64,
    malformed: u64,
}

/// What is still done once it is attached.
pub(crate) fn needs(options: &LiveOptions) -> Needs {
    Needs {
        perf_events: !tls::has_multi(),
        new_files: options.new_files,
    }
}

impl Live {
    /// Loads the kernel half, attaches it, locks this thread down, and finds the connections and workers that are there
    /// already. Mounts tracefs if it must.
    ///
    /// # Errors
    /// When a privilege is missing or the kernel refuses; says what, and what to do.
    pub(crate) fn start(options: &LiveOptions) -> Result<Self> {
        memory::hold_little();
        if options.ports.is_empty() || options.ports.len() > 64 {
            bail!("{} ports to watch: give 1 to 64", options.ports.len());
        }
        let missing = missing_privileges();
        if !missing.is_empty() {
            bail!(
                "missing {}: run as root, or grant these capabilities",
                missing.join(", ")
            );
        }
        attach::check_kernel()?;
        let proc_root = Path::new("/proc");
        check_pid_namespace(proc_root)?;
        let own = || Netns::of(proc_root, "self");
        let netns = options.own_netns.then(own).transpose()?;
        let Loaded {
            mut kernel,
            mut user_probes,
            ring,
            backend,
            hooks,
            passed_over,
        } = Loaded::best(options)?;
        user_probes.prepare()?;
        // Before the first byte of anybody else is looked at, and before the first thread.
        let locked = lock_down::watcher(options.lock_down, needs(options))?;
        let mut scanner = Scanner::new(proc_root, &options.ports, backend.knows_sockets());
        let mut pids = proc::pids(proc_root);
        pids.retain(|pid| netns.as_ref().is_none_or(|netns| netns.holds(*pid)));
        let found = scanner.adopt(&mut kernel, &pids);
        let tls = Tls::start(proc_root, &options.tls_ports, &options.tls_processes, user_probes)?;
        for found in found.iter().filter(|found| tls.is_tls(found.port())) {
            found.holders().iter().for_each(|pid| tls.cover(*pid));
        }
        tls.settle();
        memory::started();
        let processes: HashSet<u32> = found.iter().flat_map(Found::holders).copied().collect();
        let attached = Attached {
            backend,
            hooks,
            passed_over,
            ports: options.ports.clone(),
            processes: processes.len(),
            connections: found.len(),
        };
        Ok(Self {
            waiter: Waiter::new(ring.descriptor())?,
            kernel,
            ring,
            scanner,
            implied: Implied::default(),
            notes: Notes::default(),
            netns,
            tls,
            clocks: Clocks::default(),
            attached,
            locked,
            ring_bytes: kernel::ring_size(options.ring_bytes) as usize,
            proc_root: proc_root.to_owned(),
            found: if backend.knows_sockets() {
                Vec::new()
            } else {
                found
            },
            ignored: Ignored::default(),
            swept: clock::monotonic(),
            news_until: clock::monotonic() + NEWS,
            unemptied: 0,
            lost_told: 0,
            records: 0,
            malformed: 0,
        })
    }

    /// What it has been attached to.
    #[must_use]
    pub(crate) fn attached(&self) -> &Attached {
        &self.attached
    }

    /// What this thread is now, and how to start those that write and talk to others.
    pub(crate) fn locked(&self) -> &Locked {
        &self.locked
    }

    /// Waits end when this can be read, too.
    ///
    /// # Errors
    /// It can't be waited for.
    pub(crate) fn also_woken_by(&self, fd: BorrowedFd<'_>) -> Result<()> {
        self.waiter.also(fd)
    }

    /// Waits until the ring should be drained, for [`DRAIN_EVERY`] or `at_most` so long.
    pub(crate) fn wait(&self, at_most: Duration) {
        let news = clock::monotonic() < self.news_until;
        let every = if news { DRAIN_NEWS_EVERY } else { DRAIN_EVERY };
        self.waiter.wait(every.min(at_most));
    }

    /// Gives `sink` what is pending, in order; true when there may be more.
    pub(crate) fn drain(&mut self, sink: &mut dyn FnMut(&Record<'_>)) -> bool {
        let before = self.records;
        let mut sink = |record: &Record<'_>| {
            self.records += 1;
            sink(record);
        };
        if let Some(clock) = self.clocks.tick() {
            sink(&clock);
        }
        for found in self.found.drain(..) {
            self.notes.pass(&self.proc_root, &found.record(), &mut sink);
        }
        for pid in self.scanner.children() {
            self.notes.introduce(&self.proc_root, pid, &mut sink);
        }
        let (mut bytes, mut emptied) = (0, false);
        for _ in 0..DRAIN_LIMIT {
            let Some(item) = self.ring.next() else {
                emptied = true;
                break;
            };
            bytes += item.len();
            let Ok(record) = Record::parse(item) else {
                self.malformed += 1;
                continue;
            };
            let record = self.implied.complete(record);
            let (kind, pid, conn) = (record.kind, record.header.pid, record.header.conn);
            let endpoint = (kind == Kind::Open).then(|| record.endpoint()).flatten();
            let foreign = self.netns.as_mut().is_some_and(|netns| netns.leaves_out(&record));
            let is_stranger = record.header.flags & flags::STRANGER != 0;
            // Before anything that takes its time: until the probes are in, what the process says is lost.
            match (kind, endpoint) {
                (Kind::Open, Some(endpoint)) if !foreign => self.tls.opened(pid, conn, endpoint),
                (Kind::Tls, _) if !foreign => self.tls.sealed(pid, conn),
                _ => {}
            }
            if !foreign && !is_stranger {
                self.notes.pass(&self.proc_root, &record, &mut sink);
            }
            if foreign && matches!(kind, Kind::Open | Kind::Send | Kind::Recv | Kind::Idle) {
                ignore(&mut self.ignored, &mut self.kernel, conn);
            }
            match kind {
                Kind::Open if !foreign => {
                    self.news_until = clock::monotonic() + NEWS;
                    self.scanner.watch_workers(&mut self.kernel, &[pid]);
                    for pid in self.scanner.children() {
                        self.notes.introduce(&self.proc_root, pid, &mut sink);
                    }
                }
                Kind::Exec => {
                    self.scanner.forget(pid);
                    if self.netns.as_mut().is_some_and(|netns| netns.is_foreign(pid)) {
                        continue;
                    }
                    self.tls.executed(pid);
                    if is_stranger {
                        continue;
                    }
                    let found = self.scanner.adopt(&mut self.kernel, &[pid]);
                    if found.iter().any(|found| self.tls.is_tls(found.port())) {
                        self.tls.cover(pid);
                    }
                    if !self.attached.backend.knows_sockets() {
                        for found in found {
                            self.notes.pass(&self.proc_root, &found.record(), &mut sink);
                        }
                    }
                }
                Kind::Exit => {
                    self.scanner.forget(pid);
                    self.tls.gone(pid);
                }
                Kind::Fork if !foreign => {
                    if let Ok(child) = u32::try_from(conn) {
                        self.tls.forked(pid, child);
                    }
                }
                Kind::Close if self.ignored.remove(conn) => self.kernel.ignore(conn, false),
                _ => {}
            }
        }
        // Lost because the ring was full of what has just been read; otherwise there is nothing to ask for. Each look into a
        // map keeps the kernel, for as long as it lasts, from running probes on this processor.
        self.unemptied += bytes;
        let much = self.unemptied >= self.ring_bytes / 4;
        if emptied || much {
            self.unemptied = 0;
        }
        if much {
            let lost: u64 = self.kernel.counters()[..Counter::ConnsFull as usize].iter().sum();
            if lost > self.lost_told {
                sink(&note(Kind::Lost, lost - self.lost_told));
                self.lost_told = lost;
            }
        }
        let now = clock::monotonic();
        if now - self.swept > SWEEP_EVERY {
            self.swept = now;
            memory::give_back();
            for conn in self.scanner.sweep(&mut self.kernel) {
                if self.ignored.remove(conn) {
                    self.kernel.ignore(conn, false);
                }
                sink(&note(Kind::Close, conn));
            }
        }
        tracing::trace!("{} records", self.records - before);
        self.kernel.flush_log();
        !emptied
    }

    /// Acts on what the core concluded. Spans are not our business.
    pub(crate) fn apply(&mut self, output: &Output) {
        match output {
            Output::Verdict { conn, verdict } => {
                if *verdict == Verdict::Ignore {
                    ignore(&mut self.ignored, &mut self.kernel, *conn);
                } else if self.ignored.remove(*conn) {
                    self.kernel.ignore(*conn, false);
                }
            }
            Output::Worker { pid } => self.scanner.watch(&mut self.kernel, &HashSet::from([*pid])),
            Output::Span(_) => {}
        }
    }

    /// Every number, of both halves. A look into the kernel half's map, and into /proc for each of its programs.
    pub(crate) fn readings(&self) -> Vec<Reading> {
        let own = [
            self.records,
            self.malformed,
            self.netns.as_ref().map_or(0, Netns::left_out),
            self.notes.dropped,
            self.ignored.evicted,
            self.kernel.passed_over(),
            self.implied.unknown,
            self.notes.len() as u64,
            Notes::LIMIT as u64,
            self.ignored.len() as u64,
            Ignored::LIMIT as u64,
        ];
        let own = own.into_iter().chain(self.tls.numbers());
        let kernel = counters::KERNEL.iter().zip(self.kernel.counters());
        let named = kernel.filter(|(metric, _)| !metric.name.is_empty());
        counters::OWN
            .iter()
            .zip(own)
            .chain(named)
            .map(|(metric, value)| Reading::new(metric, value))
            .collect()
    }
}

/// Puts a connection on the kernel half's list of those not to copy.
fn ignore(ignored: &mut Ignored, kernel: &mut Kernel, conn: u64) {
    match ignored.insert(conn) {
        Added::Known => return,
        Added::New => {}
        Added::Instead(oldest) => kernel.ignore(oldest, false),
    }
    kernel.ignore(conn, true);
}

/// A record made here, now, that concerns no process.
fn note(kind: Kind, conn: u64) -> Record<'static> {
    let now = clock::monotonic();
    let header = Header {
        enter: now,
        exit: now,
        conn,
        ..Header::default()
    };
    Record::new(kind, header, &[])
}

/// The kernel half speaks of processes as the initial namespace does; /proc must, too.
fn check_pid_namespace(proc_root: &Path) -> Result<()> {
    let namespace =
        fs::read_link(proc_root.join("self/ns/pid")).context("cannot read /proc/self/ns/pid: mount /proc")?;
    if namespace != Path::new(INITIAL_PID_NAMESPACE) {
        bail!(
            "not in the host's pid namespace: start the container with --pid=host (hostPID: true in Kubernetes)"
        );
    }
    Ok(())
}

#[cfg(test)]
impl Live {
    /// Waits until the TLS libraries of all that has been heard of are read.
    pub(super) fn settle_tls(&self) {
        self.tls.settle();
    }

    /// Makes the next drain sweep.
    pub(super) fn sweep_now(&mut self) {
        self.swept = 0;
    }
}
