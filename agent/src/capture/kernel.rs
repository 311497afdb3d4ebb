//! The kernel half in the kernel: its maps by name and type.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use celeryscope_common::Layout;
use celeryscope_common::layout::GLOBAL;
use celeryscope_common::maps::{
    Conn, Counter, Counters, Fd, fd_key, ignored_hint, pool_hint, port_bit, process,
};

use super::attach::State;
use super::btf::Btf;
use super::hints::FdHints;
use super::options::LiveOptions;
use super::plan::Backend;
use super::ring::Ring;
use super::tls::{Maps, Multi, UserProbes};
use super::{attach, layout, object, privileges};

/// Most elements that a pass over a map visits, should it change so fast that the pass starts over again and again.
const PASS_LIMIT: usize = 100_000;
const BPF_NOEXIST: u64 = 1;

/// A value that both halves share.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Shared<T: Copy>(T);

// SAFETY: all are repr(C) integers without padding, for which any bytes are a value.
unsafe impl aya::Pod for Shared<Conn> {}
// SAFETY: as above.
unsafe impl aya::Pod for Shared<Fd> {}
// SAFETY: as above.
unsafe impl aya::Pod for Shared<Layout> {}

/// The loaded kernel half. Dropping it detaches and unloads everything.
pub(super) struct Kernel {
    /// Keeps programs and links.
    ebpf: Arc<Mutex<Ebpf>>,
    log: Option<EbpfLogger<&'static dyn log::Log>>,
    conns: HashMap<MapData, u64, Shared<Conn>>,
    fds: HashMap<MapData, u64, Shared<Fd>>,
    fd_hints: FdHints,
    slots: HashMap<MapData, u64, u32>,
    procs: HashMap<MapData, u32, u32>,
    pool_hints: Array<MapData, u64>,
    ignored: HashMap<MapData, u64, u8>,
    ignored_hints: Array<MapData, u64>,
    counters: PerCpuArray<MapData, Counters>,
}

impl Kernel {
    /// Loads and attaches. The ring is given apart, so that its records can be read while the maps are changed, and what goes to
    /// another thread; with them what came of each row of the back end's plan.
    ///
    /// # Errors
    /// When the kernel refuses; says what and why.
    pub(super) fn load(
        backend: Backend,
        options: &LiveOptions,
    ) -> Result<(Self, UserProbes, Ring, Vec<State>)> {
        let log = options.kernel_log;
        privileges::lift_memlock();
        let types = backend.knows_sockets().then(Btf::of_kernel).transpose()?;
        let layout = types.as_ref().map(layout::of).transpose()?;
        let layout = Shared(layout.unwrap_or_default());
        let ring_bytes = ring_size(options.ring_bytes);
        let (wake_above, level) = (
            u64::from(ring_bytes / 4),
            if log { aya_log::Level::Debug as u8 } else { 0 },
        );
        let mut ebpf = EbpfLoader::new()
            // Nothing in the object is relocated by the kernel's types, which take 15 MiB when they are read.
            .btf(None)
            .map_max_entries("EVENTS", ring_bytes)
            .override_global("WAKE_ABOVE", &wake_above, true)
            .override_global(GLOBAL, &layout, true)
            .override_global(aya_log::LEVEL, &level, false)
            .load(object::BYTES)
            .context("cannot load the BPF object")?;
        watch_ports(&mut ebpf, &options.ports)?;
        let maps = Maps::of(&ebpf);
        let log = if log {
            Some(EbpfLogger::init(&mut ebpf).context("cannot read the kernel half's log")?)
        } else {
            None
        };
        let ring = match ebpf.take_map("EVENTS") {
            Some(Map::RingBuf(map)) => Ring::new(map, ring_bytes)?,
            _ => bail!("the BPF object has no ring buffer EVENTS: it does not belong to this build"),
        };
        let fd_hints = FdHints::of(&ebpf)?;
        let (conns, fds) = (map(&mut ebpf, "CONNS")?, map(&mut ebpf, "FDS")?);
        let (slots, procs) = (map(&mut ebpf, "SLOTS")?, map(&mut ebpf, "PROCS")?);
        let (ignored, counters) = (map(&mut ebpf, "IGNORED")?, map(&mut ebpf, "COUNTERS")?);
        let (ignored_hints, pool_hints) = (map(&mut ebpf, "IGNORED_HINTS")?, map(&mut ebpf, "POOL_HINTS")?);
        let states = attach::attach(&mut ebpf, backend, types.as_ref(), options.reads_from_entry)?;
        let multi = Multi::load(&maps)?;
        let expected = map(&mut ebpf, "EXPECTED")?;
        let ebpf = Arc::new(Mutex::new(ebpf));
        let user_probes = UserProbes::new(Arc::clone(&ebpf), multi, expected);
        let kernel = Self {
            ebpf,
            log,
            conns,
            fds,
            fd_hints,
            slots,
            procs,
            pool_hints,
            ignored,
            ignored_hints,
            counters,
        };
        Ok((kernel, user_probes, ring, states))
    }

