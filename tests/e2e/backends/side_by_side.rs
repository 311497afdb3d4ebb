//! Agents with the same options on one host: one is killed, one comes late, one is there all the time.

use std::time::{Duration, SystemTime};

use celeryscope_core::Span;

use super::agree::{Says, differences};
use super::{backends, start};
use crate::check;
use crate::rig::process::wait_for;
use crate::rig::worker::Options;
use crate::rig::{Publisher, Scene, Worker};

const LIMIT: Duration = Duration::from_secs(30);

/// Scenario: two agents watch the same; amid tasks one is killed with SIGKILL and a third comes. Back ends one after another.
/// Guarantees: the one that lives tells every task in full; the killed one said nothing else; the late one says nothing else, and
/// the same of every task that was sent since it came.
#[test]
fn agents_side_by_side() {
    for backend in backends(&["auto"]) {
        one_dies_and_one_comes(&backend);
    }
}

fn one_dies_and_one_comes(backend: &str) {
    let Some(scene) = Scene::set("beside", "celery57") else {
        return;
    };
    let agent =
        |name| start(&scene, name, backend, &[]).unwrap_or_else(|why| panic!("back end {backend}: {why}"));
    let (survivor, victim) = (agent("survivor"), agent("victim"));
    let worker = Worker::start(&scene, "w1", &Options::default());
    let mut publisher = Publisher::start(&scene, "publisher");
    for scenario in ["simple 3", "chained", "chorded 3", "retries"] {
        publisher.publish(scenario);
    }
    scene.settle(LIMIT);

    let before = scene.truth().published_ids().len();
    let amid = |more| {
        wait_for("tasks to come", LIMIT, || {
            (scene.truth().published_ids().len() >= before + more).then_some(())
        });
    };
    publisher.begin("paced 300");
    amid(40);
    victim.signal("KILL");
    amid(80);
    let late = agent("late");
    publisher.finish("paced");
    let victim = victim.ended();
    scene.settle(LIMIT);

    let came = SystemTime::now();
    for scenario in ["simple 3", "chained", "chorded 3", "retries", "large 1"] {
        publisher.publish(scenario);
    }
    scene.settle(LIMIT);
    drop(worker);
    let (late, survivor) = (late.stop(), survivor.stop());
    check::nothing_lost(&late);
    check::all_is_told(&scene, &survivor, &check::few_runs());

    let compare = |who: &str, want: &[Span], got: &[Span], says| {
        assert!(!got.is_empty(), "back end {backend}: {who} told nothing");
        let found = differences(want, got, says, &check::few_runs());
        assert!(
            found.is_empty(),
            "back end {backend}, {who}: {}",
            check::some(&found)
        );
    };
    compare("the killed one", &survivor.spans, &victim, Says::NothingElse);
    compare("the late one", &survivor.spans, &late.spans, Says::NothingElse);
    let [all, told] = [&survivor.spans, &late.spans].map(|spans| since(spans, came));
    compare("the late one, since it came", &all, &told, Says::TheSame);
}

fn since(spans: &[Span], when: SystemTime) -> Vec<Span> {
    let when = when
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("a time after 1970");
    let late = |span: &&Span| u128::from(span.start.0) >= when.as_nanos();
    spans.iter().filter(late).cloned().collect()
}
