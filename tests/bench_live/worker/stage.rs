//! The worker, the reference, and which processors they and all others run on.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::rig::collector::{Collector, Ports};
use crate::rig::process::{Process, wait_for};
use crate::rig::report::say;
use crate::rig::{Agent, Scene};
use crate::round::{POOL, Queue, agent_of, cpu_time, family, tree_cpu, worker_of};

/// Fewer tasks than this are not left for a turn.
const LEAST: usize = 6_000;
/// So many are published then.
const MORE: usize = 15_000;

pub(super) struct Stage {
    // Dropped in this order: who uses the servers first.
    plain: Process,
    /// The one with in-process tracing.
    traced: Process,
    /// It is this one's turn, the other is stopped.
    traces: bool,
    reference: Process,
    counter: fs::File,
    queue: Queue,
    collector: Collector,
    scene: Scene,
}

/// What has been done, and what it took, in ns of CPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) tasks: u64,
    pub(super) worker: u64,
    pub(super) rounds: u64,
    pub(super) reference: u64,
}

impl Stage {
    /// Everything running, the worker with tasks to do; nothing when live runs are not asked for, or there is one processor only.
    pub(super) fn set() -> Option<Self> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        if processors < 2 {
            say("worker: skipped: it takes two processors");
            return None;
        }
        // What this process starts stays there with it, but for what is sent elsewhere below.
        pin(std::process::id(), &format!("1-{}", processors - 1));
        let scene = Scene::set("worker", "otel")?;
        let collector = Collector::start(&scene, "collector", Ports::free(), false);
        let file = scene.folder().join("rounds");
        fs::write(&file, [0; 8]).expect("a file for the reference's count");
        let plain = worker_of(&scene, &collector, "plain", false);
        let traced = worker_of(&scene, &collector, "traced", true);
        let mut command = scene.python();
        command.args(["-m", "reference"]).arg(&file);
        let reference = Process::spawn("reference", &command, scene.folder(), None);
        for process in [&plain, &traced, &reference] {
            pin(process.pid(), "0");
        }
        let mut stage = Self {
            plain,
            traced,
            traces: false,
            reference,
            counter: fs::File::open(&file).expect("the reference's count"),
            queue: Queue::connect(scene.port()),
            collector,
            scene,
        };
        stage.stock();
        for traces in [true, false] {
            wait_for("the pool's children", Duration::from_secs(60), || {
                (family(stage.worker(traces)).len() == 1 + POOL).then_some(())
            });
        }
        for traces in [true, false] {
            stage.take_turns(traces);
            let begun = stage.reading();
            wait_for("worker and reference", Duration::from_secs(60), || {
                let now = stage.reading();
                (now.tasks > begun.tasks + 100 && now.rounds > begun.rounds + 100).then_some(())
            });
        }
        Some(stage)
    }

    /// The worker with in-process tracing works, or the other; that which does not is stopped.
    pub(super) fn take_turns(&mut self, traces: bool) {
        for (pid, signal) in [
            (self.worker(!traces), Signal::STOP),
            (self.worker(traces), Signal::CONT),
        ] {
            for pid in family(pid) {
                let pid = Pid::from_raw(pid.cast_signed()).expect("a process");
                kill_process(pid, signal).expect("a process of the worker's");
            }
        }
        self.traces = traces;
    }

    fn worker(&self, traces: bool) -> u32 {
        if traces {
            self.traced.pid()
        } else {
            self.plain.pid()
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.scene.port()
    }

    /// An agent that watches this port; detached when it is dropped.
    pub(super) fn agent(&self, port: u16) -> Agent {
        agent_of(&self.scene, &self.collector, port, "auto")
    }

    /// Sees to it that there are tasks enough.
    pub(super) fn stock(&mut self) {
        if self.queue.left() >= LEAST {
            return;
        }
        let mut command = self.scene.python();
        command.args(["-m", "burst", &MORE.to_string(), "0"]);
        let status = command.stdout(Stdio::null()).status().expect("the publisher");
        assert!(status.success(), "the publisher failed: {status}");
    }

    pub(super) fn reading(&mut self) -> Reading {
        let mut rounds = [0; 8];
        self.counter
            .read_exact_at(&mut rounds, 0)
            .expect("the reference's count");
        Reading {
            tasks: self.queue.stored(),
            worker: tree_cpu(self.worker(self.traces)),
            rounds: u64::from_le_bytes(rounds),
            reference: cpu_time(self.reference.pid()),
        }
    }
}

/// All threads of a process, and what they start from now on, run on these processors.
fn pin(pid: u32, processors: &str) {
    let mut command = Command::new("taskset");
    command.args(["--all-tasks", "--pid", "--cpu-list", processors, &pid.to_string()]);
    let status = command
        .stdout(Stdio::null())
        .status()
        .expect("taskset, of util-linux");
    assert!(
        status.success(),
        "process {pid} can't be kept to processors {processors}: {status}"
    );
}
