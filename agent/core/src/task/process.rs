//! The processes that were heard of: who leads whom, and what each runs.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;

use celeryscope_common::Record;

use super::attempt::AttemptId;
use crate::bounded::Bounded;
use crate::span::Process;
use crate::time::Mono;

/// One process.
#[derive(Debug, Default)]
pub(super) struct Proc {
    /// Which; none at a place that is empty.
    pid: Option<u32>,
    /// It is among the forks as well: it was known when its parent was told of.
    forked: bool,
    /// The process that leads its service: the main process for a pool child, else itself.
    pub(super) leader: u32,
    /// The leader's identity, once told.
    pub(super) info: Option<Arc<Process>>,
    /// A pool child's job: its number in the main process, and its attempt.
    pub(super) job: Option<(u32, AttemptId)>,
    /// The header of a chord whose parts it has just fetched: what it publishes next is the callback.
    pub(super) chord: Option<String>,
    /// Leaders: the pool, as the command line names it or a pipe shows it.
    pub(super) pool: Option<Pool>,
    /// Leaders: it sends task events.
    pub(super) events: bool,
    /// Leaders: when the last run of each thread ended, where a thread does one task at a time; latest last.
    pub(super) ends: VecDeque<(u32, Mono)>,
    /// Leaders: the worker's name, from its own messages.
    pub(super) worker_name: Option<Arc<str>>,
    /// Leaders: it was handed tasks.
    pub(super) consumes: bool,
    /// Leaders: it was reported as a worker.
    pub(super) reported: bool,
}

/// Threads of a worker whose last end is remembered.
const KEPT_ENDS: usize = 256;

impl Proc {
    /// A run of this thread has ended. Tells whether another thread's had to be forgotten.
    pub(super) fn ended(&mut self, tid: u32, at: Mono) -> bool {
        self.ends.retain(|(other, _)| *other != tid);
        let full = self.ends.len() == KEPT_ENDS;
        if full {
            self.ends.pop_front();
        }
        self.ends.push_back((tid, at));
        full
    }

    /// Of a worker without pipes: it is seen when its runs end, by results or by events.
    pub(super) fn tells_ends(&self) -> bool {
        self.events || !self.ends.is_empty()
    }

    /// Since when this thread has run nothing; zero where it has not been heard of.
    pub(super) fn idle_since(&self, tid: u32) -> Mono {
        let found = self.ends.iter().rev().find(|(other, _)| *other == tid);
        found.map_or(Mono::default(), |(_, at)| *at)
    }
}

/// Celery's pools (`celery/concurrency`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    Prefork,
    Threads,
    Gevent,
    Eventlet,
    Solo,
}

impl Pool {
    fn parse(name: &str) -> Option<Self> {
        let all = [
            Self::Prefork,
            Self::Threads,
            Self::Gevent,
            Self::Eventlet,
            Self::Solo,
        ];
        all.into_iter().find(|pool| pool.as_str() == name)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Prefork => "prefork",
            Self::Threads => "threads",
            Self::Gevent => "gevent",
            Self::Eventlet => "eventlet",
            Self::Solo => "solo",
        }
    }
}

/// The key under which user space tells a worker's pool; no attribute of the resource.
const POOL_KEY: &str = "celery.pool";

/// Processes whose place is remembered apart.
const RECENT: usize = 64;

/// All of them.
#[derive(Debug)]
pub(super) struct Processes {
    /// Places among `procs`.
    table: Bounded<u32, usize>,
    procs: Vec<Proc>,
    /// Places that are empty.
    free: Vec<usize>,
    /// Places of those asked for last, which say nearly everything: a process is there if it says so itself.
    recent: [Cell<usize>; RECENT],
    /// At the places that there are not. Nothing refers to one.
    nobody: Proc,
    /// Parents of forks that have not been heard of yet. Apart, because most never are and would push others out.
    forks: Bounded<u32, u32>,
}

impl Processes {
    pub(super) fn new(cap: usize) -> Self {
        Self {
            table: Bounded::new(cap),
            procs: Vec::new(),
            free: Vec::new(),
            recent: [const { Cell::new(0) }; RECENT],
            nobody: Proc::default(),
            forks: Bounded::new(cap),
        }
    }

    /// The process, made known if it wasn't. The flag says that another had to be forgotten for it.
    ///
    /// A fork without exec is led by whoever leads its parent, until told otherwise.
    pub(super) fn entry(&mut self, pid: u32) -> (&mut Proc, bool) {
        let (place, evicted) = match self.place(pid) {
            Some(place) => (place, false),
            None => self.add(pid),
        };
        let proc = self.procs.get_mut(place).unwrap_or(&mut self.nobody);
        if std::mem::take(&mut proc.forked) {
            self.forks.remove(&pid);
        }
        (proc, evicted)
    }

