//! One round: fill the queue, drain it, note what both took.

use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::rig::collector::{Collector, Ports};
use crate::rig::process::{Process, Usage, usage, wait_for};
use crate::rig::{Agent, Scene, agent};

/// Tasks of a round.
const TASKS: usize = 20_000;
/// Children of a worker's pool.
pub(crate) const POOL: usize = 2;
/// For how long tasks come at a rate, in seconds.
const PACED: usize = 20;
/// The agent's spans go out this often.
const BATCH: Duration = Duration::from_secs(1);

/// Which kind of tracing is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tracing {
    /// None.
    Off,
    /// This agent.
    Celeryscope,
    /// opentelemetry-instrumentation-celery in publisher and worker.
    InProcess,
}

impl Tracing {
    pub(crate) const ALL: [Self; 3] = [Self::Off, Self::Celeryscope, Self::InProcess];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Off => "none",
            Self::Celeryscope => "celeryscope",
            Self::InProcess => "opentelemetry-instrumentation-celery",
        }
    }
}

/// What a round showed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// Publishes a second of one process.
    pub(crate) publishes: f64,
    /// us of CPU a publish.
    pub(crate) publish_cpu: f64,
    /// Tasks a second of the worker.
    pub(crate) tasks: f64,
    /// us of CPU a task of the worker's processes.
    pub(crate) task_cpu: f64,
    /// us of CPU a task of the broker, publish and run together.
    pub(crate) broker_cpu: f64,
    /// us of CPU a task of the agent, publish and run and export together; not its start.
    pub(crate) agent_cpu: f64,
    /// MiB.
    pub(crate) agent_rss: f64,
}

/// What all rounds use.
#[derive(Debug)]
pub(crate) struct Round {
    scene: Scene,
    collector: Collector,
}

impl Round {
    /// Redis and the collector, or nothing when live runs are not asked for.
    pub(crate) fn prepare() -> Option<Self> {
        let scene = Scene::set("bench", "otel")?;
        let collector = Collector::start(&scene, "collector", Ports::free(), false);
        Some(Self { scene, collector })
    }

    /// Runs one.
    pub(crate) fn measure(&self, tracing: Tracing) -> Figures {
        let agent = (tracing == Tracing::Celeryscope).then(|| self.agent());
        let (broker, own) = (
            usage(self.scene.redis().pid()).cpu,
            agent.as_ref().map(Agent::usage),
        );
        let (publishes, publish_cpu) = self.fill(tracing);
        let (tasks, task_cpu) = self.drain(tracing);
        let broker = usage(self.scene.redis().pid()).cpu - broker;
        let usage = agent.map(stopped).unwrap_or_default();
        let each = |cpu: f64| cpu / TASKS as f64 * 1e6;
        Figures {
            publishes,
            publish_cpu,
            tasks,
            task_cpu,
            broker_cpu: each(broker),
            agent_cpu: each(usage.cpu - own.unwrap_or_default().cpu),
            agent_rss: usage.peak_rss,
        }
    }

    /// Publishes and runs tasks at a rate; gives us of CPU a task of the agent.
    pub(crate) fn paced(&self, rate: usize) -> f64 {
        let agent = self.agent();
        let mut broker = Queue::connect(self.scene.port());
        let worker = self.worker(Tracing::Celeryscope);
        let mut burst = |count: usize| {
            let mut command = self.python();
            command.args(["-m", "burst", &count.to_string(), &rate.to_string()]);
            assert!(command.output().expect("the publisher").status.success());
            wait_for("the worker", Duration::from_secs(60), || {
                (broker.left() == 0).then_some(())
            });
        };
        // Worker and publisher have begun; what comes now is what is measured.
        burst(rate);
        let (count, begun) = (rate * PACED, agent.usage().cpu);
        burst(count);
        let cpu = stopped(agent).cpu - begun;
        drop(worker);
        cpu / count as f64 * 1e6
    }

    fn agent(&self) -> Agent {
        agent_of(&self.scene, &self.collector, self.scene.port(), "auto")
    }

    /// Publishes all tasks; gives publishes a second and us of CPU each.
    fn fill(&self, tracing: Tracing) -> (f64, f64) {
        published(&self.scene, &self.collector, TASKS, tracing == Tracing::InProcess)
    }

    /// Lets a worker run all tasks; gives tasks a second between the first and the last tenth, and us of CPU each.
    fn drain(&self, tracing: Tracing) -> (f64, f64) {
        let worker = self.worker(tracing);
        let mut broker = Queue::connect(self.scene.port());
        let mut at = |left: usize| {
            wait_for("progress of the worker", Duration::from_secs(300), || {
                (broker.left() <= left).then(|| (Instant::now(), tree_cpu(worker.pid())))
            })
        };
        let begin = at(TASKS * 9 / 10);
        let end = at(TASKS / 10);
        at(0);
        // The last ones are in the children still.
        std::thread::sleep(Duration::from_millis(300));
        let done = (TASKS * 8 / 10) as f64;
        (
            done / (end.0 - begin.0).as_secs_f64(),
            (end.1 - begin.1) as f64 / done / 1e3,
        )
    }

