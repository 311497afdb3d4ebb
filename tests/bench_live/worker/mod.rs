//! What the agent adds to a working worker, to within a percent on a machine that isn't quiet.
//!
//! One worker works all the while; beside it, on the same processor, runs a reference that makes no system calls, and everything
//! else has the other processors. Without the agent and with it, in turns of a few seconds in an order that changes, a window's CPU time
//! for each task is held against that of the reference for each of its rounds: the machine's moods are in both, the agent's hooks are in
//! one. An agent that watches another port tells what hooks cost where nothing is copied. A second worker, with in-process tracing,
//! takes the first one's place in its turns: of the two one is stopped.
//!
//! `CELERYSCOPE_LIVE=1 cargo bench -p celeryscope --bench live -- worker [--turns N]`, as root, on two processors or more.

mod estimate;
mod stage;

use std::time::Duration;

use crate::rig::loopback::free_port;
use crate::rig::report::{Spread, say, table};
use estimate::{Period, Window, ratios};
use stage::Stage;

/// Turns of each kind, where `--turns` does not say.
const TURNS: usize = 30;
/// Windows of a turn.
const WINDOWS: usize = 3;
/// How long a window is.
const WINDOW: Duration = Duration::from_millis(800);
/// After a change, so long nothing is measured.
const SETTLED: Duration = Duration::from_millis(300);

/// How the worker is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    None,
    /// By an agent that watches a port which nobody uses.
    Elsewhere,
    Agent,
    InProcess,
}

impl Way {
    const ALL: [Self; 4] = [Self::None, Self::Elsewhere, Self::Agent, Self::InProcess];

    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Elsewhere => "celeryscope, watching another port",
            Self::Agent => "celeryscope",
            Self::InProcess => "opentelemetry-instrumentation-celery",
        }
    }
}

pub(crate) fn run(arguments: &[String]) {
    let turns = crate::number(arguments, "--turns").unwrap_or(TURNS);
    let Some(mut stage) = Stage::set() else { return };
    let mut measured: Vec<Vec<Period>> = vec![Vec::new(); Way::ALL.len()];
    for turn in 0..turns {
        for place in 0..Way::ALL.len() {
            let which = (place + turn) % Way::ALL.len();
            let period = period(&mut stage, Way::ALL[which]);
            say(&format!("round of worker: {:?}: {period:?}", Way::ALL[which]));
            measured[which].push(period);
        }
    }
    show(&measured);
}

fn period(stage: &mut Stage, way: Way) -> Period {
    stage.stock();
    stage.take_turns(way == Way::InProcess);
    let agent = match way {
        Way::None | Way::InProcess => None,
        Way::Elsewhere => Some(stage.agent(free_port())),
        Way::Agent => Some(stage.agent(stage.port())),
    };
    std::thread::sleep(SETTLED);
    let windows = (0..WINDOWS).map(|_| window(stage)).collect();
    drop(agent);
    windows
}

fn window(stage: &mut Stage) -> Window {
    let before = stage.reading();
    std::thread::sleep(WINDOW);
    let after = stage.reading();
    let each = |cpu: u64, units: u64| cpu as f64 / units.max(1) as f64 / 1e3;
    Window {
        task: each(after.worker - before.worker, after.tasks - before.tasks),
        reference: each(after.reference - before.reference, after.rounds - before.rounds),
    }
}

fn show(measured: &[Vec<Period>]) {
    let ratios = ratios(measured);
    let row = |(way, ratio): (Way, &estimate::Ratio)| {
        let windows = measured[way as usize].iter().flatten();
        let task = Spread::of(windows.map(|window| window.task).collect());
        let ratio = match way {
            Way::None => String::new(),
            _ => format!("{:.4} ± {:.4}", ratio.value, ratio.error),
        };
        vec![
            way.name().to_owned(),
            format!("{:.0} ({:.0} to {:.0})", task.median, task.min, task.max),
            ratio,
        ]
    };
    let rows: Vec<_> = Way::ALL.into_iter().zip(&ratios).map(row).collect();
    table(
        "What tracing adds to a working worker (± one standard error)",
        &[
            "tracing",
            "us CPU a task, median of windows",
            "x none, at the same pace of the machine",
        ],
        &rows,
    );
}
