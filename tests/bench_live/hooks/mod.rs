//! What each hook costs, by the kernel's own statistics of BPF programs: calls that are none of the agent's business, and
//! calls whose bytes it copies.
//!
//! The kernel measures from a program's first instruction to its last. What it takes to get there (the tracepoint's
//! dispatch, the trampoline, the breakpoint) is not in it; reading the clock twice is, which is why the floor is shown: a
//! hook that returns at once. Nothing is subtracted.
//!
//! `CELERYSCOPE_LIVE=1 cargo bench -p celeryscope --bench live -- hooks [--calls N] [--ratios]`, as root.

mod calls;
mod measure;
mod programs;
mod show;

use std::path::Path;
use std::time::Duration;

use aya::sys::{Stats, enable_stats};

use crate::rig::patience::patient;
use crate::rig::report::say;
use crate::rig::{Agent, agent::Left, scene};
use calls::{Peer, Watched};
use measure::{Measured, Meter};
use programs::Programs;

/// Best first, as `--probes` names them.
pub(crate) const BACK_ENDS: [&str; 3] = ["fentry", "kprobe", "tracepoint"];
/// How often each call is made, where `--calls` does not say.
const CALLS: usize = 50_000;
/// Who makes calls that are none of the agent's business.
const OTHER: &str = "another process";
const OWN: &str = "a watched process, elsewhere";

/// Measures every back end that this kernel allows and shows the tables.
pub(crate) fn run(arguments: &[String]) {
    let Some(_alone) = scene::live("hooks") else {
        return;
    };
    let calls = crate::number(arguments, "--calls").unwrap_or(CALLS);
    let folder = std::env::temp_dir().join(format!("celeryscope-hooks-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let statistics = enable_stats(Stats::RunTime).expect("the kernel's statistics of BPF programs");
    let mut measured = Vec::new();
    for back_end in BACK_ENDS {
        match measure(back_end, calls, &folder) {
            Ok(of_this) => measured.extend(of_this),
            Err(why) => say(&format!("{back_end}: not on this kernel: {why}")),
        }
    }
    drop(statistics);
    // A folder that stays behind harms nobody.
    let _ = std::fs::remove_dir_all(&folder);
    assert!(!measured.is_empty(), "this kernel allows no back end");
    if arguments.iter().any(|argument| argument == "--ratios") {
        show::ratios(&measured);
    } else {
        show::times(&measured);
    }
}

/// All calls under one back end; or why the kernel does not have it.
fn measure(back_end: &'static str, calls: usize, folder: &Path) -> Result<Vec<Measured>, String> {
    let (watched, other) = (Peer::listen(), Peer::listen());
    let more = ["--probes", back_end, "--stats"];
    let agent = Agent::try_start(folder, back_end, &[watched.port()], &more).map_err(refusal)?;
    let mut meter = Meter::new(Programs::of(agent.pid()), back_end, calls);

    // This process is none of the agent's until it connects to the watched port.
    meter.pair(OTHER, &mut other.connect());
    meter.pair(OTHER, &mut calls::pipe());
    meter.pair(OTHER, &mut calls::socket_pair());
    meter.pair(OTHER, &mut calls::duplicates());
    meter.pair(OTHER, &mut calls::nothing());
    let mut connection = Watched::connect(&watched);
    meter.pair(OWN, &mut other.connect());
    meter.pair(OWN, &mut calls::pipe());
    meter.pair(OWN, &mut calls::socket_pair());
    meter.pair(OWN, &mut calls::duplicates());
    meter.pair(show::MATCHED, &mut connection);

    let exchanged = connection.exchanged();
    // Until the agent has fetched the last of it.
    std::thread::sleep(patient(Duration::from_millis(200)));
    everything_was_copied(&agent.stop(), exchanged);
    Ok(meter.measured())
}

/// The agent's reason; anything else than a kernel that does not have the back end is a failure.
fn refusal(log: String) -> String {
    let why = log
        .lines()
        .rev()
        .find_map(|line| line.split_once("cannot be used: "));
    why.map_or_else(|| panic!("{log}"), |(_, why)| why.to_owned())
}

/// Every byte of the watched connection went through the ring buffer: else "matched" would be something cheaper.
fn everything_was_copied(left: &Left, exchanged: u64) {
    let counter = |name: &str| {
        let mut lines = left.log.lines().filter_map(|line| line.strip_prefix("counter "));
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let value = value.and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
        value.unwrap_or_else(|| panic!("no counter {name}: {}", left.log))
    };
    for (name, want) in [
        ("stream_bytes", exchanged),
        ("ignored", 0),
        ("records_lost", 0),
        ("missed_bytes", 0),
        ("returns_missed", 0),
        ("unreadable", 0),
    ] {
        assert_eq!(counter(name), want, "{name} of the agent {}", left.name);
    }
}
