//! A server that keeps what it exchanged, client programs in Python, and the records that capture made of them.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use celeryscope_common::{Header, Kind, Record};

use crate::capture::{Live, LiveOptions, Probes};
use crate::lock_down::Mode;

/// Nothing in a test takes longer, even in an emulated machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// How long a server that was told `W` reads nothing.
pub(super) const WAITS: Duration = Duration::from_millis(300);

/// Says whether live tests are wanted, and if not that this one is skipped.
pub(super) fn wanted() -> bool {
    let wanted = std::env::var_os("CELERYSCOPE_LIVE").is_some_and(|value| value == "1");
    if !wanted {
        eprintln!("skipped: a live test, which needs root and CELERYSCOPE_LIVE=1");
    }
    wanted
}

/// The back end to test: that of `CELERYSCOPE_PROBES`, which is also what the built binary listens to.
pub(super) fn probes() -> Probes {
    match std::env::var("CELERYSCOPE_PROBES").as_deref() {
        Ok("fentry") => Probes::Fentry,
        Ok("kprobe") => Probes::Kprobe,
        Ok("tracepoint") => Probes::Tracepoint,
        _ => Probes::Auto,
    }
}

/// What one connection exchanged, as the server saw it.
#[derive(Clone, Debug, Default)]
pub(super) struct Exchange {
    pub(super) received: Vec<u8>,
    pub(super) sent: Vec<u8>,
    pub(super) ended: bool,
}

/// A server on a free port. A client's first byte chooses: `E` echoes what follows, `S` swallows it, `B` and eight
/// bytes of length has it send that many bytes, `C` has it say `bye` and close, `W` has it wait a while before it reads on,
/// `*` answers each call as its last letter says: `n` that there is nothing, `o` the same as of old, `p` in two pieces, `m` by a message, `s` not at all.
pub(super) struct Server {
    pub(super) port: u16,
    exchanges: Arc<Mutex<Vec<Arc<Mutex<Exchange>>>>>,
}

impl Server {
    /// Listens on 127.0.0.1 and ::1.
    pub(super) fn start() -> Self {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = v4.local_addr().unwrap().port();
        let exchanges = Arc::default();
        for listener in [v4, TcpListener::bind(("::1", port)).unwrap()] {
            let exchanges: Arc<Mutex<Vec<_>>> = Arc::clone(&exchanges);
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let exchange = Arc::new(Mutex::new(Exchange::default()));
                    exchanges.lock().unwrap().push(Arc::clone(&exchange));
                    std::thread::spawn(move || serve(stream.unwrap(), &exchange));
                }
            });
        }
        Self { port, exchanges }
    }

    /// The `n`th connection, once the client has closed it.
    pub(super) fn exchange(&self, n: usize) -> Exchange {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let exchange = self.exchanges.lock().unwrap().get(n).cloned();
            if let Some(exchange) = exchange
                && exchange.lock().unwrap().ended
            {
                return exchange.lock().unwrap().clone();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("connection {n} was not made and closed");
    }
}

fn serve(mut stream: TcpStream, exchange: &Mutex<Exchange>) {
    let mut buffer = vec![0; 1 << 20];
    let mut mode = 0;
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        let bytes = &buffer[..len];
        exchange.lock().unwrap().received.extend_from_slice(bytes);
        let first = mode == 0;
        if first {
            mode = bytes[0];
        }
        let answer = match mode {
            b'E' => bytes[usize::from(first)..].to_vec(),
            b'B' if first => {
                noise(usize::try_from(u64::from_be_bytes(bytes[1..9].try_into().unwrap())).unwrap())
            }
            b'C' => b"bye".to_vec(),
            b'W' if first => {
                std::thread::sleep(WAITS);
                Vec::new()
            }
            b'*' => match bytes.iter().rfind(|byte| byte.is_ascii_lowercase()) {
                Some(b'n') => b"_\r\n".to_vec(),
                Some(b'o') => b"*-1\r\n".to_vec(),
                Some(b'm') => b"*2\r\n$1\r\nq\r\n$2\r\n{}\r\n".to_vec(),
                Some(b'p') => {
                    let _ = stream.write_all(b"_\r");
                    exchange.lock().unwrap().sent.extend_from_slice(b"_\r");
                    std::thread::sleep(Duration::from_millis(50));
                    b"\n".to_vec()
                }
                _ => Vec::new(),
            },
            _ => Vec::new(),
        };
        exchange.lock().unwrap().sent.extend_from_slice(&answer);
        if stream.write_all(&answer).is_err() || mode == b'C' {
            break;
        }
    }
    exchange.lock().unwrap().ended = true;
}