    /// Hands what the kernel half logged to our own log.
    pub(super) fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// The kernel half's counters, summed over CPUs. Zeroes when they cannot be read.
    pub(super) fn counters(&self) -> Counters {
        let mut sum = [0; Counter::SLOTS];
        if let Ok(values) = self.counters.get(&0, 0) {
            for cpu in values.iter() {
                for (total, value) in sum.iter_mut().zip(cpu) {
                    *total += value;
                }
            }
        }
        sum
    }

    /// How often the kernel did not run a program of ours because it, or one like it, was still running on the processor. Where
    /// there are two copies the other may have run. 0 before Linux 5.12, which does not tell.
    pub(super) fn passed_over(&self) -> u64 {
        let ebpf = self.ebpf.lock().unwrap_or_else(PoisonError::into_inner);
        let descriptors = ebpf.programs().filter_map(|(_, program)| {
            let fd = program.fd().ok()?.as_fd().as_raw_fd();
            std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()
        });
        descriptors.map(|info| recursion_misses(&info)).sum()
    }

    /// The connection that a descriptor refers to.
    pub(super) fn descriptor(&self, pid: u32, fd: u32) -> Option<u64> {
        Some(self.fds.get(&fd_key(pid, fd), 0).ok()?.0.conn)
    }

    /// Adds a connection that has `refs` descriptors. False when the map is full.
    pub(super) fn add_conn(&mut self, conn: Conn) -> bool {
        self.conns.insert(conn.id, Shared(conn), BPF_NOEXIST).is_ok()
    }

    /// Removes a connection by its key. False when it was gone already.
    pub(super) fn remove_conn(&mut self, id: u64) -> bool {
        self.conns.remove(&id).is_ok()
    }

    /// Makes a process's descriptor refer to a connection. False when it refers to one already, or a map is full.
    pub(super) fn add_fd(&mut self, pid: u32, fd: u32, conn: u64) -> bool {
        self.watch_process(pid);
        let free = (0..celeryscope_common::maps::SLOTS_PER_PROCESS)
            .find(|slot| self.slots.insert(fd_key(pid, *slot), fd, BPF_NOEXIST).is_ok());
        let slot = free.unwrap_or(celeryscope_common::maps::NO_SLOT);
        let value = Fd {
            conn,
            slot,
            reserved: 0,
        };
        self.fd_hints.add(pid, fd);
        let added = self
            .fds
            .insert(fd_key(pid, fd), Shared(value), BPF_NOEXIST)
            .is_ok();
        if !added {
            self.fd_hints.take(pid, fd);
            let _ = self.slots.remove(&fd_key(pid, slot));
        }
        added
    }

    /// Takes back what [`add_fd`](Self::add_fd) did.
    pub(super) fn remove_fd(&mut self, pid: u32, fd: u32) {
        let key = fd_key(pid, fd);
        if let Ok(Shared(known)) = self.fds.get(&key, 0)
            && self.fds.remove(&key).is_ok()
        {
            self.fd_hints.take(pid, fd);
            let _ = self.slots.remove(&fd_key(pid, known.slot));
        }
    }

    /// The process becomes watched; one that is keeps its bits.
    pub(super) fn watch_process(&mut self, pid: u32) {
        let _ = self.procs.insert(pid, 0, BPF_NOEXIST);
    }

    /// Sets a process's bits; it becomes watched. False when the map is full.
    pub(super) fn set_process(&mut self, pid: u32, bits: u32) -> bool {
        if bits & process::WATCH_PIPES != 0 && self.pool_hints.set(pool_hint(pid), 1, 0).is_err() {
            return false;
        }
        self.procs.insert(pid, bits, 0).is_ok()
    }

