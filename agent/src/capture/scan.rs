//! What was there before the probes, or slipped past them: connections that are already open, Celery workers that
//! already run, and map entries that nothing stands behind any more.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use celeryscope_common::maps::{Conn, SCANNED_ID, process, tls};
use celeryscope_common::{Endpoint, Header, Kind, Record, flags};

use super::clock;
use super::kernel::Kernel;
use crate::host::sockets::{self, Held, Tables};
use crate::host::{celery, proc};

/// Reads /proc and brings what it finds into the kernel half's maps.
#[derive(Debug)]
pub(super) struct Scanner {
    proc_root: PathBuf,
    ports: HashSet<u16>,
    /// The back end finds older connections by itself, by their sockets: only the processes are brought in.
    knows_sockets: bool,
    next: u64,
    /// Processes whose command line has been looked at.
    checked: HashSet<u32>,
    /// Connections that had no descriptor at the last sweep: key and id.
    orphans: HashMap<u64, u64>,
    /// Watched by [`watch`](Self::watch) and not yet asked for.
    children: Vec<u32>,
}

/// A connection that the scan brought in, to be told to the core.
#[derive(Clone, Debug)]
pub(super) struct Found {
    header: Header,
    port: u16,
    endpoint: [u8; Endpoint::SIZE],
    /// The processes that hold it, the first of which is the header's.
    holders: Vec<u32>,
}

impl Found {
    pub(super) fn record(&self) -> Record<'_> {
        Record::new(Kind::Open, self.header, &self.endpoint)
    }

    /// The broker's port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The processes that hold it.
    pub(super) fn holders(&self) -> &[u32] {
        &self.holders
    }
}

impl Scanner {
    pub(super) fn new(proc_root: &Path, ports: &[u16], knows_sockets: bool) -> Self {
        Self {
            proc_root: proc_root.to_owned(),
            ports: ports.iter().copied().collect(),
            knows_sockets,
            next: 0,
            checked: HashSet::new(),
            orphans: HashMap::new(),
            children: Vec::new(),
        }
    }

    /// Brings in the open connections of these processes, and watches the pools of those that are workers. The probes
    /// must be attached already, so that nothing falls between; what they know is left alone.
    pub(super) fn adopt(&mut self, kernel: &mut Kernel, pids: &[u32]) -> Vec<Found> {
        let mut by_socket: BTreeMap<u64, Vec<Held>> = BTreeMap::new();
        let mut tables = Tables::new(&self.proc_root, &self.ports);
        for pid in pids {
            for held in tables.held_by(*pid) {
                by_socket.entry(held.inode).or_default().push(held);
            }
        }
        let found: Vec<Found> = by_socket
            .into_values()
            .filter_map(|mut holders| {
                holders.sort_by_key(|held| (held.pid, held.fd));
                self.adopt_one(kernel, &holders)
            })
            .collect();
        let holders: Vec<u32> = found.iter().flat_map(Found::holders).copied().collect();
        self.watch_workers(kernel, &holders);
        found
    }

    /// One socket, held by one or more descriptors.
    fn adopt_one(&mut self, kernel: &mut Kernel, holders: &[Held]) -> Option<Found> {
        let first = holders.first()?;
        self.next += 1;
        let id = SCANNED_ID | self.next;
        if self.knows_sockets {
            for held in holders {
                kernel.watch_process(held.pid);
            }
            return Some(self.found(id, holders));
        }
        if holders
            .iter()
            .any(|held| kernel.descriptor(held.pid, held.fd).is_some())
        {
            return None;
        }
        let conn = Conn {
            id,
            refs: holders.len() as u64,
            addr: first.peer.addr,
            port: first.peer.port,
            tls: tls::JOINED,
            ..Conn::default()
        };
        if !kernel.add_conn(conn) {
            return None;
        }
        let mut added = false;
        for held in holders {
            if kernel.add_fd(held.pid, held.fd, id) {
                // Closed, or even another file's by now?
                if sockets::still_held(&self.proc_root, held) {
                    added = true;
                } else {
                    kernel.remove_fd(held.pid, held.fd);
                }
            }
        }
        if !added {
            kernel.remove_conn(id);
            return None;
        }
        Some(self.found(id, holders))
    }

