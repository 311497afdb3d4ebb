//! What tracing adds in instructions, for a machine whose clock goes on by a nanosecond with each of them (QEMU's `-icount`): processor
//! time is a count of them there, and no neighbour is in it. How far that is from being the same each time shows where it is counted
//! without tracing twice.
//!
//! Not to be taken for time: an instruction of a hook takes several times longer than one in a loop, since whom it interrupts has filled
//! the caches. Nor is it a real processor's count: QEMU 7.2 emulates none for SHA-256, of which the agent needs five blocks a task, 17,000
//! instructions in their place.
//!
//! `live --bench counted [--tasks N]`, as root, in the guest that `cargo xtask bench --instructions` boots.

use std::time::Duration;

use crate::hooks::BACK_ENDS;
use crate::rig::Scene;
use crate::rig::collector::{Collector, Ports};
use crate::rig::process::wait_for;
use crate::rig::report::{say, table};
use crate::round::{POOL, Queue, agent_of, cpu_time, family, published, tree_cpu, worker_of};

/// Tasks that are measured, where `--tasks` does not say.
const TASKS: usize = 600;
/// Tasks before them: what a program does the first time is no task's.
const BEFORE: usize = 200;
/// What goes out every second is out by then.
const SETTLED: Duration = Duration::from_secs(4);
/// For any of the programs to be there, or done.
const LIMIT: Duration = Duration::from_secs(600);

/// How tasks are traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    None,
    /// Once more, to see how far a count is from itself.
    NoneAgain,
    /// By an agent with this back end.
    Agent(&'static str),
    InProcess,
}

impl Way {
    fn all() -> impl Iterator<Item = Self> {
        let agents = BACK_ENDS.into_iter().map(Self::Agent);
        let others = [Self::InProcess, Self::NoneAgain];
        [Self::None].into_iter().chain(agents).chain(others)
    }

    fn name(self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::NoneAgain => "none, once more".to_owned(),
            Self::Agent(back_end) => format!("celeryscope, {back_end}"),
            Self::InProcess => "opentelemetry-instrumentation-celery".to_owned(),
        }
    }
}

/// Thousands of instructions a task.
#[derive(Clone, Copy, Debug)]
struct Counted {
    publisher: f64,
    /// The main process and its children.
    worker: f64,
    broker: f64,
    /// Zero where there is none.
    agent: f64,
}

impl Counted {
    /// Of the programs and of what traces them.
    fn whole(&self) -> f64 {
        self.publisher + self.worker + self.agent
    }
}

pub(crate) fn run(arguments: &[String]) {
    let tasks = crate::number(arguments, "--tasks").unwrap_or(TASKS);
    let Some(scene) = Scene::set("counted", "otel") else {
        return;
    };
    let collector = Collector::start(&scene, "collector", Ports::free(), false);
    let mut counted = Vec::new();
    for way in Way::all() {
        let one = count(&scene, &collector, way, tasks);
        say(&format!("round of counted: {way:?}: {one:?}"));
        counted.push((way, one));
    }
    show(&counted);
}

fn count(scene: &Scene, collector: &Collector, way: Way, tasks: usize) -> Counted {
    let agent = match way {
        Way::None | Way::NoneAgain | Way::InProcess => None,
        Way::Agent(back_end) => Some(agent_of(scene, collector, scene.port(), back_end)),
    };
    let traced = way == Way::InProcess;
    let worker = worker_of(scene, collector, "worker", traced);
    wait_for("the pool's children", LIMIT, || {
        (family(worker.pid()).len() == 1 + POOL).then_some(())
    });
    let mut queue = Queue::connect(scene.port());
    let mut publish = |tasks: usize| {
        let (_, cpu) = published(scene, collector, tasks, traced);
        wait_for("the worker", LIMIT, || (queue.left() == 0).then_some(()));
        std::thread::sleep(SETTLED);
        cpu
    };
    let reading = || {
        [
            tree_cpu(worker.pid()),
            cpu_time(scene.redis().pid()),
            agent.as_ref().map_or(0, |agent| cpu_time(agent.pid())),
        ]
    };
    publish(BEFORE);
    let before = reading();
    let publisher = publish(tasks);
    let after = reading();
    let [worker, broker, agent] =
        std::array::from_fn(|of| (after[of] - before[of]) as f64 / tasks as f64 / 1e3);
    Counted {
        publisher,
        worker,
        broker,
        agent,
    }
}

fn show(counted: &[(Way, Counted)]) {
    let of = |wanted: Way| {
        let found = counted.iter().find(|(way, _)| *way == wanted);
        found.expect("each way was counted").1
    };
    let (plain, in_process) = (of(Way::None), of(Way::InProcess));
    let row = |(way, own): &(Way, Counted)| {
        let beside = |of: fn(&Counted) -> f64| match way {
            Way::None => format!("{:.1}", of(own)),
            _ => format!("{:+.1} ({:.4})", of(own) - of(&plain), of(own) / of(&plain)),
        };
        let added = own.whole() - plain.whole();
        vec![
            way.name(),
            beside(|counted| counted.publisher),
            beside(|counted| counted.worker),
            beside(|counted| counted.broker),
            format!("{:.1}", own.agent),
            format!("{added:.1}"),
            format!("{:.3}", added / (in_process.whole() - plain.whole())),
        ]
    };
    let rows: Vec<_> = counted.iter().map(row).collect();
    table(
        "What tracing adds to a task, in thousands of instructions (x none)",
        &[
            "tracing",
            "publisher",
            "worker",
            "broker",
            "agent",
            "publisher, worker and agent",
            "of what in-process tracing adds",
        ],
        &rows,
    );
}
