//! The recorder's files, read while they grow, and joined into the form of the `*.truth.json` files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::broker::Broker;

/// What the recorder has written so far into one folder.
#[derive(Debug)]
pub(crate) struct TruthLog {
    folder: PathBuf,
    read: HashMap<PathBuf, u64>,
    lines: Vec<Value>,
}

impl TruthLog {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            read: HashMap::new(),
            lines: Vec::new(),
        }
    }

    /// Reads what has been added; a line that is still being written is left for the next time.
    pub(crate) fn refresh(&mut self) {
        let entries = std::fs::read_dir(&self.folder).expect("the folder of the truth");
        for path in entries.map(|entry| entry.expect("a file of the truth").path()) {
            let from = self.read.entry(path.clone()).or_default();
            let mut file = File::open(&path).expect("a file of the truth");
            file.seek(SeekFrom::Start(*from)).expect("its unread part");
            let mut text = String::new();
            file.read_to_string(&mut text).expect("JSON lines");
            let whole = text.rfind('\n').map_or(0, |at| at + 1);
            *from += whole as u64;
            let parse = |line| {
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{}: {e}: {line}", path.display()))
            };
            self.lines.extend(text[..whole].lines().map(parse));
        }
    }

    /// Whether this worker's main process consumes.
    pub(crate) fn is_ready(&self, worker: u32) -> bool {
        self.of("ready").any(|line| line["pid"] == worker)
    }

    /// Forgets the tasks of the past, not the processes.
    pub(crate) fn forget_tasks(&mut self) {
        self.forget_tasks_but(&HashSet::new());
    }

    /// The same, but for these.
    pub(crate) fn forget_tasks_but(&mut self, kept: &HashSet<String>) {
        let stays = |line: &Value| line["id"].as_str().is_none_or(|id| kept.contains(id));
        self.lines.retain(stays);
    }

    /// Ids of all messages that were sent.
    pub(crate) fn published_ids(&self) -> HashSet<String> {
        self.of("publish")
            .filter_map(|line| line["id"].as_str())
            .map(str::to_owned)
            .collect()
    }

    /// How many runs have begun.
    pub(crate) fn runs(&self) -> usize {
        self.of("prerun").count()
    }

    /// How many tasks main processes have accepted.
    pub(crate) fn received(&self) -> usize {
        self.of("received").count()
    }

    /// The messages whose last word has not been heard: no run of theirs has ended for good, and no worker dropped them.
    ///
    /// Celery publishes what follows from a task (chain links, callbacks, retries) before that task's run ends, so once
    /// this is empty nothing more can come.
    pub(crate) fn unsettled(&self) -> Vec<String> {
        let key = |line: &Value| {
            (
                line["id"].to_string(),
                line["retries"].to_string(),
                line["name"].to_string(),
            )
        };
        let mut settled = HashSet::new();
        let mut running = HashMap::new();
        for line in &self.lines {
            // Greenlets of one thread run several tasks at a time.
            let thread = (line["pid"].as_u64(), line["tid"].as_u64(), line["id"].to_string());
            match line["ev"].as_str().unwrap_or_default() {
                "prerun" => _ = running.insert(thread, key(line)),
                "postrun" => {
                    let run = running.remove(&thread);
                    let comes_back = line["retval"]
                        .as_str()
                        .is_some_and(|r| r.starts_with("reject requeue=True"));
                    settled.extend(run.filter(|_| !comes_back));
                }
                _ => {}
            }
        }
        // Said by the main process of a message that no child will end: revoked, expired, over the hard limit, child lost.
        let mains: HashSet<_> = self.of("ready").map(|line| line["pid"].to_string()).collect();
        let by_main = self
            .of("failure")
            .filter(|line| mains.contains(&line["pid"].to_string()));
        let dropped: HashSet<String> = self
            .of("revoked")
            .chain(self.of("unknown"))
            .chain(by_main)
            .map(|line| line["id"].to_string())
            .collect();
        self.of("publish")
            .filter(|line| !settled.contains(&key(line)) && !dropped.contains(&line["id"].to_string()))
            .map(|line| format!("{} {}", line["name"], line["id"]))
            .collect()
    }

    /// Everything, in the form of a `*.truth.json`.
    pub(crate) fn joined(&self, scenario: &str, broker: Broker) -> Value {
        let mut tasks: BTreeMap<usize, Value> = BTreeMap::new();
        let mut places = HashMap::new();
        let mut lines: Vec<&Value> = self.lines.iter().collect();
        let time = |line: &Value| {
            ["before", "t"]
                .iter()
                .find_map(|key| line[*key].as_f64())
                .unwrap_or(0.0)
        };
        lines.sort_by(|a, b| time(a).total_cmp(&time(b)));
        let mut open: HashMap<_, (usize, usize)> = HashMap::new();
        for line in lines {
            let ev = line["ev"].as_str().unwrap_or_default();
            let Some(id) = line["id"].as_str() else { continue };
            let next = places.len();
            let place = *places.entry(id.to_owned()).or_insert(next);
            let task = tasks.entry(place).or_insert_with(|| new_task(id));
            let thread = (line["pid"].as_u64(), line["tid"].as_u64(), id.to_owned());
            match ev {
                "publish" => publish(task, line),
                "received" => _ = push(task, "received", pick(line, &["pid", "t"])),
                "prerun" => {
                    let mut run = pick(
                        line,
                        &["name", "retries", "replacements", "pid", "tid", "redelivered"],
                    );
                    run["start"] = line["t"].clone();
                    run["end"] = Value::Null;
                    run["state"] = Value::Null;
                    let at = push(task, "runs", run);
                    open.insert(thread, (place, at));
                }
                "postrun" => {
                    if let Some((_, at)) = open.remove(&thread) {
                        let run = &mut task["runs"][at];
                        run["end"] = line["t"].clone();
                        run["state"] = line["state"].clone();
                        run["retval"] = line["retval"].clone();
                    }
                }
                _ => _ = push(task, "other", without(line, &["id"])),
            }
        }
        let workers = self.workers();
        let (carrier, backend) = broker.in_truth();
        json!({
            "scenario": scenario,
            "broker": carrier,
            "backend": backend,
            "versions": self.of("ready").next().map(|line| line["versions"].clone()),
            "worker": workers.first(),
            "workers": workers,
            "publishers": self.of("publisher").map(|line| line["pid"].clone()).collect::<Vec<_>>(),
            "clock": self.of("clock").map(|line| pick(line, &["pid", "wall", "monotonic"])).collect::<Vec<_>>(),
            "tasks": tasks.into_values().collect::<Vec<_>>(),
        })
    }

    /// Programs that fork: the workers, in the order in which they were ready, then publishers.
    fn workers(&self) -> Vec<Value> {
        let leader = |line: &Value| {
            let children = self.of("child").filter(|child| child["parent"] == line["pid"]);
            let children: Vec<_> = children.map(|child| child["pid"].clone()).collect();
            json!({"pid": line["pid"], "children": children, "ready": line["t"], "hostname": line["hostname"]})
        };
        self.of("ready").chain(self.of("publisher")).map(leader).collect()
    }

    fn of<'a>(&'a self, ev: &'a str) -> impl Iterator<Item = &'a Value> {
        self.lines.iter().filter(move |line| line["ev"] == ev)
    }
}

fn new_task(id: &str) -> Value {
    json!({
        "id": id, "name": null, "parent_id": null, "root_id": null, "group": null,
        "publishes": [], "received": [], "runs": [], "other": [],
    })
}

fn publish(task: &mut Value, line: &Value) {
    if task["name"].is_null() {
        for key in ["name", "parent_id", "root_id", "group"] {
            task[key] = line[key].clone();
        }
    }
    push(task, "publishes", without(line, &["ev", "id", "group"]));
}

/// Appends to one of the task's lists; returns the place.
fn push(task: &mut Value, list: &str, item: Value) -> usize {
    let list = task[list].as_array_mut().expect("a list of the task");
    list.push(item);
    list.len() - 1
}

fn pick(line: &Value, keys: &[&str]) -> Value {
    keys.iter()
        .map(|key| ((*key).to_owned(), line[*key].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn without(line: &Value, keys: &[&str]) -> Value {
    let mut line = line.clone();
    if let Some(object) = line.as_object_mut() {
        object.retain(|key, _| !keys.contains(&key.as_str()));
    }
    line
}
