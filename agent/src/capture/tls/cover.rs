//! The thread's side: which processes have probes, and which are to get some.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::probes::{Held, UserProbes};
use super::programs::{Program, Programs};
use super::{Counts, Order};
use crate::host::proc;
use crate::host::tls::{self, Cache, Library, TlsProcess};

/// Most processes that are to be looked at later.
const LATER: usize = 1024;
/// A child that is about to execute another program has mostly done so after this time.
const YOUNG: Duration = Duration::from_millis(20);
/// How long after it began a process that the user named is looked at, again and again: a library is loaded when it is needed.
const LOOKS: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_millis(1500),
    Duration::from_secs(3),
    Duration::from_secs(10),
];
/// Probes are let go of where nothing has been asked for so long: the kernel takes its time for each, and a process that has just
/// connected must not wait for that.
const QUIET: Duration = Duration::from_secs(1);
/// Probes to be let go of, above which that is not waited for.
const LEAVING: usize = 4096;

/// The processes that are covered are looked through this often.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Probes that are let go of at the same time.
const AT_ONCE: usize = 32;

/// A process's probes.
struct Covered {
    /// When the process was started: another may be given its id.
    started: Option<u64>,
    held: Vec<Held>,
    /// The files that they are in.
    libraries: Vec<Library>,
    /// What it has loaded was not looked at, but taken for what its program loaded before.
    expected: bool,
}

/// Why a process is looked at later.
enum Later {
    /// It is the child of a covered one.
    Child,
    /// The user named it; so many looks have been in vain.
    Named(usize),
}

pub(super) struct Cover {
    proc_root: PathBuf,
    named: Vec<TlsProcess>,
    probes: UserProbes,
    counts: Arc<Counts>,
    cache: Cache,
    programs: Programs,
    covered: HashMap<u32, Covered>,
    /// Of these it was said already that they can't be covered.
    told: HashSet<u32>,
    later: VecDeque<(Instant, u32, Later)>,
    leaving: VecDeque<Held>,
    swept: Instant,
}

impl Cover {
    /// Most processes covered at once: each takes a descriptor for each probe.
    pub(super) const LIMIT: usize = 1024;

    pub(super) fn new(
        proc_root: &Path,
        named: &[TlsProcess],
        probes: UserProbes,
        counts: Arc<Counts>,
    ) -> Self {
        Self {
            proc_root: proc_root.to_owned(),
            named: named.to_vec(),
            probes,
            counts,
            cache: Cache::default(),
            programs: Programs::default(),
            covered: HashMap::new(),
            told: HashSet::new(),
            later: VecDeque::new(),
            leaving: VecDeque::new(),
            swept: Instant::now(),
        }
    }

