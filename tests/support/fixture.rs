//! Recorded runs as the records that the kernel half would have made of them.
//!
//! A fixture is a gzipped file of JSON lines, one for each system call that moved bytes on a socket or a pipe, and
//! for each fork, exec, exit, connect and close (tests/fixtures/redis/README.md). The rules of the kernel half that are
//! repeated here: only connections to the broker; ids that are never used twice; stream offsets for each direction;
//! the capture limit; of the pool's pipes only what the children read and write, known by its first bytes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use base64::Engine;
use celeryscope_core::common::{Endpoint, Header, Kind, flags};
use serde::Deserialize;

use super::truth::Truth;

/// Transfers up to this many bytes are captured whole.
const WHOLE: usize = 64 * 1024;
/// What is kept of each end of a longer one.
const EDGE: usize = 16 * 1024;
/// What is kept of a task's frame on its way to a pool child.
const TASK_PREFIX: usize = 512;
/// What is kept of the start of a frame that a pool child writes.
const FRAME_HEAD: usize = 128;
/// What is kept of its end.
const FRAME_TAIL: usize = 32;

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

/// Seconds with microseconds, as ns.
fn ns(seconds: f64) -> u64 {
    (seconds * 1e6).round() as u64 * 1000
}

struct Conn {
    id: u64,
    sent: u64,
    received: u64,
}

struct Converter<'a> {
    truth: &'a Truth,
    /// The wall clock less the monotonic one.
    shift: u64,
    port: u16,
    ids: u64,
    conns: HashMap<(String, String), Conn>,
    /// Processes that a `Process` record has introduced.
    known: HashSet<u32>,
    argv: HashMap<u32, Vec<String>>,
    /// Parent of each process that was forked and has executed nothing since.
    forked: HashMap<u32, u32>,
    out: Vec<Owned>,
}

impl<'a> Converter<'a> {
    fn new(truth: &'a Truth) -> Self {
        Self {
            truth,
            shift: ns(truth.clock_shift()),
            port: truth.broker_port.unwrap_or_default(),
            ids: 0,
            conns: HashMap::new(),
            known: HashSet::new(),
            argv: HashMap::new(),
            forked: HashMap::new(),
            out: Vec::new(),
        }
    }

    fn convert(mut self, lines: &[Line]) -> Vec<Owned> {
        let first = ns(lines.first().expect("a recording has lines").t);
        let clock = Header {
            enter: first - self.shift,
            exit: first - self.shift,
            conn: first,
            ..Header::default()
        };
        self.push(Kind::Clock, clock, &[]);
        for line in lines {
            self.line(line);
        }
        self.out
    }

    fn line(&mut self, line: &Line) {
        let at = self.header(line);
        match line.ev.as_deref() {
            Some("fork") if !line.thread => {
                let child = line.child.expect("a fork has a child");
                self.introduce(line);
                self.forked.insert(child, line.pid);
                if let Some(argv) = self.argv.get(&line.pid).cloned() {
                    self.argv.insert(child, argv);
                }
                self.push(
                    Kind::Fork,
                    Header {
                        conn: u64::from(child),
                        ..at
                    },
                    &[],
                );
            }
            Some("exec") => {
                self.forked.remove(&line.pid);
                self.argv.insert(line.pid, line.argv.clone());
                self.push(Kind::Exec, at, &[]);
                self.known.remove(&line.pid);
                self.introduce(line);
            }
            Some("exit") if line.whole => {
                let status = line.code.map_or_else(
                    || signal_number(line.signal.as_deref().unwrap_or_default()),
                    |code| code << 8,
                );
                self.push(Kind::Exit, Header { conn: status, ..at }, &[]);
            }
            Some("connect") if line.ret == 0 || line.err.as_deref() == Some("EINPROGRESS") => {
                if let (Some(local), Some(peer)) = (&line.local, &line.peer) {
                    self.open(line, local, peer, 0);
                }
            }
            Some("close") => {
                if let (Some(local), Some(peer)) = (&line.local, &line.peer)
                    && let Some(conn) = self.conns.get(&(local.clone(), peer.clone()))
                {
                    self.push(Kind::Close, Header { conn: conn.id, ..at }, &[]);
                }
            }
            Some(_) => {}
            None if line.peek || line.ret <= 0 => {}
            None => match line.kind.as_deref() {
                Some("tcp") => self.transfer(line),
                Some("pipe") => self.pipe(line),
                _ => {}
            },
        }
    }

    /// What is common to all records of a line.
    fn header(&self, line: &Line) -> Header {
        let exit = ns(line.t) - self.shift;
        let enter = if line.call.is_some() {
            exit - ns(line.dur)
        } else {
            exit
        };
        Header {
            enter,
            exit,
            pid: line.pid,
            tid: line.tid,
            ..Header::default()
        }
    }

    fn push(&mut self, kind: Kind, header: Header, payload: &[u8]) {
        self.out.push(Owned {
            kind,
            header,
            payload: payload.to_vec(),
        });
    }