    /// A process's bits when it is watched.
    pub(super) fn process(&self, pid: u32) -> Option<u32> {
        self.procs.get(&pid, 0).ok()
    }

    /// The process is no longer watched.
    pub(super) fn remove_process(&mut self, pid: u32) {
        let _ = self.procs.remove(&pid);
    }

    /// Copies a connection's bytes, or does not. It is told otherwise than before.
    pub(super) fn ignore(&mut self, conn: u64, ignore: bool) {
        let element = ignored_hint(conn);
        let count = self.ignored_hints.get(&element, 0).unwrap_or_default();
        if ignore {
            let _ = self.ignored_hints.set(element, count + 1, 0);
            let _ = self.ignored.insert(conn, 1, 0);
        } else {
            let _ = self.ignored.remove(&conn);
            let _ = self.ignored_hints.set(element, count.saturating_sub(1), 0);
        }
    }

    /// Every tracked descriptor: process, descriptor, connection.
    pub(super) fn descriptors(&self) -> Vec<(u32, u32, u64)> {
        self.fds
            .iter()
            .take(PASS_LIMIT)
            .filter_map(|item| {
                let (key, Shared(value)) = item.ok()?;
                let (pid, fd) = (
                    u32::try_from(key >> 32).ok()?,
                    u32::try_from(key & 0xffff_ffff).ok()?,
                );
                Some((pid, fd, value.conn))
            })
            .collect()
    }

    /// Every connection's key, as descriptors name it, and its id, as records do.
    pub(super) fn conns(&self) -> Vec<(u64, u64)> {
        self.conns
            .iter()
            .take(PASS_LIMIT)
            .filter_map(|item| item.ok().map(|(key, Shared(conn))| (key, conn.id)))
            .collect()
    }

    /// Every watched process.
    pub(super) fn processes(&self) -> Vec<u32> {
        self.procs
            .keys()
            .take(PASS_LIMIT)
            .filter_map(Result::ok)
            .collect()
    }
}

fn watch_ports(ebpf: &mut Ebpf, ports: &[u16]) -> Result<()> {
    let ports_map = ebpf.map_mut("PORTS").context("the BPF object has no map PORTS")?;
    let mut watched: Array<&mut MapData, u64> = Array::try_from(ports_map)?;
    let mut words = std::collections::HashMap::new();
    for (word, bit) in ports.iter().map(|port| port_bit(*port)) {
        *words.entry(word).or_insert(0) |= bit;
    }
    for (word, bits) in words {
        watched
            .set(word, bits, 0)
            .context("cannot tell the kernel half its ports")?;
    }
    Ok(())
}

fn map<T>(ebpf: &mut Ebpf, name: &str) -> Result<T>
where
    T: TryFrom<Map>,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    let map = ebpf
        .take_map(name)
        .with_context(|| format!("the BPF object has no map {name}: it does not belong to this build"))?;
    T::try_from(map)
        .with_context(|| format!("BPF map {name} has another shape: it does not belong to this build"))
}

/// `recursion_misses:\t3` in a program's fdinfo.
fn recursion_misses(info: &str) -> u64 {
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

/// The kernel wants a power of two of at least a page; 64 KiB is the largest page there is.
pub(super) fn ring_size(bytes: u32) -> u32 {
    bytes.clamp(1 << 16, 1 << 30).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a program's fdinfo of a kernel that counts what it passes over, and of one that does not.
    /// Guarantees: the number, or 0.
    #[test]
    fn misses() {
        let info = "pos:\t0\nprog_type:\t26\nrun_cnt:\t7\nrecursion_misses:\t12\nverified_insns:\t8\n";
        assert_eq!(recursion_misses(info), 12);
        assert_eq!(recursion_misses("pos:\t0\nprog_type:\t5\n"), 0);
    }

    /// Scenario: sizes that a user may ask for.
    /// Guarantees: a power of two, not smaller than asked for within the bounds.
    #[test]
    fn ring_sizes() {
        assert_eq!(ring_size(0), 1 << 16);
        assert_eq!(ring_size(8 << 20), 8 << 20);
        assert_eq!(ring_size((8 << 20) + 1), 16 << 20);
        assert_eq!(ring_size(u32::MAX), 1 << 30);
    }
}
