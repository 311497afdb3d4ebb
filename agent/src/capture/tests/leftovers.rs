//! A process that starts and drops capture again and again.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::bpf::Leftovers;
use super::rig::{options, wanted};
use crate::capture::{Live, LiveOptions, Probes};

const ROUNDS: usize = 10;
/// Each link is let go after a grace period of the kernel's, which takes seconds for one capture and no longer for ten: the next
/// ten start meanwhile.
const AT_ONCE: usize = 10;
/// Resident memory may grow by this from the first rounds to the last, in KiB.
const GROWTH: u64 = 2048;

/// The back ends that `CELERYSCOPE_BACKENDS` names, else the best that this kernel allows.
fn backends() -> Vec<Probes> {
    let named = std::env::var("CELERYSCOPE_BACKENDS").unwrap_or_default();
    let named = named.split(',').map(str::trim).filter(|name| !name.is_empty());
    let backend = |name| match name {
        "fentry" => Probes::Fentry,
        "kprobe" => Probes::Kprobe,
        "tracepoint" => Probes::Tracepoint,
        "auto" => Probes::Auto,
        other => panic!("CELERYSCOPE_BACKENDS names {other:?}"),
    };
    let named: Vec<Probes> = named.map(backend).collect();
    if named.is_empty() {
        vec![Probes::Auto]
    } else {
        named
    }
}

/// Starts captures and drops them, so many times ten; returns when all are gone.
fn rounds(count: usize, probes: Probes, leftovers: &mut Leftovers) {
    let mut dropping = Vec::new();
    for _ in 0..count {
        let dropped_next = round(probes, leftovers);
        join(std::mem::replace(&mut dropping, dropped_next));
    }
    join(dropping);
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

fn round(probes: Probes, leftovers: &mut Leftovers) -> Vec<JoinHandle<()>> {
    let captures: Vec<Live> = (0..AT_ONCE)
        .map(|_| {
            Live::start(&LiveOptions {
                ring_bytes: 1 << 16,
                probes,
                ..options(1)
            })
            .unwrap()
        })
        .collect();
    leftovers.of(std::process::id());
    let dropped = |capture| std::thread::spawn(move || drop(capture));
    captures.into_iter().map(dropped).collect()
}

fn descriptors() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    // The one that lists them is gone already.
    targets.map(|target| target.display().to_string()).collect()
}

/// Resident memory in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Scenario: a process starts and drops 100 captures, ten at a time. Back ends one after another.
/// Guarantees: nothing of theirs is left in the kernel; the process has no descriptor more, and hardly more memory.
#[test]
fn started_and_dropped_a_hundred_times() {
    if !wanted() {
        return;
    }
    for probes in backends() {
        let began = Instant::now();
        let mut leftovers = Leftovers::watch();
        // What is set up once and kept is there after the first of them.
        rounds(2, probes, &mut leftovers);
        let (first, memory) = (descriptors(), resident());
        rounds(ROUNDS - 2, probes, &mut leftovers);
        let (last, grown) = (descriptors(), resident().saturating_sub(memory));
        eprintln!(
            "{probes:?}: {} captures in {:.1} s: {} BPF objects, {} descriptors, {memory} KiB and {grown} more",
            ROUNDS * AT_ONCE,
            began.elapsed().as_secs_f64(),
            leftovers.count(),
            last.len(),
        );
        assert_eq!(first.len(), last.len(), "descriptors: {first:?} became {last:?}");
        assert!(grown <= GROWTH, "{grown} KiB more than after the first captures");
        let waiting = Instant::now();
        while !leftovers.found().is_empty() && waiting.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let found = leftovers.found();
        assert!(found.is_empty(), "{probes:?} left: {}", found.join(", "));
    }
}