    /// Makes room for a process that is heard of for the first time, and tells whether another had to be forgotten for it.
    fn add(&mut self, pid: u32) -> (usize, bool) {
        let parent = self.forks.remove(&pid).and_then(|parent| self.get(parent));
        let (leader, info) = parent.map_or((pid, None), |proc| (proc.leader, proc.info.clone()));
        let new = Proc {
            pid: Some(pid),
            leader,
            info,
            ..Proc::default()
        };
        let place = self.free.pop().unwrap_or(self.procs.len());
        match self.procs.get_mut(place) {
            Some(empty) => *empty = new,
            None => self.procs.push(new),
        }
        let evicted = self.table.insert(pid, place);
        if let Some((_, old)) = evicted {
            self.clear(old);
        }
        (place, evicted.is_some())
    }

    fn clear(&mut self, place: usize) {
        if let Some(proc) = self.procs.get_mut(place) {
            *proc = Proc::default();
            self.free.push(place);
        }
    }

    fn place(&self, pid: u32) -> Option<usize> {
        let recent = self.recent.get(pid as usize % RECENT)?;
        let proc = self.procs.get(recent.get());
        if proc.is_some_and(|proc| proc.pid == Some(pid)) {
            return Some(recent.get());
        }
        let place = *self.table.get(&pid)?;
        recent.set(place);
        Some(place)
    }

    pub(super) fn get(&self, pid: u32) -> Option<&Proc> {
        self.procs.get(self.place(pid)?)
    }

    pub(super) fn get_mut(&mut self, pid: u32) -> Option<&mut Proc> {
        let place = self.place(pid)?;
        self.procs.get_mut(place)
    }

    /// The pool of a worker, if known.
    pub(super) fn pool(&self, leader: u32) -> Option<Pool> {
        self.get(leader)?.pool
    }

    pub(super) fn leader_of(&self, pid: u32) -> u32 {
        let known = self.get(pid).or_else(|| self.get(*self.forks.get(&pid)?));
        known.map_or(pid, |proc| proc.leader)
    }

    /// The identity of a service by its leader; by another of its processes where the leader is gone; nameless where
    /// neither was told.
    pub(super) fn identity(&self, leader: u32, other: u32) -> Arc<Process> {
        let known = |pid| self.get(pid).and_then(|proc| proc.info.clone());
        known(leader).or_else(|| known(other)).unwrap_or_else(|| {
            Arc::new(Process {
                pid: leader,
                ..Process::default()
            })
        })
    }

    /// What a worker calls itself in its messages.
    pub(super) fn worker_name(&self, leader: u32) -> Option<Arc<str>> {
        self.get(leader)?.worker_name.clone()
    }

    /// Takes what user space read about a process. Returns whether another had to be forgotten.
    pub(super) fn describe(&mut self, record: &Record<'_>) -> bool {
        let leader = u32::try_from(record.header.conn).unwrap_or(record.header.pid);
        let told = |(key, _): &(&str, &str)| *key == POOL_KEY;
        let pool = record.pairs().find(told).and_then(|(_, name)| Pool::parse(name));
        let info = Arc::new(Process {
            pid: leader,
            resource: record
                .pairs()
                .filter(|pair| !told(pair))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        });
        // A leader's children share its identity.
        let shared = self
            .get(leader)
            .and_then(|proc| proc.info.clone())
            .filter(|known| *known == info);
        let (proc, evicted) = self.entry(record.header.pid);
        proc.leader = leader;
        proc.pool = proc.pool.or(pool);
        proc.info = Some(shared.unwrap_or(info));
        evicted
    }

    /// Tells whether another had to be forgotten for it.
    pub(super) fn fork(&mut self, parent: u32, child: u32) -> bool {
        if let Some(proc) = self.get_mut(child) {
            proc.forked = true;
        }
        self.forks.insert(child, parent).is_some()
    }

    /// How many there are, and how many forks.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.table.len(), self.forks.len())
    }

    /// Another program: nothing of what was known holds.
    pub(super) fn exec(&mut self, pid: u32) {
        self.forks.remove(&pid);
        if let Some(proc) = self.get_mut(pid) {
            *proc = Proc {
                pid: Some(pid),
                leader: pid,
                ..Proc::default()
            };
        }
    }

    pub(super) fn exit(&mut self, pid: u32) {
        if let Some(place) = self.table.remove(&pid) {
            self.clear(place);
        }
        self.forks.remove(&pid);
    }
}

#[cfg(test)]
mod tests;
