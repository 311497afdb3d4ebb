//! Recordings of real programs: what is in them, what must not be, and what they tell.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use celeryscope_core::Span;

use crate::check;
use crate::rig::agent::{binary, run_once};
use crate::rig::loopback::Family;
use crate::rig::worker::Options;
use crate::rig::{Agent, Broker, Publisher, Scene, Way, Worker, secret, spans};

const LIMIT: Duration = Duration::from_secs(40);
const PASSWORD: &str = "quincunx-obelisk-7261";
const ARGUMENT: &str = "card-4929-0071-2218-ferruginous";

/// What Redis asks for, in clear.
fn with_password() -> Way {
    Way {
        password: Some(PASSWORD),
        ..Family::V4.into()
    }
}

/// Starts `record` into a file of the stage's folder.
fn record(scene: &Scene, name: &str, more: &[&str]) -> (Agent, PathBuf) {
    let file = scene.folder().join(name);
    let mut command = Command::new(binary());
    command.arg("record").arg("-o").arg(&file);
    for port in scene.ports() {
        command.args(["--broker-port", &port.to_string()]);
    }
    command.args(more);
    let agent = Agent::spawn(scene.folder(), name, &command, file.clone());
    (agent, file)
}

/// What `replay` makes of these files, as it prints it.
fn replay(files: &[PathBuf]) -> String {
    let mut command = Command::new(binary());
    command.arg("replay").args(files).args(["--output", "otlp-json"]);
    let (status, stdout, stderr) = run_once(&mut command);
    assert!(status.success(), "{stderr}");
    assert!(!stderr.contains("WARN"), "{stderr}");
    stdout
}

/// A run of which there are spans, with its ids and times.
fn outline(text: &str) -> Vec<String> {
    let spans: Vec<Span> = text.lines().flat_map(spans::request).collect();
    let tell = |span: &Span| {
        format!(
            "{} {} {} {:?}",
            span.name, span.trace_id, span.start.0, span.parent
        )
    };
    let mut outline: Vec<_> = spans.iter().map(tell).collect();
    outline.sort();
    outline
}

fn workload(scene: &Scene) {
    let worker = Worker::start(scene, "w1", &Options::default());
    let mut publisher = Publisher::start(scene, "publisher");
    let weighing = format!("weighing {ARGUMENT}");
    for scenario in ["simple 5", &weighing, "failures 2", &weighing, "chained"] {
        publisher.publish(scenario);
    }
    scene.settle(LIMIT);
    drop(worker);
}

/// Scenario: a Redis that asks for a password, tasks with a secret argument; beside an agent that exports, one recording is made masked and one
/// with payloads, each by a `record` that is there from before the password is said.
/// Guarantees: the masked file holds neither secret, in clear or in base64, and the other holds both; only its owner may read
/// it; replayed twice it gives the same bytes, and the spans that the exporting agent and the other recording gave.
#[test]
fn secrets_do_not_reach_the_disk() {
    let Some(scene) = Scene::set_over(with_password(), Broker::Redis, "recorded-secrets", "celery57") else {
        return;
    };
    let agent = Agent::watch(&scene, "agent");
    let (masking, masked) = record(&scene, "masked.rec", &[]);
    let (plain, open) = record(&scene, "plain.rec", &["--include-payloads"]);
    workload(&scene);
    let masking_log = masking.end_recording();
    plain.end_recording();
    let left = agent.stop();
    check::all_is_told(&scene, &left, &check::few_runs());

    let read = |path: &Path| std::fs::read(path).expect("a recording");
    let secrets = [PASSWORD, ARGUMENT];
    secret::assert_absent(&secrets, "the masked recording", &read(&masked));
    secret::assert_absent(&secrets, "its log", masking_log.as_bytes());
    for hidden in secrets {
        assert!(
            secret::is_in(hidden, &read(&open)),
            "{hidden} is not where it should be"
        );
    }
    let mode = std::fs::metadata(&masked)
        .expect("a recording")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(masking_log.contains("recorded records="), "{masking_log}");

    let first = replay(std::slice::from_ref(&masked));
    assert!(
        first == replay(std::slice::from_ref(&masked)),
        "two replays differ"
    );
    let runs = outline(&first);
    assert!(runs.len() > 20, "{} spans", runs.len());
    let names = |outline: &[String]| -> Vec<String> {
        let name = |line: &String| line.split(' ').take(3).collect::<Vec<_>>().join(" ");
        outline.iter().map(name).collect()
    };
    // Each agent reads the clocks itself, so times and ids of runs differ by some ns.
    assert_eq!(names(&runs), names(&outline(&replay(&[open]))));
    assert_eq!(runs.len(), left.spans.len());
}

/// A user who is not root: `nobody`, on Debian.
const NOBODY: u32 = 65_534;

/// Scenario: a recording in files of 64 KiB, in a folder of somebody else's, while tasks run, and one in a single file beside it.
/// Guarantees: several files, which together tell as many spans by the same names as the single one; each can be replayed alone.
#[test]
fn rotated_while_tasks_run() {
    let Some(scene) = Scene::set("recorded-parts", "celery57") else {
        return;
    };
    let (one, whole) = record(&scene, "whole.rec", &[]);
    let more = ["--rotate-size", "64K", "--rotate-keep", "100"];
    let theirs = scene.folder().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    chown(&theirs, Some(NOBODY), None).unwrap();
    let (many, last) = record(&scene, "theirs/parts.rec", &more);
    workload(&scene);
    workload(&scene);
    one.end_recording();
    many.end_recording();
    let older = (1..).map(|age| last.with_file_name(format!("parts.rec.{age}")));
    let mut parts: Vec<_> = older.take_while(|path| path.exists()).collect();
    parts.push(last);
    assert!(parts.len() > 2, "{} files", parts.len());
    let names = |text: &str| -> Vec<String> {
        let name = |line: String| line.split(' ').take(3).collect::<Vec<_>>().join(" ");
        outline(text).into_iter().map(name).collect()
    };
    assert_eq!(names(&replay(&parts)), names(&replay(&[whole])));
    for part in parts {
        replay(&[part]);
    }
}
