//! What the agent holds in memory: at its start, with tasks in flight, over a soak of a million.
//!
//! Publisher and worker are one program made by hand (`tests/workload/soak.py`), since Celery's own would need the better part of an
//! hour for a million tasks; what they send is the same.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::rig::process::Process;
use crate::rig::report::{say, table};
use crate::rig::{Agent, Scene, agent};

/// Tasks in flight.
const HELD: [usize; 2] = [10_000, 100_000];
/// Tasks of the soak, and of each of its rows.
const SOAKED: usize = 1_000_000;
const EACH: usize = 100_000;
/// Tasks in flight while it lasts.
const BESIDE: usize = 100;
/// After this time the agent has heard of all, and what is over is told and given back.
const SETTLED: Duration = Duration::from_secs(5);

pub(crate) fn run() {
    let Some(scene) = Scene::set("memory", "celery57") else {
        return;
    };
    let mut command = Command::new(agent::binary());
    command
        .args(["run", "--stats", "--broker-port", &scene.port().to_string()])
        .args(["--output", "otlp-json=/dev/null"]);
    let agent = Agent::spawn(scene.folder(), "agent", &command, "/dev/null".into());
    let mut soak = Soak::start(&scene);
    let mut rows = Vec::new();
    let mut row = |what: String, tasks: usize, begun: (Instant, f64)| {
        let (usage, resident) = (agent.usage(), resident(agent.pid()));
        let each = |seconds: f64| match tasks {
            0 => String::new(),
            tasks => format!("{:.1}", seconds / tasks as f64 * 1e6),
        };
        rows.push(vec![
            what,
            format!("{resident:.1}"),
            format!("{:.1}", usage.peak_rss),
            each(usage.cpu - begun.1),
            each(begun.0.elapsed().as_secs_f64()),
        ]);
        say(&format!("round of memory: {:?}", rows.last()));
    };
    let now = || (Instant::now(), agent.usage().cpu);
    row("at its start".to_owned(), 0, now());
    for held in HELD {
        let begun = now();
        soak.tell(&format!("hold {held}"));
        std::thread::sleep(SETTLED);
        row(format!("{held} tasks in flight"), 0, begun);
    }
    soak.tell(&format!("hold {BESIDE}"));
    std::thread::sleep(SETTLED);
    row("all but a hundred are over".to_owned(), 0, now());
    for so_far in (EACH..=SOAKED).step_by(EACH) {
        let begun = now();
        soak.tell(&format!("run {EACH}"));
        row(format!("a soak of {so_far}"), EACH, begun);
    }
    std::thread::sleep(SETTLED);
    row("after it".to_owned(), 0, now());
    drop(soak);
    let left = agent.stop();
    for line in left
        .log
        .lines()
        .filter(|line| line.contains("lost") || line.contains("dropped"))
    {
        if !line.contains("=0") {
            say(&format!("round of memory: {line}"));
        }
    }
    let head = ["", "resident MiB", "peak MiB", "agent us CPU a task", "us a task"];
    table("What the agent holds", &head, &rows);
}

/// The program that publishes and runs.
struct Soak {
    process: Process,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Soak {
    fn start(scene: &Scene) -> Self {
        let mut command = scene.python();
        command.args(["-m", "soak"]);
        let mut process = Process::spawn("soak", &command, scene.folder(), Some(Stdio::piped()));
        let stdout = process.child().stdout.take().expect("a piped stdout");
        let mut soak = Self {
            process,
            lines: BufReader::new(stdout).lines(),
        };
        soak.hear("up");
        soak
    }

    fn tell(&mut self, what: &str) {
        let stdin = self.process.child().stdin.as_mut().expect("a piped stdin");
        writeln!(stdin, "{what}").expect("a program that listens");
        self.hear("ok");
    }

    fn hear(&mut self, wanted: &str) {
        let line = self.lines.next().and_then(Result::ok);
        assert_eq!(line.as_deref(), Some(wanted), "{}", self.process.log());
    }
}

/// MiB.
fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = kib.and_then(|kib| kib.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
