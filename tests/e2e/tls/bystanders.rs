//! Programs that use the same OpenSSL for something else.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use celeryscope::recording::Reader;

use super::{LIMIT, publishes};
use crate::check;
use crate::rig::agent::binary;
use crate::rig::openssl::{Text, maps};
use crate::rig::process::{Process, wait_for};
use crate::rig::worker::Options;
use crate::rig::{Agent, Broker, Scene, Tls, Worker};
use crate::support::compare::int;

/// Scenario: an HTTPS server and its client from before the agent, and two more that come after it, all on the environment's Python and
/// with the broker's certificate, while Celery's programs work over TLS; beside the agent another one records.
/// Guarantees: no span and no record is of those programs, and no probe is put into their OpenSSL, while there are some in the worker's:
/// what passes there stays unread, and is not slowed.
#[test]
fn https() {
    let Some(scene) = Scene::set_over(Tls::V13, Broker::Redis, "bystanders", "celery57") else {
        return;
    };
    let mut bystanders = Bystanders::default();
    bystanders.start(&scene, "old");
    let recording = scene.folder().join("all.rec");
    let agent = Agent::watch(&scene, "agent");
    let recorder = Agent::spawn(
        scene.folder(),
        "recorder",
        &record(&scene, &recording),
        scene.folder().join("recorder.spans.jsonl"),
    );
    let worker = Worker::start(&scene, "w1", &Options::default());
    bystanders.start(&scene, "new");
    publishes(&["simple 3", "chained", "large 1", "paced 10"])(&scene);
    scene.settle(LIMIT);

    let openssl = |pid| Text::of(pid).unwrap_or_else(|| panic!("{pid} has no OpenSSL"));
    assert!(openssl(worker.pid()).is_changed(), "no probe in the worker");
    for (name, process) in &bystanders.0 {
        assert!(!openssl(process.pid()).is_changed(), "a probe in {name}");
        assert!(
            !maps(process.pid()).contains("[uprobes]"),
            "{name} has met a probe"
        );
    }
    let pids = bystanders.end();
    drop(worker);
    let left = agent.stop();
    recorder.stop();
    check::all_is_told(&scene, &left, &check::few_runs());
    for span in &left.spans {
        let thread = int(span, "process.pid").and_then(|pid| u32::try_from(pid).ok());
        let named = [thread, Some(span.process.pid)];
        assert!(!named.iter().flatten().any(|pid| pids.contains(pid)), "{span:?}");
    }
    let mut records = Reader::open(&recording).expect("a recording");
    let mut count = 0;
    while let Some(record) = records.next_record().expect("a whole recording") {
        count += 1;
        assert!(!pids.contains(&record.header.pid), "{:?}", record.header);
    }
    assert!(count > 0, "an empty recording");
}

/// `celeryscope record` of what the agent watches.
fn record(scene: &Scene, file: &Path) -> Command {
    let mut command = Command::new(binary());
    command.arg("record").arg("-o").arg(file);
    for port in scene.ports() {
        let port = port.to_string();
        command.args(["--broker-port", &port, "--tls-port", &port]);
    }
    command
}

/// The programs, by name.
#[derive(Default)]
struct Bystanders(Vec<(String, Process)>);

impl Bystanders {
    /// Starts a server and a client of its own, and waits until the one has answered the other.
    fn start(&mut self, scene: &Scene, name: &str) {
        let identity = scene.identity().expect("a stage with TLS");
        let mut server = scene.python();
        server.args(["-m", "bystander", "serve"]);
        server.arg(&identity.certificate).arg(&identity.key);
        let port = self.until_it_says(scene, format!("{name}-server"), &server, "port ");
        let mut client = scene.python();
        client.args(["-m", "bystander", "fetch", &port]);
        client.arg(&identity.authority);
        self.until_it_says(scene, format!("{name}-client"), &client, "fetched");
    }

    /// Waits for a line that begins so; returns the rest of it.
    fn until_it_says(&mut self, scene: &Scene, name: String, command: &Command, what: &str) -> String {
        let process = Process::spawn(&name, command, scene.folder(), None);
        let said = wait_for(&name, Duration::from_secs(20), || {
            let log = process.log();
            log.lines()
                .find_map(|line| Some(line.strip_prefix(what)?.to_owned()))
        });
        self.0.push((name, process));
        said
    }

    /// Ends them, who must have worked till now; returns who they were.
    fn end(mut self) -> HashSet<u32> {
        for (name, process) in &mut self.0 {
            assert!(process.ended().is_none(), "{name} has ended: {}", process.log());
        }
        self.0.iter().map(|(_, process)| process.pid()).collect()
    }
}
