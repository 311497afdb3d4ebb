//! What agents leave behind in the kernel: nothing.

use std::time::{Duration, Instant};

use super::{backends, start};
use crate::rig::process::within;
use crate::rig::report::say;
use crate::rig::{Agent, Scene};
use crate::support::bpf::Leftovers;

const STARTS: usize = 100;
/// Each link is let go after a grace period of the kernel's, which takes seconds for one agent and no longer for ten: the next
/// ten start meanwhile.
const AT_ONCE: usize = 10;
/// Twenty of them share the memory of a small machine.
const SMALL: &[&str] = &["--ring-size", "64K"];
/// The kernel frees what a killed process held after the process has gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Scenario: 100 agents start, ten at a time; half of them end on SIGTERM, half on SIGKILL. Back ends one after another.
/// Guarantees: no program, map or link of theirs is left, no pinned file, no probe event in tracefs.
#[test]
fn attach_and_detach_leave_nothing() {
    let Some(scene) = Scene::set("leftovers", "celery57") else {
        return;
    };
    for backend in backends(&["auto"]) {
        let began = Instant::now();
        let mut leftovers = Leftovers::watch();
        let mut ending = Vec::new();
        for round in 0..STARTS / AT_ONCE {
            let agents: Vec<_> = (0..AT_ONCE)
                .map(|n| {
                    let agent = start(&scene, &format!("agent{round}-{n}"), &backend, SMALL);
                    agent.unwrap_or_else(|why| panic!("back end {backend}: {why}"))
                })
                .collect();
            for agent in &agents {
                leftovers.of(agent.pid());
            }
            for (agent, signal) in agents.iter().zip(["TERM", "KILL"].into_iter().cycle()) {
                agent.signal(signal);
            }
            for agent in std::mem::replace(&mut ending, agents) {
                Agent::ended(agent);
            }
        }
        ending.into_iter().for_each(|agent| drop(agent.ended()));
        let took = began.elapsed().as_secs_f64();
        within(PATIENCE, || leftovers.found().is_empty().then_some(()));
        let found = leftovers.found();
        assert!(found.is_empty(), "back end {backend} left: {}", found.join(", "));
        say(&format!(
            "back end {backend}: {STARTS} starts and stops in {took:.1} s, {} BPF objects made and gone",
            leftovers.count()
        ));
    }
}
