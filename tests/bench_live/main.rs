//! What tracing costs the watched programs: no tracing, celeryscope, and OpenTelemetry's in-process instrumentation, in
//! turn on one machine and in one run.
//!
//! A publisher puts tasks into the queue as fast as it can, then a worker with two pool children drains them; both are
//! timed without a recorder or anything else of the tests in them. The spans of both kinds of tracing go to one and
//! the same collector (rotel). Several rounds, medians, in an order that changes: the machine's moods fall on all alike.
//!
//! `cargo bench -p celeryscope --bench live` with `CELERYSCOPE_LIVE=1`, as root. With the argument `hooks` what each hook
//! costs instead: see [`hooks`]; with `memory` what the agent holds: see [`memory`]; with `worker` what it adds to a worker, more
//! exactly: see [`worker`]; with `counted` what tracing adds in instructions, where those can be counted: see [`counted`].

mod counted;
mod hooks;
mod memory;
#[path = "../e2e/rig/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the live tests use the rest")]
mod rig;
mod round;
#[path = "../../xtask/src/venv.rs"]
#[allow(unused_imports, reason = "its own tests run elsewhere")]
mod venv;
mod worker;

/// What the rig shares with the replay tests.
#[path = "../support"]
#[allow(dead_code, unreachable_pub, reason = "each program uses its part")]
mod support {
    pub mod truth;
}

use rig::report::{Spread, say, table};
use round::{Figures, Round, Tracing};

const ROUNDS: usize = 5;
/// Tasks a second. This machine's worker can do some 700.
const RATES: [usize; 3] = [10, 100, 500];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|argument| argument == "counted") {
        return counted::run(&arguments);
    }
    if arguments.iter().any(|argument| argument == "hooks") {
        return hooks::run(&arguments);
    }
    if arguments.iter().any(|argument| argument == "memory") {
        return memory::run();
    }
    if arguments.iter().any(|argument| argument == "worker") {
        return worker::run(&arguments);
    }
    venv::ensure(&["otel", "rotel"]).unwrap_or_else(|e| panic!("{e:#}"));
    let Some(round) = Round::prepare() else { return };
    let mut figures: Vec<(Tracing, Figures)> = Vec::new();
    for turn in 0..ROUNDS {
        for place in 0..Tracing::ALL.len() {
            let tracing = Tracing::ALL[(place + turn) % Tracing::ALL.len()];
            let measured = round.measure(tracing);
            say(&format!(
                "round {} of {ROUNDS}: {tracing:?}: {measured:?}",
                turn + 1
            ));
            figures.push((tracing, measured));
        }
    }
    show(&figures);
    added(&figures);
    rates(&round);
}

/// The number behind this option, where it is given.
fn number(arguments: &[String], option: &str) -> Option<usize> {
    let mut rest = arguments.iter().skip_while(|argument| *argument != option);
    let number = rest.nth(1)?;
    Some(
        number
            .parse()
            .unwrap_or_else(|_| panic!("{option}: not a number: {number}")),
    )
}

/// What somebody wants to know of a round.
type OfRound<'a> = dyn Fn(&[(Tracing, Figures)]) -> f64 + 'a;

/// What each kind of tracing adds, by the rounds: the three of a round are neighbours in time, so that their differences say more
/// than those of medians over a machine that has its moods.
fn added(figures: &[(Tracing, Figures)]) {
    let rounds: Vec<&[(Tracing, Figures)]> = figures.chunks_exact(Tracing::ALL.len()).collect();
    let of = |round: &[(Tracing, Figures)], wanted: Tracing| {
        let found = round.iter().find(|(tracing, _)| *tracing == wanted);
        found.expect("each round has each kind").1
    };
    let whole = |round: &[(Tracing, Figures)], tracing: Tracing| {
        let (own, plain) = (of(round, tracing), of(round, Tracing::Off));
        own.publish_cpu + own.task_cpu + own.agent_cpu - plain.publish_cpu - plain.task_cpu
    };
    let over = |value: &OfRound<'_>, digits: usize| {
        let spread = Spread::of(rounds.iter().map(|round| value(round)).collect());
        format!(
            "{:.digits$} ({:.digits$} to {:.digits$})",
            spread.median, spread.min, spread.max
        )
    };
    let row = |tracing: Tracing| {
        let ratio = |of_one: fn(&Figures) -> f64| {
            over(
                &|round| of_one(&of(round, tracing)) / of_one(&of(round, Tracing::Off)),
                3,
            )
        };
        let share = |round: &[(Tracing, Figures)]| whole(round, tracing) / whole(round, Tracing::InProcess);
        vec![
            tracing.name().to_owned(),
            ratio(|f| f.publish_cpu),
            ratio(|f| f.task_cpu),
            over(&|round| whole(round, tracing), 0),
            over(&share, 3),
        ]
    };
    let head = [
        "tracing",
        "publisher CPU, x none",
        "worker CPU, x none",
        "added us CPU a task, agent included",
        "of what in-process tracing adds",
    ];
    let rows = [row(Tracing::Celeryscope), row(Tracing::InProcess)];
    table(
        "What tracing adds, round by round (medians, least and most)",
        &head,
        &rows,
    );
}

/// Whether a busy host makes a task dearer.
fn rates(round: &Round) {
    let row = |rate: usize| {
        let cpu = round.paced(rate);
        vec![rate.to_string(), format!("{cpu:.0}")]
    };
    let rows: Vec<_> = RATES.into_iter().map(row).collect();
    table(
        "What a task costs the agent, published and run, by how many there are",
        &["tasks a second", "agent us CPU a task"],
        &rows,
    );
}

fn show(figures: &[(Tracing, Figures)]) {
    let median = |tracing: Tracing, of: fn(&Figures) -> f64| {
        let of_this = figures.iter().filter(|(which, _)| *which == tracing);
        Spread::of(of_this.map(|(_, figures)| of(figures)).collect()).median
    };
    let row = |tracing: Tracing| {
        let compared = |of: fn(&Figures) -> f64| {
            let (own, plain) = (median(tracing, of), median(Tracing::Off, of));
            format!("{own:.0} ({:+.1} %)", (own / plain - 1.0) * 100.0)
        };
        vec![
            tracing.name().to_owned(),
            compared(|f| f.publishes),
            compared(|f| f.publish_cpu),
            compared(|f| f.tasks),
            compared(|f| f.task_cpu),
            compared(|f| f.broker_cpu),
            format!("{:.0}", median(tracing, |f| f.agent_cpu)),
            format!("{:.0}", median(tracing, |f| f.agent_rss)),
        ]
    };
    let head = [
        "tracing",
        "publishes a second",
        "publisher us CPU each",
        "tasks a second",
        "worker us CPU each",
        "broker us CPU a task",
        "agent us CPU a task",
        "agent peak MiB",
    ];
    let rows: Vec<_> = Tracing::ALL.iter().map(|tracing| row(*tracing)).collect();
    table("What tracing costs the watched programs (medians)", &head, &rows);
}