    /// Does what is asked for, until nobody can ask any more.
    pub(super) fn run(&mut self, orders: &Receiver<Order>) {
        self.look_for_named();
        let mut asked = Instant::now();
        loop {
            match orders.recv_timeout(self.idle(asked)) {
                Ok(order) => {
                    self.carry_out(order);
                    asked = Instant::now();
                }
                Err(RecvTimeoutError::Timeout) => self.use_idle_time(asked),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let held = self.covered.len() as u64;
            self.counts.held.store(held, Ordering::Relaxed);
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Cover(pid) => self.cover(pid),
            Order::Forked { parent, child } => {
                if self.covered.contains_key(&parent) {
                    self.look_later(YOUNG, child, Later::Child);
                }
            }
            Order::Executed(pid) => {
                self.forget(pid);
                self.expect(pid);
            }
            Order::Gone(pid) => self.forget(pid),
            // Nobody waits any more if that fails.
            Order::Settle(done) => _ = done.send(()),
        }
    }

    /// How long to wait for an order before something else is to be done.
    fn idle(&self, asked: Instant) -> Duration {
        let mut until = self.swept + SWEEP_EVERY;
        if !self.leaving.is_empty() {
            let wait = if self.leaving.len() > LEAVING {
                Duration::ZERO
            } else {
                QUIET
            };
            until = until.min(asked + wait);
        }
        if let Some((due, ..)) = self.later.iter().min_by_key(|(due, ..)| *due) {
            until = until.min(*due);
        }
        until.saturating_duration_since(Instant::now())
    }

    fn use_idle_time(&mut self, asked: Instant) {
        let now = Instant::now();
        if let Some(at) = self.later.iter().position(|(due, ..)| *due <= now) {
            if let Some((_, pid, why)) = self.later.remove(at) {
                self.look(pid, why);
            }
        } else if now.duration_since(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            self.sweep();
        } else if now.duration_since(asked) >= QUIET || self.leaving.len() > LEAVING {
            let some = self.leaving.len().min(AT_ONCE);
            let_go(self.leaving.drain(..some));
        }
    }

    /// Forgets the processes whose end was not heard of: that of one that never connected is nobody's business.
    fn sweep(&mut self) {
        let is_gone = |(pid, covered): (&u32, &Covered)| {
            (proc::started(&self.proc_root, *pid) != covered.started).then_some(*pid)
        };
        let gone: Vec<u32> = self.covered.iter().filter_map(is_gone).collect();
        for pid in gone {
            self.forget(pid);
        }
    }

    fn look_later(&mut self, after: Duration, pid: u32, why: Later) {
        if self.later.len() >= LATER {
            self.later.pop_front();
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.later.push_back((Instant::now() + after, pid, why));
    }

    fn look(&mut self, pid: u32, why: Later) {
        match why {
            Later::Child => self.cover(pid),
            Later::Named(looks) => {
                if self.try_cover(pid).is_err()
                    && proc::exists(&self.proc_root, pid)
                    && let Some(after) = LOOKS.get(looks)
                {
                    self.look_later(*after, pid, Later::Named(looks + 1));
                }
            }
        }
    }

    /// Those that the user named and that run already; of those to come the kernel half tells.
    fn look_for_named(&mut self) {
        for named in &self.named {
            if let TlsProcess::Named(name) = named {
                self.probes.expect(name);
            }
        }
        for pid in proc::pids(&self.proc_root) {
            if self.is_named(pid) {
                self.look(pid, Later::Named(0));
            }
        }
    }

    fn is_named(&self, pid: u32) -> bool {
        !self.named.is_empty()
            && proc::comm(&self.proc_root, pid)
                .is_some_and(|comm| self.named.iter().any(|named| named.matches(pid, &comm)))
    }

    /// Covers a process that talks to a broker, and with it all others of the same program.
    fn cover(&mut self, pid: u32) {
        let started = proc::started(&self.proc_root, pid);
        let is_done = |covered: &Covered| !covered.expected && covered.started == started;
        if self.covered.get(&pid).is_some_and(is_done) {
            return;
        }
        match self.try_cover(pid) {
            Ok(()) => self.learn(pid),
            Err(error) => {
                if proc::exists(&self.proc_root, pid) && self.told.insert(pid) {
                    self.counts.not_covered.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!("process {pid} talks to a broker over TLS that can't be read: {error:#}");
                }
                if self.told.len() > Self::LIMIT {
                    self.told.clear();
                }
            }
        }
    }

    fn try_cover(&mut self, pid: u32) -> Result<()> {
        let look = if self.is_named(pid) {
            tls::libraries
        } else {
            tls::pythons
        };
        let libraries = look(&self.proc_root, pid, &mut self.cache)?;
        self.attach_all(pid, libraries, false)
    }

    /// The program of this process has talked TLS: its other processes will, too.
    fn learn(&mut self, pid: u32) {
        let (Some(program), Some(covered)) = (Program::of(&self.proc_root, pid), self.covered.get(&pid))
        else {
            return;
        };
        if !self.programs.learn(program.clone(), covered.libraries.clone()) {
            return;
        }
        for name in program.names(&proc::comm(&self.proc_root, pid).unwrap_or_default()) {
            self.probes.expect(&name);
        }
        for other in proc::pids(&self.proc_root) {
            if !self.covered.contains_key(&other)
                && Program::of(&self.proc_root, other).as_ref() == Some(&program)
                && let Err(error) = self.try_cover(other)
            {
                tracing::debug!("process {other}, of a program that talks TLS: {error:#}");
            }
        }
    }

    /// A program begins: one that is known loads what it loaded before.
    fn expect(&mut self, pid: u32) {
        let program = Program::of(&self.proc_root, pid);
        let known = program.and_then(|program| Some(self.programs.libraries(&program)?.to_vec()));
        if let Some(known) = known {
            let libraries = tls::expected(&self.proc_root, pid, &known, &mut self.cache);
            if let Err(error) = self.attach_all(pid, libraries, true) {
                tracing::debug!("process {pid}, of a program that talks TLS: {error:#}");
            }
        } else if self.is_named(pid) {
            self.look_later(LOOKS[0], pid, Later::Named(1));
        }
    }

    fn attach_all(&mut self, pid: u32, libraries: Vec<Library>, expected: bool) -> Result<()> {
        let started = proc::started(&self.proc_root, pid);
        if self
            .covered
            .get(&pid)
            .is_some_and(|covered| covered.started != started)
        {
            self.forget(pid);
        }
        let known = self.covered.contains_key(&pid);
        ensure!(
            known || self.covered.len() < Self::LIMIT,
            "{} processes are covered already",
            Self::LIMIT
        );
        if libraries.is_empty() {
            return Ok(());
        }
        let mut held = Vec::new();
        for library in &libraries {
            let old = self.covered.get(&pid);
            let has = |old: &Covered| old.libraries.iter().any(|old| old.as_seen == library.as_seen);
            if !old.is_some_and(has) {
                held.append(&mut self.probes.attach(library, pid)?);
                tracing::debug!("process {pid}: TLS is read in {}", library.name);
            }
        }
        self.counts
            .covered
            .fetch_add(u64::from(!known), Ordering::Relaxed);
        let covered = self.covered.entry(pid).or_insert_with(|| Covered {
            started,
            held: Vec::new(),
            libraries: Vec::new(),
            expected,
        });
        covered.held.append(&mut held);
        covered.libraries = libraries;
        covered.expected = expected;
        Ok(())
    }

    /// The process is gone, or runs another program: its probes went with its memory; what holds them goes when there is time.
    fn forget(&mut self, pid: u32) {
        self.told.remove(&pid);
        self.later.retain(|(_, later, _)| *later != pid);
        if let Some(covered) = self.covered.remove(&pid) {
            self.leaving.extend(covered.held);
        }
    }
}

impl Drop for Cover {
    fn drop(&mut self) {
        let of_the_living = self.covered.drain().flat_map(|(_, covered)| covered.held);
        let mut all: Vec<Held> = self.leaving.drain(..).chain(of_the_living).collect();
        while !all.is_empty() {
            let some = all.len().min(AT_ONCE);
            let_go(all.drain(..some));
        }
    }
}

/// At the same time: each waits for the kernel, which, where it can, makes one wait of all.
fn let_go(held: impl Iterator<Item = Held>) {
    thread::scope(|scope| {
        for held in held {
            scope.spawn(move || drop(held));
        }
    });
}
