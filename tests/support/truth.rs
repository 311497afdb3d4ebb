//! Celery's own account of a run: what its signals said about each task.
//!
//! The form is that of the `*.truth.json` files: times are seconds since 1970 on the wall clock; a publish runs from
//! `before_task_publish` to `after_task_publish`, a run from `task_prerun` to `task_postrun`.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

/// Everything known about one run of a scenario.
#[derive(Clone, Debug, Deserialize)]
pub struct Truth {
    /// `<broker>-<scenario>`.
    pub scenario: String,
    /// `redis` or `rabbitmq`.
    pub broker: String,
    /// Where results go: `redis`, `rpc`, `none`.
    #[serde(default)]
    pub backend: String,
    /// The port that the broker listened on, where the test knows it.
    #[serde(skip)]
    pub broker_port: Option<u16>,
    /// The worker's processes, where there was one.
    pub worker: Option<Worker>,
    /// All workers, where there was more than one.
    #[serde(default)]
    pub workers: Vec<Worker>,
    /// Readings of both clocks.
    #[serde(default)]
    pub clock: Vec<Clock>,
    /// Each task that was published.
    pub tasks: Vec<Task>,
}

/// The worker's processes.
#[derive(Clone, Debug, Deserialize)]
pub struct Worker {
    /// The main process.
    pub pid: u32,
    /// Pool children, replaced ones too.
    pub children: Vec<u32>,
    /// When it said that it was ready, s.
    pub ready: f64,
}

/// Both clocks read at one instant.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Clock {
    /// Wall clock, s.
    pub wall: f64,
    /// CLOCK_MONOTONIC, s.
    pub monotonic: f64,
}

/// One task id.
#[derive(Clone, Debug, Deserialize)]
pub struct Task {
    /// Its id.
    pub id: String,
    /// The group of its first publish.
    pub group: Option<String>,
    /// Each time it was sent.
    pub publishes: Vec<Publish>,
    /// When the worker's main process accepted it (`task_received`).
    #[serde(default)]
    pub received: Vec<Received>,
    /// Each attempt that started.
    pub runs: Vec<Run>,
    /// What else happened to it: `retry`, `failure`, `revoked`.
    #[serde(default)]
    pub other: Vec<Happening>,
}

/// One message.
#[derive(Clone, Debug, Deserialize)]
pub struct Publish {
    /// Name of the task.
    pub name: String,
    /// 0 for the first attempt.
    pub retries: i64,
    /// How often the task had been replaced.
    #[serde(default)]
    pub replacements: i64,
    /// As in the header.
    pub eta: Option<String>,
    /// As in the header.
    pub expires: Option<String>,
    /// The process that sent it.
    pub pid: u32,
    /// The thread that sent it.
    pub tid: u32,
    /// Start, s.
    pub before: f64,
    /// End, s.
    pub after: f64,
    /// The routing key.
    pub routing_key: Option<String>,
    /// The exchange; empty for the default one.
    pub exchange: String,
    /// What the sender asked for.
    pub priority: Option<i64>,
    /// As in the header.
    pub origin: Option<String>,
    /// The task it was sent from, as in the header.
    pub parent_id: Option<String>,
    /// The first task of the tree, as in the header; with protocol 1 the task itself.
    pub root_id: String,
    /// Celery's message protocol; none: 2.
    #[serde(default)]
    pub protocol: Option<u8>,
    /// As in the header.
    #[serde(default)]
    pub stamps: Option<serde_json::Value>,
    /// The message's W3C trace context, where the test knows it.
    #[serde(default)]
    pub traceparent: Option<Traceparent>,
}

/// The main process took the message.
#[derive(Clone, Debug, Deserialize)]
pub struct Received {
    /// When, s.
    pub t: f64,
}

/// One attempt that started.
#[derive(Clone, Debug, Deserialize)]
pub struct Run {
    /// Name of the task.
    pub name: String,
    /// 0 for the first attempt.
    pub retries: i64,
    /// How often the task had been replaced.
    #[serde(default)]
    pub replacements: i64,
    /// The process that ran it.
    pub pid: u32,
    /// The thread that ran it.
    pub tid: u32,
    /// Start, s.
    pub start: f64,
    /// End, s; none when the process was killed.
    pub end: Option<f64>,
    /// Celery's state; none when it was stopped in mid-run.
    pub state: Option<String>,
    /// What it returned or raised, as text.
    pub retval: Option<String>,
    /// Whether its message had been delivered before, where the signals said so.
    #[serde(default)]
    pub redelivered: Option<bool>,
}

