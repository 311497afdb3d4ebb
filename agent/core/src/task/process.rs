//! The processes that were heard of: who leads whom, and what each runs.

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

/// All of them.
#[derive(Debug)]
pub(super) struct Processes {
    table: Bounded<u32, Proc>,
    /// Parents of forks that have not been heard of yet. Apart, because most never are and would push others out.
    forks: Bounded<u32, u32>,
}

impl Processes {
    pub(super) fn new(cap: usize) -> Self {
        Self {
            table: Bounded::new(cap),
            forks: Bounded::new(cap),
        }
    }

    /// The process, made known if it wasn't. The flag says that another had to be forgotten for it.
    ///
    /// A fork without exec is led by whoever leads its parent, until told otherwise.
    pub(super) fn entry(&mut self, pid: u32) -> (&mut Proc, bool) {
        let parent = self.forks.remove(&pid).and_then(|parent| self.table.get(&parent));
        let (leader, info) = parent.map_or((pid, None), |proc| (proc.leader, proc.info.clone()));
        let make = || Proc {
            leader,
            info,
            ..Proc::default()
        };
        let (proc, evicted) = self.table.get_or_insert_with(pid, make);
        (proc, evicted.is_some())
    }

    pub(super) fn get(&self, pid: u32) -> Option<&Proc> {
        self.table.get(&pid)
    }

    pub(super) fn get_mut(&mut self, pid: u32) -> Option<&mut Proc> {
        self.table.get_mut(&pid)
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
                leader: pid,
                ..Proc::default()
            };
        }
    }

    pub(super) fn exit(&mut self, pid: u32) {
        self.table.remove(&pid);
        self.forks.remove(&pid);
    }
}