    fn found(&self, id: u64, holders: &[Held]) -> Found {
        let first = &holders[0];
        let mut comm = [0; 16];
        let name = proc::comm(&self.proc_root, first.pid).unwrap_or_default();
        let len = name.len().min(comm.len() - 1);
        comm[..len].copy_from_slice(&name.as_bytes()[..len]);
        let now = clock::monotonic();
        Found {
            header: Header {
                flags: flags::MIDSTREAM,
                enter: now,
                exit: now,
                pid: first.pid,
                tid: first.pid,
                conn: id,
                ..Header::default()
            },
            port: first.peer.port,
            endpoint: Endpoint {
                addr: first.peer.addr,
                port: first.peer.port,
                reserved: 0,
                comm,
            }
            .to_bytes(),
            holders: holders.iter().map(|held| held.pid).collect(),
        }
    }

    /// Watches the pool pipes of those of these processes, which have connections, that are Celery workers by their
    /// command line. Each is looked at once, until [`forget`](Self::forget). Workers of other brokers are let be.
    pub(super) fn watch_workers(&mut self, kernel: &mut Kernel, pids: &[u32]) {
        if self.checked.len() > 65_536 {
            self.checked.clear();
        }
        let fresh: Vec<u32> = pids
            .iter()
            .copied()
            .filter(|pid| self.checked.insert(*pid))
            .collect();
        let workers: HashSet<u32> = fresh.into_iter().filter(|pid| self.is_worker(*pid)).collect();
        self.watch(kernel, &workers);
        // A child of a worker that is not known as one: its broker is another.
        for pid in workers {
            if proc::parent(&self.proc_root, pid).is_some_and(|parent| self.is_worker(parent)) {
                mark(kernel, pid, process::WATCH_PIPES);
                self.children.push(pid);
            }
        }
    }

    fn is_worker(&self, pid: u32) -> bool {
        proc::arguments(&self.proc_root, pid).is_some_and(|arguments| celery::is_worker(&arguments))
    }

    /// Watches the pool pipes of all descendants of these processes; those yet to be born inherit it.
    pub(super) fn watch(&mut self, kernel: &mut Kernel, workers: &HashSet<u32>) {
        if workers.is_empty() {
            return;
        }
        // The parents first: a child born meanwhile either inherits or is listed.
        for pid in workers {
            mark(kernel, *pid, process::HAS_POOL);
        }
        for pid in proc::descendants(&self.proc_root, workers) {
            mark(kernel, pid, process::WATCH_PIPES);
            self.children.push(pid);
        }
    }

    /// Processes that are watched since the last call though nobody saw them begin.
    pub(super) fn children(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.children)
    }

    /// The process is gone, or runs another program.
    pub(super) fn forget(&mut self, pid: u32) {
        self.checked.remove(&pid);
    }

    /// Removes what no live process stands behind: entries that the probes could not drop, because a process had too
    /// many descriptors or an event was missed. Gives the connections that closed that way.
    pub(super) fn sweep(&mut self, kernel: &mut Kernel) -> Vec<u64> {
        for pid in kernel.processes() {
            if !proc::exists(&self.proc_root, pid) {
                kernel.remove_process(pid);
            }
        }
        if self.knows_sockets {
            // The kernel tells of each socket that it closes.
            return Vec::new();
        }
        let mut alive = HashSet::new();
        let mut dead = HashSet::new();
        let mut referred = HashSet::new();
        for (pid, fd, conn) in kernel.descriptors() {
            if !alive.contains(&pid) && !dead.contains(&pid) {
                let set = if proc::exists(&self.proc_root, pid) {
                    &mut alive
                } else {
                    &mut dead
                };
                set.insert(pid);
            }
            if dead.contains(&pid) {
                kernel.remove_fd(pid, fd);
            } else {
                referred.insert(conn);
            }
        }
        let orphans: HashMap<u64, u64> = kernel
            .conns()
            .into_iter()
            .filter(|(key, _)| !referred.contains(key))
            .collect();
        // Twice in a row: a connection is made before its first descriptor.
        let gone = orphans
            .iter()
            .filter(|(key, _)| self.orphans.contains_key(*key) && kernel.remove_conn(**key));
        let gone = gone.map(|(_, id)| *id).collect();
        self.orphans = orphans;
        gone
    }
}

/// Adds to what the kernel half does with a process.
fn mark(kernel: &mut Kernel, pid: u32, bit: u32) {
    let bits = kernel.process(pid).unwrap_or(0);
    if bits & bit == 0 {
        kernel.set_process(pid, bits | bit);
    }
}