/// A signal other than those of publish and run.
#[derive(Clone, Debug, Deserialize)]
pub struct Happening {
    /// `retry`, `failure`, `revoked`; `killing`: its process is about to be killed; `chord`: it is a chord's callback.
    pub ev: String,
    /// When, s.
    #[serde(default)]
    pub t: Option<f64>,
    /// `failure`: the exception as text.
    pub exception: Option<String>,
    /// `chord`: the tasks it waits for.
    #[serde(default)]
    pub header: Vec<String>,
}

/// A W3C trace context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Traceparent {
    /// The trace.
    pub trace: [u8; 16],
    /// The span that sent the message.
    pub span: [u8; 8],
    /// The sampled flag.
    pub sampled: bool,
}

impl TryFrom<String> for Traceparent {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('-').collect();
        let [_, trace, span, flags] = parts[..] else {
            return Err(format!("traceparent `{text}` has not four parts"));
        };
        let whole = || format!("traceparent `{text}` is not hex of the right length");
        Ok(Self {
            trace: unhex(trace).ok_or_else(whole)?,
            span: unhex(span).ok_or_else(whole)?,
            sampled: unhex::<1>(flags).ok_or_else(whole)?[0] & 1 == 1,
        })
    }
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, at) in out.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(out)
}

impl Truth {
    /// Whether anything but the run itself tells how a task ended.
    pub fn has_results(&self) -> bool {
        self.backend != "none"
    }

    /// Reads a `*.truth.json`.
    pub fn load(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// The wall clock less CLOCK_MONOTONIC, s.
    pub fn clock_shift(&self) -> f64 {
        let mut shifts: Vec<f64> = self.clock.iter().map(|pair| pair.wall - pair.monotonic).collect();
        shifts.sort_by(f64::total_cmp);
        *shifts
            .get(shifts.len() / 2)
            .expect("the truth has readings of the clocks")
    }

    /// Every publish with its task.
    pub fn publishes(&self) -> impl Iterator<Item = (&Task, &Publish)> {
        self.tasks
            .iter()
            .flat_map(|task| task.publishes.iter().map(move |publish| (task, publish)))
    }

    /// Every run with its task.
    pub fn runs(&self) -> impl Iterator<Item = (&Task, &Run)> {
        self.tasks
            .iter()
            .flat_map(|task| task.runs.iter().map(move |run| (task, run)))
    }

    /// The process that leads the service of `pid`.
    pub fn leader(&self, pid: u32) -> u32 {
        let mut workers = self.worker.iter().chain(&self.workers);
        workers
            .find(|worker| worker.children.contains(&pid))
            .map_or(pid, |worker| worker.pid)
    }

    /// Takes the trace context of each message from the texts that went over the wire: Celery's signals don't say it.
    pub fn read_traceparents(&mut self, texts: impl Iterator<Item = String>) {
        let mut found = HashMap::new();
        for text in texts {
            for (at, _) in text.match_indices(r#"{"body": ""#) {
                let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Envelope>();
                if let Some(Ok(Envelope {
                    headers:
                        Headers {
                            task: Some(task),
                            id: Some(id),
                            retries,
                            traceparent: Some(traceparent),
                        },
                })) = values.next()
                {
                    found.insert((id, retries, task), traceparent);
                }
            }
            found.extend(amqp_contexts(&text));
        }
        for task in &mut self.tasks {
            for publish in &mut task.publishes {
                let key = (task.id.clone(), publish.retries, publish.name.clone());
                publish.traceparent = found.get(&key).copied();
            }
        }
    }
}

/// Trace contexts in the tables of AMQP content headers, which py-amqp writes in Celery's order: task, id, …
fn amqp_contexts(text: &str) -> Vec<((String, i64, String), Traceparent)> {
    let string = |message: &str, key: &str| {
        let (_, rest) = message.split_once(&format!("{}{key}S\0\0\0", char::from(key.len() as u8)))?;
        let mut chars = rest.chars();
        let len = u32::from(chars.next()?) as usize;
        Some(chars.take(len).collect::<String>())
    };
    let starts: Vec<usize> = text.match_indices("\u{4}taskS\0\0\0").map(|(at, _)| at).collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let context = |(start, end): (&usize, usize)| {
        let message = &text[*start..end];
        let retries = message.split_once("retriesI\0\0\0")?.1.chars().next()?;
        let traceparent = string(message, "traceparent")?;
        let key = (
            string(message, "id")?,
            i64::from(u32::from(retries)),
            string(message, "task")?,
        );
        Some((key, serde_json::from_value(traceparent.into()).ok()?))
    };
    starts.iter().zip(ends).filter_map(context).collect()
}

#[derive(Deserialize)]
struct Envelope {
    headers: Headers,
}

#[derive(Deserialize)]
struct Headers {
    task: Option<String>,
    id: Option<String>,
    #[serde(default)]
    retries: i64,
    traceparent: Option<Traceparent>,
}