/// A port on which nobody listens.
pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Bytes that look the same nowhere.
pub(super) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

/// What a Python program starts with: `connect(kind)` and the modules it needs. It is told the port, and waits for
/// a line when it calls `pause`.
const PRELUDE: &str = "
import os, socket, sys, time, threading, fcntl, select, struct, signal
port = int(sys.argv[1])
def connect(host='127.0.0.1', family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.connect((host, port))
    return s
def exactly(s, n):
    got = b''
    while len(got) < n:
        got += s.recv(n - len(got))
    return got
def pause():
    print('paused', flush=True)
    sys.stdin.readline()
";

/// A running Python program.
pub(super) struct Program {
    child: Child,
    input: ChildStdin,
    output: std::io::BufReader<std::process::ChildStdout>,
}

impl Program {
    pub(super) fn start(port: u16, script: &str) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", &format!("{PRELUDE}\n{script}"), &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = std::io::BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the program calls `pause`.
    pub(super) fn paused(&mut self) {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut self.output, &mut line).unwrap();
        assert_eq!(line, "paused\n");
    }

    /// Ends the pause.
    pub(super) fn go_on(&mut self) {
        self.input.write_all(b"\n").unwrap();
    }
}

/// A record with its payload.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) kind: Kind,
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
}

/// What is asked of a capture where a test does not say otherwise.
pub(super) fn options(port: u16) -> LiveOptions {
    LiveOptions {
        own_netns: false,
        ports: vec![port],
        tls_ports: Vec::new(),
        tls_processes: Vec::new(),
        ring_bytes: 8 << 20,
        kernel_log: false,
        probes: probes(),
        reads_from_entry: false,
        lock_down: Mode::Off,
        new_files: false,
    }
}

/// A running capture and its records so far.
pub(super) struct Capture {
    pub(super) live: Live,
    pub(super) records: Vec<Kept>,
}

impl Capture {
    pub(super) fn start(port: u16) -> Self {
        Self::with(&options(port))
    }

    pub(super) fn with_ring(port: u16, ring_bytes: u32) -> Self {
        let mut options = options(port);
        options.ring_bytes = ring_bytes;
        Self::with(&options)
    }

    /// TLS is spoken on the port.
    pub(super) fn with_tls(port: u16) -> Self {
        let mut options = options(port);
        options.tls_ports = vec![port];
        Self::with(&options)
    }

    /// One that starts when a program, started before it, pauses.
    pub(super) fn joining(port: u16, script: &str) -> (Self, Program) {
        let mut program = Program::start(port, script);
        program.paused();
        (Self::start(port), program)
    }

    pub(super) fn with(options: &LiveOptions) -> Self {
        let live = Live::start(options).unwrap();
        Self {
            live,
            records: Vec::new(),
        }
    }

