//! Back ends beside each other, agents beside each other, and what they leave behind.
//!
//! `CELERYSCOPE_BACKENDS` names the back ends, with commas between (`fentry,kprobe,tracepoint`); without it the best that this
//! kernel allows is tested, and the others against each other as far as any kernel allows them.

mod agree;
mod leftovers;
mod self_check;
mod side_by_side;

use std::time::{Duration, Instant};

use celeryscope_core::Span;

use crate::check;
use crate::rig::agent::Left;
use crate::rig::loopback::Family;
use crate::rig::report::say;
use crate::rig::{Agent, Broker, Scene, Tls, Way};
use crate::variants::{Comes, SET, played, stage};
use agree::{Says, differences};

/// The back ends that the environment names, else these.
fn backends(otherwise: &[&str]) -> Vec<String> {
    let named = std::env::var("CELERYSCOPE_BACKENDS").unwrap_or_default();
    let named: Vec<&str> = named
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    let names = if named.is_empty() { otherwise } else { &named };
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// What is played over TLS, where the back ends differ in less.
const SET_OVER_TLS: &[&str] = &["simple 3", "chained", "large 1"];

/// Scenario: over ::1, with worker and publisher at work already, one agent for each back end comes, and all watch the same
/// tasks: plain calls, chain, chord, retry, requeue, 1 MiB of arguments, forking clients; on Redis also some over TLS 1.3 (`rediss`).
/// Guarantees: each tells every task in full, and all say the same of each.
mod same_spans {
    use super::{Broker, Family, SET, SET_OVER_TLS, Tls, Way};

    #[test]
    fn redis() {
        super::compare(Broker::Redis, Family::V6.into(), SET);
    }

    #[test]
    fn rabbitmq() {
        super::compare(Broker::RabbitMq, Family::V6.into(), SET);
    }

    #[test]
    fn rediss() {
        let way = Way {
            family: Family::V6,
            ..Tls::V13.into()
        };
        super::compare(Broker::Redis, way, SET_OVER_TLS);
    }
}

/// How often agents are held against each other at most. Where a thread can be moved aside in the middle of a program at a tracepoint
/// (Linux 6.19), the kernel runs no kprobe program on that processor until it goes on; so the agents disturb each other there, as one
/// alone does not. They count it, and only then are they given another chance.
const TRIES: usize = 3;

fn compare(broker: Broker, way: Way, set: &[&str]) {
    for turn in 1.. {
        match compared(broker, way, set) {
            Ok(()) => return,
            Err(Wrong { what, passed_over }) if passed_over > 0 && turn < TRIES => {
                let first = what
                    .first()
                    .and_then(|what| what.lines().next())
                    .unwrap_or_default();
                say(&format!(
                    "once more: {passed_over} probes were passed over, and {first}"
                ));
            }
            Err(wrong) => panic!("{}", check::some(&wrong.what)),
        }
    }
}

/// What was wrong.
struct Wrong {
    what: Vec<String>,
    /// Probes of those who told it that the kernel did not run.
    passed_over: u64,
}

fn compared(broker: Broker, way: Way, set: &[&str]) -> Result<(), Wrong> {
    let Some(scene) = stage(broker, "backends", "celery57", way) else {
        return Ok(());
    };
    let watch = || -> Vec<Side> {
        let names = backends(&["auto", "tracepoint"]).into_iter();
        names.map(|backend| Side::start(&scene, backend)).collect()
    };
    let limit = Duration::from_secs(30);
    let sides = played(&scene, broker, Comes::Last, set, limit, watch);
    let judged: Vec<Judged> = sides.into_iter().map(|side| side.judge(&scene)).collect();
    let mut wrong: Vec<String> = judged
        .iter()
        .filter_map(|side| Some(format!("back end {}: {}", side.backend, side.why.as_ref()?)))
        .collect();
    let mut passed_over: u64 = judged
        .iter()
        .filter(|side| side.why.is_some())
        .map(|side| side.passed_over)
        .sum();
    let mut others = judged.iter().filter(|side| !side.spans.is_empty());
    if let Some(first) = others.next() {
        for other in others {
            let found = differences(&first.spans, &other.spans, Says::TheSame, &check::few_runs());
            let both = format!("back end {} beside {}", other.backend, first.backend);
            say(&format!("{both}: {} differences", found.len()));
            if !found.is_empty() {
                wrong.push(format!("{both}: {}", check::some(&found)));
                passed_over += first.passed_over + other.passed_over;
            }
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Wrong {
        what: wrong,
        passed_over,
    })
}

/// One back end's agent, whether it got ready or not.
struct Side {
    backend: String,
    started: Instant,
    agent: Result<Agent, String>,
}

/// What came of it.
struct Judged {
    backend: String,
    spans: Vec<Span>,
    /// Why it failed, if it did.
    why: Option<String>,
    /// Probes that the kernel did not run.
    passed_over: u64,
}

impl Side {
    fn start(scene: &Scene, backend: String) -> Self {
        let started = Instant::now();
        let agent = start(scene, &backend, &backend, &[]);
        Self {
            backend,
            started,
            agent,
        }
    }

    /// Ends the agent and holds its spans against the truth; says what came of it. No back end's failure keeps the others
    /// from being judged.
    fn judge(self, scene: &Scene) -> Judged {
        let left = self.agent.and_then(Agent::try_stop);
        let told = |left| check::why_not_all(scene, left, &check::few_runs());
        let why = left.as_ref().map_err(String::clone).and_then(told).err();
        let took = self.started.elapsed().as_secs_f64();
        say(&match &why {
            None => format!("back end {}: ok in {took:.1} s", self.backend),
            Some(why) => {
                let first = why.lines().next().unwrap_or_default();
                format!("back end {}: FAILED: {first}", self.backend)
            }
        });
        let passed_over = |left: &Left| check::counters(&left.log).get("probes_passed_over").copied();
        Judged {
            backend: self.backend,
            passed_over: left.as_ref().ok().and_then(passed_over).unwrap_or(0),
            spans: left.map(|left| left.spans).unwrap_or_default(),
            why,
        }
    }
}

/// Starts an agent that uses this back end, and says so.
fn start(scene: &Scene, name: &str, backend: &str, more: &[&str]) -> Result<Agent, String> {
    let options = [&["--probes", backend], more].concat();
    let agent = Agent::try_watch(scene, name, &options)?;
    match agent.backend() {
        Some(used) if used == backend || backend == "auto" => Ok(agent),
        used => Err(format!("asked for {backend}, its line \"ready\" names {used:?}")),
    }
}
