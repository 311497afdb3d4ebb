//! A busy cache on the broker's own Redis: what it costs is measured elsewhere, that it disturbs nothing is shown here.

use std::time::Duration;

use crate::check;
use crate::rig::process::Process;
use crate::rig::report::say;
use crate::rig::worker::Options;
use crate::rig::{Agent, Publisher, Scene, Worker};

const SET: &[&str] = &[
    "simple 20",
    "chained",
    "chorded 4",
    "retries",
    "large 1",
    "forking 2 5",
    "paced 40",
];

/// Commands a second that are a load on any machine.
const LEAST: u32 = 5000;

/// Scenario: beside the workload a process does 20,000 GET and SET of 1 KiB a second on a connection of its own, or as many as a
/// machine that others use lets it.
/// Guarantees: the same spans as without it, nothing lost.
#[test]
fn beside_a_busy_cache() {
    let Some(scene) = Scene::set("cache", "celery57") else {
        return;
    };
    let agent = Agent::start(scene.folder(), "agent", &scene.ports(), &["--stats"]);
    let mut command = scene.python();
    command.args(["-m", "cache"]).env("WORKLOAD_CACHE_RATE", "20000");
    let mut cache = Process::spawn("cache", &command, scene.folder(), None);
    let worker = Worker::start(&scene, "w1", &Options::default());
    let mut publisher = Publisher::start(&scene, "publisher");
    let at = std::time::Instant::now();
    for scenario in SET {
        publisher.publish(scenario);
    }
    // The load must last long enough to be one.
    std::thread::sleep(Duration::from_secs(5).saturating_sub(at.elapsed()));
    scene.settle(Duration::from_secs(30));
    cache.terminate();
    cache.wait(Duration::from_secs(5));
    let rate = cache
        .log()
        .lines()
        .find_map(|line| line.strip_prefix("rate ")?.parse().ok())
        .unwrap_or(0_u32);
    drop(worker);
    let left = agent.stop();
    say(&format!(
        "cache: {rate} commands a second; agent {:.2} s CPU, {:.0} MiB",
        left.usage.cpu, left.usage.peak_rss
    ));
    assert!(
        rate >= LEAST,
        "a cache that makes {rate} commands a second is none"
    );
    check::all_is_told(&scene, &left, &check::few_runs());
}

/// Scenario: each of the two pool children holds a cache connection and does 5,000 GET and SET of 1 KiB a second on it.
/// Guarantees: the same spans as without it, nothing lost.
#[test]
fn with_the_cache_in_the_worker() {
    let Some(scene) = Scene::set("cache-inside", "celery57") else {
        return;
    };
    let agent = Agent::start(scene.folder(), "agent", &scene.ports(), &["--stats"]);
    let worker = Worker::start(
        &scene,
        "w1",
        &Options {
            cache_rate: 5000,
            ..Options::default()
        },
    );
    let mut publisher = Publisher::start(&scene, "publisher");
    for scenario in SET {
        publisher.publish(scenario);
    }
    scene.settle(Duration::from_secs(30));
    drop(worker);
    let left = agent.stop();
    say(&format!(
        "cache in the worker: agent {:.2} s CPU, {:.0} MiB",
        left.usage.cpu, left.usage.peak_rss
    ));
    check::all_is_told(&scene, &left, &check::few_runs());
}
