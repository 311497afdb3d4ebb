//! The rig against itself: without an agent, does the truth that tests lean on hold water?

use std::time::Duration;

use crate::rig::worker::Options;
use crate::rig::{Publisher, Scene, Worker};

/// Scenario: a worker and a publisher, no agent: chain, chord, retry, requeue, large arguments, remote control, lost
/// and revoked runs.
/// Guarantees: the recorder sees each publish and each attempt once, and the scene knows when all is over.
#[test]
fn truth_is_whole() {
    let Some(scene) = Scene::set("truth", "celery57") else {
        return;
    };
    let worker = Worker::start(
        &scene,
        "w1",
        &Options {
            events: true,
            ..Options::default()
        },
    );
    let mut publisher = Publisher::start(&scene, "publisher");
    for scenario in [
        "simple 3",
        "chained",
        "chorded 3",
        "retries",
        "requeues",
        "large 1",
        "expiry",
        "control",
        "losses",
        "revokes",
    ] {
        publisher.publish(scenario);
    }
    scene.settle(Duration::from_secs(20));
    worker.shut_down();
    let truth = scene.whole_truth();
    let count = |name: &str| {
        let publishes = truth
            .publishes()
            .filter(|(_, publish)| publish.name == name)
            .count();
        (
            publishes,
            truth.runs().filter(|(_, run)| run.name == name).count(),
        )
    };
    assert_eq!(count("app.flaky"), (3, 3));
    assert_eq!(count("app.hopeless"), (2, 2));
    assert_eq!(count("app.requeued"), (1, 2));
    assert_eq!(count("app.rejected"), (1, 1));
    assert_eq!(count("app.size"), (1, 1));
    assert_eq!(count("app.total"), (1, 1));
    // 3 simple, 3 of the chain, 3 of the chord, 2 with an expiry of which one comes too late, 1 revoked.
    assert_eq!(count("app.add"), (12, 10));
    for (_, run) in truth.runs() {
        let whole = run.end.is_some() && run.state.is_some();
        let cut_short = ["app.killed", "app.hard_limited", "app.slow"].contains(&run.name.as_str());
        assert_ne!(whole, cut_short, "{run:?}");
    }
    for (_, publish) in truth.publishes() {
        assert!(publish.before <= publish.after, "{publish:?}");
    }
    // Two to begin with; a timed-out and a killed one were replaced, the revoked one perhaps no more.
    let children = truth.worker.as_ref().map_or(0, |worker| worker.children.len());
    assert!((4..=5).contains(&children), "{children} pool children");
}
