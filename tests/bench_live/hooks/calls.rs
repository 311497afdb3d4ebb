//! The calls that are measured. One thread does both sides of everything: nobody has to be waited for, and nobody else's
//! calls come between.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::io::FdFlags;

use super::measure::{BATCH, Pair};

/// What a call moves.
const BYTES: usize = 1024;
/// A batch's records go into the ring buffer at once; the agent fetches them every 20 ms. So long a rest after each keeps it
/// far from full, and even from where each record wakes the agent.
const REST: Duration = Duration::from_millis(2);

/// A TCP server on loopback.
#[derive(Debug)]
pub(super) struct Peer(TcpListener);

impl Peer {
    pub(super) fn listen() -> Self {
        Self(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"))
    }

    pub(super) fn port(&self) -> u16 {
        self.0.local_addr().expect("the port of a listener").port()
    }

    /// Both ends of a new connection, on which nothing waits for more.
    fn ends(&self) -> [TcpStream; 2] {
        let near = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port())).expect("a connection");
        let (far, _) = self.0.accept().expect("a connection");
        for end in [&near, &far] {
            end.set_nodelay(true).expect("TCP_NODELAY");
        }
        [near, far]
    }

    /// send(2) to the server, recv(2) at its side.
    pub(super) fn connect(&self) -> impl Pair + use<> {
        let [near, far] = self.ends();
        Bytes {
            names: ["TCP send", "TCP recv"],
            near,
            far,
            buffer: [b'x'; BYTES],
        }
    }
}

/// write(2) and read(2) on a pipe.
pub(super) fn pipe() -> impl Pair {
    let (far, near): (PipeReader, PipeWriter) = std::io::pipe().expect("a pipe");
    Bytes {
        names: ["pipe write", "pipe read"],
        near,
        far,
        buffer: [b'x'; BYTES],
    }
}

/// The same on a pair of sockets. As files: the library would use recv(2).
pub(super) fn socket_pair() -> impl Pair {
    let (near, far) = UnixStream::pair().expect("a pair of sockets");
    Bytes {
        names: ["socket pair write", "socket pair read"],
        near: File::from(OwnedFd::from(near)),
        far: File::from(OwnedFd::from(far)),
        buffer: [b'x'; BYTES],
    }
}

/// Bytes that go in at one end and out at the other.
struct Bytes<Near, Far> {
    names: [&'static str; 2],
    near: Near,
    far: Far,
    buffer: [u8; BYTES],
}

impl<Near: Write, Far: Read> Pair for Bytes<Near, Far> {
    fn names(&self) -> [&'static str; 2] {
        self.names
    }

    fn forth(&mut self) {
        assert_eq!(self.near.write(&self.buffer).ok(), Some(BYTES));
    }

    fn back(&mut self) {
        assert_eq!(self.far.read(&mut self.buffer).ok(), Some(BYTES));
    }
}

/// Copies of a descriptor, made and closed.
pub(super) fn duplicates() -> impl Pair {
    struct Duplicates {
        file: OwnedFd,
        copies: Vec<OwnedFd>,
    }

    impl Pair for Duplicates {
        fn names(&self) -> [&'static str; 2] {
            ["dup", "close"]
        }

        fn forth(&mut self) {
            self.copies.push(rustix::io::dup(&self.file).expect("a copy"));
        }

        fn back(&mut self) {
            self.copies.pop();
        }
    }

    Duplicates {
        file: File::open("/dev/null").expect("/dev/null").into(),
        copies: Vec::with_capacity(BATCH),
    }
}

/// fcntl(2) that copies no descriptor: the hook on its entry sees by an argument that there is nothing to do.
pub(super) fn nothing() -> impl Pair {
    struct Nothing(File);

    impl Pair for Nothing {
        fn names(&self) -> [&'static str; 2] {
            ["fcntl F_GETFD", "fcntl F_SETFD"]
        }

        fn forth(&mut self) {
            rustix::io::fcntl_getfd(&self.0).expect("flags");
        }

        fn back(&mut self) {
            rustix::io::fcntl_setfd(&self.0, FdFlags::CLOEXEC).expect("flags");
        }
    }

    Nothing(File::open("/dev/null").expect("/dev/null"))
}

/// A client of the watched port: it stores results as Celery does, and gets them back.
#[derive(Debug)]
pub(super) struct Watched {
    near: TcpStream,
    far: TcpStream,
    store: Vec<u8>,
    get: Vec<u8>,
    value: Vec<u8>,
    buffer: Vec<u8>,
    exchanged: u64,
}

/// That this is Celery's the agent knows by the first command; otherwise it would soon look away.
const KEY: &str = "celery-task-meta-00000000-0000-0000-0000-000000000000";

impl Watched {
    pub(super) fn connect(peer: &Peer) -> Self {
        let [near, far] = peer.ends();
        let get = format!("*2\r\n$3\r\nGET\r\n${}\r\n{KEY}\r\n", KEY.len());
        let store = format!("*3\r\n$3\r\nSET\r\n${}\r\n{KEY}\r\n", KEY.len());
        Self {
            near,
            far,
            store: filled(&store),
            get: get.into_bytes().repeat(BATCH),
            value: filled("").repeat(BATCH),
            buffer: vec![0; BATCH * BYTES],
            exchanged: 0,
        }
    }

    /// Bytes that went over the connection in either direction.
    pub(super) fn exchanged(&self) -> u64 {
        self.exchanged
    }
}

impl Pair for Watched {
    fn names(&self) -> [&'static str; 2] {
        ["TCP send", "TCP recv"]
    }

    fn forth(&mut self) {
        assert_eq!(self.near.write(&self.store).ok(), Some(BYTES));
    }

    /// The server takes what was stored and says so; it is asked for it and sends it.
    fn turn(&mut self) {
        let done = b"+OK\r\n".repeat(BATCH);
        self.far.read_exact(&mut self.buffer).expect("commands");
        self.far.write_all(&done).expect("answers");
        self.near
            .read_exact(&mut self.buffer[..done.len()])
            .expect("answers");
        self.near.write_all(&self.get).expect("commands");
        self.far
            .read_exact(&mut self.buffer[..self.get.len()])
            .expect("commands");
        self.far.write_all(&self.value).expect("answers");
        self.exchanged += (2 * BATCH * BYTES + done.len() + self.get.len()) as u64;
    }

    fn back(&mut self) {
        assert_eq!(self.near.read(&mut self.buffer[..BYTES]).ok(), Some(BYTES));
    }

    fn rest(&mut self) {
        std::thread::sleep(REST);
    }
}

/// `command` and one bulk string more, of such a length that they have [`BYTES`] together.
fn filled(command: &str) -> Vec<u8> {
    // "$", three or four digits, and two ends of line.
    let len = BYTES - command.len() - "$999\r\n\r\n".len();
    let len = if len < 1000 { len } else { len - 1 };
    let filled = format!("{command}${len}\r\n{}\r\n", "x".repeat(len)).into_bytes();
    assert_eq!(filled.len(), BYTES);
    filled
}