    pub(super) fn drain(&mut self) {
        let mut keep = |record: &Record<'_>| {
            self.records.push(Kept {
                kind: record.kind,
                header: record.header,
                payload: record.payload.to_vec(),
            });
        };
        while self.live.drain(&mut keep) {}
    }

    /// Drains, with a sweep of the maps.
    pub(super) fn sweep(&mut self) {
        self.live.sweep_now();
        self.drain();
    }

    /// Drains until the program has ended; it must end well.
    pub(super) fn finish(&mut self, program: Program) {
        let status = self.end(program);
        assert!(status.success(), "{status}");
    }

    /// Drains until the program has ended, however it does.
    pub(super) fn end(&mut self, mut program: Program) -> std::process::ExitStatus {
        let start = Instant::now();
        loop {
            std::thread::sleep(Duration::from_millis(5));
            let status = program.child.try_wait().unwrap();
            self.drain();
            if let Some(status) = status {
                return status;
            }
            if start.elapsed() > PATIENCE {
                let _ = program.child.kill();
                panic!("the program does not end");
            }
        }
    }

    /// Runs a program from start to end.
    pub(super) fn run(&mut self, port: u16, script: &str) -> u32 {
        let program = Program::start(port, script);
        let pid = program.pid();
        self.finish(program);
        pid
    }

    /// Connections in the order in which they were opened.
    pub(super) fn conns(&self) -> Vec<u64> {
        self.of(Kind::Open).map(|kept| kept.header.conn).collect()
    }

    /// The connection, where there was one alone.
    pub(super) fn only_conn(&self) -> u64 {
        let [conn] = self.conns()[..] else {
            panic!("{:?}", self.conns())
        };
        conn
    }

    pub(super) fn of(&self, kind: Kind) -> impl Iterator<Item = &Kept> {
        self.records.iter().filter(move |kept| kept.kind == kind)
    }

    /// A direction of a connection, put together; every piece of it has times and was somebody's.
    pub(super) fn stream(&self, conn: u64, kind: Kind) -> Stream {
        let mut stream = Stream::default();
        for kept in self.of(kind).filter(|kept| kept.header.conn == conn) {
            let header = &kept.header;
            assert!(header.exit >= header.enter && header.enter > 0, "{header:?}");
            assert!(header.pid > 0 && header.tid > 0, "of nobody: {header:?}");
            let end = header.start + u64::from(header.total);
            stream.total = stream.total.max(usize::try_from(end).unwrap());
            let at = usize::try_from(header.start).unwrap() + usize::try_from(header.at).unwrap();
            if !kept.payload.is_empty() {
                stream.parts.push((at, kept.payload.clone()));
            }
            *stream.ends.entry(header.start).or_default() += usize::from(header.flags & 1);
        }
        stream
    }

    /// Does the back end tell connections by their sockets?
    pub(super) fn knows_sockets(&self) -> bool {
        self.live.attached().backend.knows_sockets()
    }

    /// A counter of either half.
    pub(super) fn counter(&mut self, name: &str) -> u64 {
        let readings = self.live.readings();
        let found = readings.iter().find(|reading| reading.metric.name == name);
        found.unwrap().value
    }
}

/// Captured parts of a stream, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) total: usize,
    pub(super) parts: Vec<(usize, Vec<u8>)>,
    /// How many last records each transfer had.
    ends: HashMap<u64, usize>,
}

impl Stream {
    /// Every part stands where it does in `truth`, none twice, each transfer has one last record, and what is missing
    /// are exactly these gaps (from, to).
    pub(super) fn check(&self, truth: &[u8], gaps: &[(usize, usize)]) {
        assert_eq!(self.total, truth.len(), "bytes counted");
        let mut missing = Vec::new();
        let mut at = 0;
        for (start, part) in &self.parts {
            assert!(*start >= at, "bytes at {start} come twice or late");
            if *start > at {
                missing.push((at, *start));
            }
            assert!(
                truth[*start..*start + part.len()] == part[..],
                "other bytes at {start}"
            );
            at = start + part.len();
        }
        if at < truth.len() {
            missing.push((at, truth.len()));
        }
        assert_eq!(missing, gaps, "gaps");
        assert!(self.ends.values().all(|ends| *ends == 1), "{:?}", self.ends);
    }
}
