//! Recorded runs as the records that the kernel half would have made of them.
//!
//! A fixture is a gzipped file of JSON lines, one for each system call that moved bytes on a socket or a pipe, and
//! for each fork, exec, exit, connect and close (tests/fixtures/redis/README.md). What becomes of a line is in `convert`.

mod convert;

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64::Engine;
use celeryscope_core::common::{Header, Kind, flags};
use serde::Deserialize;

use super::truth::Truth;
use convert::Converter;

/// A record that owns its payload.
#[derive(Clone, Debug, PartialEq)]
pub struct Owned {
    /// What it tells.
    pub kind: Kind,
    /// The fixed part; `kind` and `len` are filled in when it is fed.
    pub header: Header,
    /// The captured bytes.
    pub payload: Vec<u8>,
}

/// A recorded run: its records and what Celery itself said about it.
#[derive(Debug)]
pub struct Fixture {
    /// In order of `exit`.
    pub records: Vec<Owned>,
    /// What happened.
    pub truth: Truth,
}

/// One line of a recording.
#[derive(Debug, Deserialize)]
struct Line {
    t: f64,
    #[serde(default)]
    dur: f64,
    pid: u32,
    tid: u32,
    #[serde(default)]
    comm: String,
    call: Option<String>,
    ev: Option<String>,
    #[serde(default)]
    fd: u64,
    kind: Option<String>,
    local: Option<String>,
    peer: Option<String>,
    dir: Option<String>,
    #[serde(default)]
    ret: i64,
    err: Option<String>,
    #[serde(default)]
    peek: bool,
    #[serde(default)]
    data: String,
    child: Option<u32>,
    #[serde(default)]
    thread: bool,
    #[serde(default)]
    whole: bool,
    code: Option<u64>,
    signal: Option<String>,
    #[serde(default)]
    argv: Vec<String>,
}

impl Line {
    fn is(&self, event: &str) -> bool {
        self.ev.as_deref() == Some(event)
    }

    fn bytes(&self) -> Vec<u8> {
        base64::engine::general_purpose::STANDARD
            .decode(&self.data)
            .expect("data is base64")
    }
}

impl Fixture {
    /// The run of this name, from `tests/fixtures/<broker>`.
    pub fn load(name: &str) -> Self {
        let (broker, _) = name
            .split_once('-')
            .expect("a fixture is named <broker>-<scenario>");
        let folder = folder(broker);
        let mut truth = Truth::load(&folder.join(format!("{name}.truth.json")));
        let mut lines = read_lines(&folder.join(format!("{name}.jsonl.gz")));
        forks_first(&mut lines);
        truth.broker_port = Some(broker_port(&lines));
        truth.read_traceparents(sent_texts(&lines));
        let records = Converter::new(&truth).convert(&lines);
        Self { records, truth }
    }
}

/// What an agent gets that starts where `records[from]` stands: first what it finds (processes, open connections), then
/// what happens, stream offsets counted from there.
pub fn late(records: &[Owned], from: usize) -> Vec<Owned> {
    let (before, after) = records.split_at(from);
    let Some(begin) = after.first().map(|record| record.header.exit) else {
        return Vec::new();
    };
    let now = |record: &Owned, flags: u16| Owned {
        header: Header {
            enter: begin,
            exit: begin,
            flags,
            ..record.header
        },
        ..record.clone()
    };
    let mut clock = Vec::new();
    let mut processes = BTreeMap::new();
    let mut open = BTreeMap::new();
    let mut offsets = HashMap::new();
    for record in before {
        let header = record.header;
        match record.kind {
            Kind::Clock => clock = vec![record.clone()],
            Kind::Process => _ = processes.insert(header.pid, now(record, 0)),
            Kind::Exit => _ = processes.remove(&header.pid),
            Kind::Open => _ = open.insert(header.conn, now(record, flags::MIDSTREAM)),
            Kind::Close => _ = open.remove(&header.conn),
            Kind::Send | Kind::Recv => {
                let next = header.start + u64::from(header.at) + record.payload.len() as u64;
                offsets.insert((header.conn, record.kind == Kind::Send), next);
            }
            _ => {}
        }
    }
    let rebased = after.iter().map(|record| {
        let mut record = record.clone();
        let offset = offsets.get(&(record.header.conn, record.kind == Kind::Send));
        if matches!(record.kind, Kind::Send | Kind::Recv) {
            record.header.start -= offset.copied().unwrap_or(0).min(record.header.start);
        }
        record
    });
    let found = processes.into_values().chain(open.into_values());
    clock.into_iter().chain(found).chain(rebased).collect()
}

/// Where the recorded runs over this broker are.
pub fn folder(broker: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .map(|folder| folder.join("tests/fixtures").join(broker))
        .find(|folder| folder.is_dir())
        .expect("tests/fixtures stands above this package")
}

/// The names of the recorded runs over this broker, sorted.
pub fn names(broker: &str) -> Vec<String> {
    let files = std::fs::read_dir(folder(broker)).expect("fixtures are there");
    let mut names: Vec<String> = files
        .filter_map(|file| {
            Some(
                file.ok()?
                    .file_name()
                    .to_str()?
                    .strip_suffix(".truth.json")?
                    .to_owned(),
            )
        })
        .collect();
    names.sort();
    names
}

fn read_lines(path: &Path) -> Vec<Line> {
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut text = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{}: {e}: {line}", path.display())))
        .collect()
}

/// The kernel tells of a fork before the child runs; the recording, when the call returned in the parent.
fn forks_first(lines: &mut Vec<Line>) {
    let mut at = 0;
    while at < lines.len() {
        if let Some(child) = lines[at].child.filter(|_| lines[at].is("fork"))
            && let Some(first) = lines[..at].iter().position(|line| line.pid == child)
        {
            let mut fork = lines.remove(at);
            fork.t = lines[first].t;
            lines.insert(first, fork);
        }
        at += 1;
    }
}

/// The port that most transfers go to.
fn broker_port(lines: &[Line]) -> u16 {
    let mut uses = HashMap::<u16, usize>::new();
    for peer in lines
        .iter()
        .filter(|line| line.call.is_some())
        .filter_map(|line| line.peer.as_deref())
    {
        if let Ok(address) = peer.parse::<SocketAddr>() {
            *uses.entry(address.port()).or_default() += 1;
        }
    }
    uses.into_iter()
        .max_by_key(|(_, n)| *n)
        .expect("the run has traffic")
        .0
}

/// What was written to sockets, one text for each stretch of a connection's writes.
fn sent_texts(lines: &[Line]) -> impl Iterator<Item = String> {
    lines
        .iter()
        .filter(|line| {
            line.kind.as_deref() == Some("tcp") && line.dir.as_deref() == Some("w") && line.ret > 0
        })
        .map(|line| String::from_utf8_lossy(&line.bytes()).into_owned())
}