    fn worker(&self, tracing: Tracing) -> Process {
        let traced = tracing == Tracing::InProcess;
        worker_of(&self.scene, &self.collector, "worker", traced)
    }

    fn python(&self) -> Command {
        python_of(&self.scene, &self.collector)
    }
}

/// The workload's Python, told where spans go that it makes itself.
pub(crate) fn python_of(scene: &Scene, collector: &Collector) -> Command {
    let mut python = scene.python();
    python
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.http())
        .env("OTEL_SERVICE_NAME", "app");
    python
}

/// Publishes so many tasks as fast as can be, with in-process tracing or without; gives publishes a second and us of CPU each.
pub(crate) fn published(scene: &Scene, collector: &Collector, tasks: usize, traced: bool) -> (f64, f64) {
    let mut command = python_of(scene, collector);
    command.args(["-m", "burst", &tasks.to_string(), "0"]);
    if traced {
        command.arg("instrumented");
    }
    let output = command.stderr(Stdio::inherit()).output().expect("the publisher");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.split_whitespace().filter_map(|n| n.parse().ok());
    let figures = numbers.next().zip(numbers.next());
    figures.unwrap_or_else(|| panic!("the publisher failed: {text}"))
}

/// A worker with a pool of [`POOL`], with in-process tracing or without.
pub(crate) fn worker_of(scene: &Scene, collector: &Collector, name: &str, traced: bool) -> Process {
    let mut command = python_of(scene, collector);
    command.args(["-m", "celery", "-A", "app", "worker", "-l", "ERROR"]);
    command.args(["-c", &POOL.to_string(), "-n", &format!("{name}@{}", scene.name())]);
    if traced {
        command.args(["--include", "instrumented"]);
    }
    Process::spawn(name, &command, scene.folder(), None)
}

/// An agent that watches this port, by one back end or the best (`auto`), and sends its spans to the collector.
pub(crate) fn agent_of(scene: &Scene, collector: &Collector, port: u16, probes: &str) -> Agent {
    let mut command = Command::new(agent::binary());
    command
        .args(["run", "--broker-port", &port.to_string(), "--output", "otlp"])
        .args(["--probes", probes])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.http())
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .env("OTEL_BSP_SCHEDULE_DELAY", BATCH.as_millis().to_string());
    let no_file = scene.folder().join("none");
    Agent::spawn(scene.folder(), "agent", &command, no_file)
}

/// Ends an agent that has told everything; gives what it had used by then.
fn stopped(agent: Agent) -> Usage {
    std::thread::sleep(BATCH * 2);
    agent.stop().usage
}

/// ns that a process's threads have run, by the scheduler's count: ticks are too coarse for a few hundred tasks.
pub(crate) fn cpu_time(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let time = |path: PathBuf| -> Option<u64> {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok()
    };
    threads.filter_map(|thread| time(thread.path())).sum()
}

/// The same of a worker's main process and its pool children.
pub(crate) fn tree_cpu(main: u32) -> u64 {
    family(main).into_iter().map(cpu_time).sum()
}

/// A worker's main process and its pool children.
pub(crate) fn family(main: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{main}/task/{main}/children")).unwrap_or_default();
    let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    pids.chain([main]).collect()
}

/// What Redis knows of the work, asked over a connection of our own.
pub(crate) struct Queue(BufReader<TcpStream>);

impl Queue {
    pub(crate) fn connect(port: u16) -> Self {
        Self(BufReader::new(
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("Redis"),
        ))
    }

    /// Messages in the queue.
    pub(crate) fn left(&mut self) -> usize {
        let answer = self.ask("LLEN celery");
        answer.trim_start_matches(':').parse().expect("a length")
    }

    /// Results stored since the server's start.
    pub(crate) fn stored(&mut self) -> u64 {
        let length = self.ask("INFO commandstats");
        let length: usize = length.trim_start_matches('$').parse().expect("a length");
        let mut text = vec![0; length + 2];
        self.0.read_exact(&mut text).expect("Redis");
        let text = String::from_utf8_lossy(&text);
        let calls = text
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_setex:calls="));
        let calls = calls.and_then(|rest| rest.split(',').next()?.parse().ok());
        calls.unwrap_or_default()
    }

    /// The first line of the answer.
    fn ask(&mut self, command: &str) -> String {
        let command = format!("{command}\r\n");
        self.0.get_mut().write_all(command.as_bytes()).expect("Redis");
        let mut answer = String::new();
        self.0.read_line(&mut answer).expect("Redis");
        answer.trim_end().to_owned()
    }
}
