//! Processes by the thousand, and numbers that come again.

use std::collections::{HashMap, HashSet};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use celeryscope_core::{Span, SpanKind};

use super::{LIMIT, run_to_its_end};
use crate::check;
use crate::rig::process::wait_for;
use crate::rig::worker::Options;
use crate::rig::{Agent, Scene, Worker};
use crate::support::compare::{int, text};

/// Publishers, and how many at a time.
const CLIENTS: usize = 1000;
const AT_ONCE: usize = 8;

/// Bash, which opens sockets and needs a few milliseconds from its start to its end. Arguments: the port, and a command of Redis.
const CLIENT: &str =
    r#"exec 3<>"/dev/tcp/127.0.0.1/$1" && printf %s "$2" >&3 && read -r -u 3 answer && echo "$$ $answer""#;

/// Scenario: a thousand processes in less than a minute, each of which connects, publishes one task and ends at once.
/// Guarantees: each publish is told once, with the process that made it; each task's run is told, under its publish; nothing is lost,
/// and nothing of the thousand stays behind in the agent.
#[test]
fn short_lived_publishers() {
    let Some(scene) = Scene::set("thousand", "celery57") else {
        return;
    };
    let agent = Agent::watch(&scene, "agent");
    let worker = Worker::start(&scene, "w1", &Options::default());
    let (next, port) = (AtomicUsize::new(0), scene.port());
    let begin = Instant::now();
    let clients = || -> Vec<(String, i64)> {
        std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < CLIENTS))
            .map(|n| publish(port, n))
            .collect()
    };
    let sent: HashMap<String, i64> = thread::scope(|scope| {
        let all: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(clients)).collect();
        all.into_iter().flat_map(|some| some.join().unwrap()).collect()
    });
    let took = begin.elapsed();
    assert_eq!(sent.len(), CLIENTS);
    assert!(took < Duration::from_secs(60), "{CLIENTS} clients took {took:?}");
    wait_for("the runs of all tasks", LIMIT, || {
        (scene.truth().runs() == CLIENTS).then_some(())
    });
    drop(worker);
    let left = agent.stop();
    check::nothing_lost(&left);

    let of = |kind: SpanKind| -> HashMap<&str, &Span> {
        let spans = left.spans.iter().filter(|span| span.kind == kind);
        spans
            .filter_map(|span| Some((text(span, "messaging.message.id")?, span)))
            .collect()
    };
    let (publishes, runs) = (of(SpanKind::Publish), of(SpanKind::Run));
    assert_eq!(
        (publishes.len(), runs.len(), left.spans.len()),
        (CLIENTS, CLIENTS, 2 * CLIENTS)
    );
    for (id, pid) in &sent {
        let (publish, run) = (publishes[id.as_str()], runs[id.as_str()]);
        assert_eq!(int(publish, "process.pid"), Some(*pid), "{id}");
        assert_eq!(
            (run.trace_id, run.parent),
            (publish.trace_id, Some(publish.span_id)),
            "{id}"
        );
    }
    let pids: HashSet<i64> = sent.into_values().collect();
    assert!(pids.len() > CLIENTS / 2, "{} processes", pids.len());
    check::nothing_was_full(&left.log);
}

/// Lets a process publish a task; gives the task's id and the process's.
fn publish(port: u16, n: usize) -> (String, i64) {
    let id = format!("{n:08x}-0000-4000-8000-{:012x}", std::process::id());
    let envelope = format!(
        concat!(
            r#"{{"body": "W1sxLCAyXSwge30sIHt9XQ==", "content-encoding": "utf-8", "content-type": "application/json", "#,
            r#""headers": {{"lang": "py", "task": "app.add", "id": "{id}", "root_id": "{id}", "parent_id": null, "#,
            r#""retries": 0, "argsrepr": "(1, 2)", "kwargsrepr": "{{}}"}}, "properties": {{"correlation_id": "{id}", "#,
            r#""delivery_mode": 2, "delivery_info": {{"exchange": "", "routing_key": "celery"}}, "priority": 0, "#,
            r#""body_encoding": "base64", "delivery_tag": "{id}"}}}}"#
        ),
        id = id
    );
    let command = format!(
        "*3\r\n$5\r\nLPUSH\r\n$6\r\ncelery\r\n${}\r\n{envelope}\r\n",
        envelope.len()
    );
    let output = Command::new("bash")
        .args(["-c", CLIENT, "client", &port.to_string(), &command])
        .output()
        .expect("bash");
    let said = String::from_utf8_lossy(&output.stdout);
    let pid = said.split(' ').next().and_then(|pid| pid.parse().ok());
    let complaint = String::from_utf8_lossy(&output.stderr);
    (
        id,
        pid.unwrap_or_else(|| panic!("client {n} said {said:?}: {complaint}")),
    )
}

/// Scenario: a client with an open connection forks 1,500 children, 300 of them alive at a time, and publishes meanwhile.
/// Guarantees: every task is told in full; no table is full, nothing is lost.
#[test]
fn fork_storm() {
    all_is_told_of("storm", &["1500", "300"], 16);
}

/// Scenario: a client publishes 40 times, each time on a new connection with the same descriptor and from the same port, which the one
/// before has reset; between two of them the descriptor is a file's and that of a connection to somebody else, and gets bytes
/// that would be a publish on the broker's.
/// Guarantees: every task is told in full, and nothing else is.
#[test]
fn descriptors_and_ports_come_again() {
    all_is_told_of("reusing", &["40"], 40);
}

fn all_is_told_of(module: &str, arguments: &[&str], tasks: usize) {
    let Some(scene) = Scene::set(module, "celery57") else {
        return;
    };
    let agent = Agent::watch(&scene, "agent");
    let worker = Worker::start(&scene, "w1", &Options::default());
    run_to_its_end(&scene, module, arguments);
    scene.settle(LIMIT);
    drop(worker);
    let left = agent.stop();
    check::all_is_told(&scene, &left, &check::few_runs());
    assert_eq!(scene.truth().published_ids().len(), tasks);
    check::nothing_was_full(&left.log);
}