    /// What user space reads from /proc about a process before its first record.
    fn introduce(&mut self, line: &Line) {
        if !self.known.insert(line.pid) {
            return;
        }
        let leader = *self.forked.get(&line.pid).unwrap_or(&line.pid);
        let argv = self.argv.get(&line.pid).cloned().unwrap_or_default();
        let app = argv.iter().skip_while(|arg| *arg != "-A").nth(1);
        let exe = argv
            .first()
            .map_or("", |path| path.rsplit('/').next().unwrap_or(path));
        let pid = line.pid.to_string();
        let name = argv.iter().skip_while(|arg| *arg != "-n").nth(1);
        let name = name.map(|name| name.replace("%h", "apphost"));
        let pairs = [
            ("service.name", app.map_or(exe, String::as_str)),
            ("service.instance.id", name.as_ref().unwrap_or(&pid)),
            ("process.pid", &pid),
            ("process.command", exe),
            ("host.name", "apphost"),
        ];
        let mut payload = Vec::new();
        for text in pairs.iter().flat_map(|(key, value)| [key, value]) {
            payload.extend_from_slice(&(text.len() as u16).to_ne_bytes());
            payload.extend_from_slice(text.as_bytes());
        }
        let header = Header {
            conn: u64::from(leader),
            ..self.header(line)
        };
        self.push(Kind::Process, header, &payload);
    }

    fn open(&mut self, line: &Line, local: &str, peer: &str, flags: u16) {
        let Ok(address) = peer.parse::<SocketAddr>() else {
            return;
        };
        if address.port() != self.port {
            return;
        }
        self.introduce(line);
        self.ids += 1;
        let conn = Conn {
            id: self.ids,
            sent: 0,
            received: 0,
        };
        let mut comm = [0; 16];
        for (to, from) in comm.iter_mut().zip(line.comm.bytes().take(15)) {
            *to = from;
        }
        let endpoint = Endpoint {
            addr: match address.ip() {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            },
            port: address.port(),
            reserved: 0,
            comm,
        };
        let header = Header {
            conn: conn.id,
            flags,
            ..self.header(line)
        };
        self.push(Kind::Open, header, &endpoint.to_bytes());
        self.conns.insert((local.to_owned(), peer.to_owned()), conn);
    }

    fn transfer(&mut self, line: &Line) {
        let (Some(local), Some(peer)) = (&line.local, &line.peer) else {
            return;
        };
        let key = (local.clone(), peer.clone());
        if !self.conns.contains_key(&key) {
            self.open(line, local, peer, flags::MIDSTREAM);
        }
        self.introduce(line);
        let mut header = self.header(line);
        let Some(conn) = self.conns.get_mut(&key) else {
            return;
        };
        let bytes = line.bytes();
        let send = line.dir.as_deref() == Some("w");
        let offset = if send { &mut conn.sent } else { &mut conn.received };
        header.conn = conn.id;
        header.start = *offset;
        header.total = bytes.len() as u32;
        *offset += bytes.len() as u64;
        let kind = if send { Kind::Send } else { Kind::Recv };
        if bytes.len() <= WHOLE {
            header.flags = flags::LAST;
            self.push(kind, header, &bytes);
        } else {
            self.push(kind, header, &bytes[..EDGE]);
            header.at = (bytes.len() - EDGE) as u32;
            header.flags = flags::LAST;
            self.push(kind, header, &bytes[bytes.len() - EDGE..]);
        }
    }

    /// A read of a task's frame or a write of an answer, each known by its first bytes alone.
    fn pipe(&mut self, line: &Line) {
        let bytes = line.bytes();
        let mut header = self.header(line);
        header.conn = line.fd;
        if line.dir.as_deref() == Some("r") {
            if is_pickle(&bytes) && bytes.get(11..14) == Some(&[0x4b, 0x02, 0x28]) {
                self.introduce(line);
                header.total = bytes.len() as u32;
                header.flags = flags::LAST;
                self.push(Kind::PipeRead, header, &bytes[..bytes.len().min(TASK_PREFIX)]);
            }
            return;
        }
        let Some(frame) = [0, 4]
            .iter()
            .find_map(|from| bytes.get(*from..).filter(|frame| is_answer(frame)))
        else {
            return;
        };
        self.introduce(line);
        header.total = frame.len() as u32;
        if frame.len() <= FRAME_HEAD {
            header.flags = flags::LAST;
            self.push(Kind::PipeWrite, header, frame);
        } else {
            self.push(Kind::PipeWrite, header, &frame[..FRAME_HEAD]);
            header.at = (frame.len() - FRAME_TAIL) as u32;
            header.flags = flags::LAST;
            self.push(Kind::PipeWrite, header, &frame[frame.len() - FRAME_TAIL..]);
        }
    }
}

/// Pickle protocol 4 or 5 with a frame.
fn is_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, 4 | 5, 0x95, ..])
}

/// ACK, READY, DEATH or WORKER_UP.
fn is_answer(bytes: &[u8]) -> bool {
    is_pickle(bytes) && matches!(bytes.get(11..13), Some([0x4b, 0x00 | 0x01 | 0x04 | 0x0f]))
}

fn signal_number(name: &str) -> u64 {
    match name {
        "SIGKILL" => 9,
        "SIGSEGV" => 11,
        "SIGTERM" => 15,
        _ => 1,
    }
}
