//! Every call that moves bytes, on every kind of address.

use std::collections::HashSet;
use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Duration;

use celeryscope_common::{Endpoint, Kind};

use super::rig::{Capture, PATIENCE, Server, WAITS, options, wanted};
use crate::capture::attach::State;
use crate::capture::plan::{Backend, Reads};
use crate::capture::{BTF, LiveOptions, kernel_release};

/// All calls of both directions, with vectors, a peek, and buffers larger than what comes.
const ALL_CALLS: &str = "
s.sendall(b'E' + bytes(range(100)))
assert s.recv(50, socket.MSG_PEEK) == bytes(range(50))
assert exactly(s, 100) == bytes(range(100))
s.sendmsg([bytes([65 + i]) * (i * 7) for i in range(11)])
assert len(exactly(s, 385)) == 385
os.write(s.fileno(), b'w' * 3000)
got = b''
while len(got) < 3000: got += os.read(s.fileno(), 1700)
os.writev(s.fileno(), [b'', b'one', b'', b'two' * 1000, b'three'])
time.sleep(0.05)
a, b, c = bytearray(10), bytearray(1000), bytearray(5000)
assert os.readv(s.fileno(), [a, b, c]) == 3008
s.send(b'x' * 2000)
time.sleep(0.05)
n = s.recvmsg_into([a, b, c])[0]
assert n == 2000, n
s.setblocking(False)
try: s.recv(10)
except BlockingIOError: pass
s.setblocking(True)
fd = s.fileno()
s.close()
";

fn all_calls(connect: &str, addr: &str, reads_from_entry: bool) {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let mut capture = Capture::with(&LiveOptions {
        reads_from_entry,
        ..options(server.port)
    });
    let pid = capture.run(server.port, &format!("s = {connect}\n{ALL_CALLS}"));
    let conn = capture.only_conn();
    let open = capture.of(Kind::Open).next().unwrap();
    assert_eq!(open.header.pid, pid);
    let endpoint = Endpoint::from_bytes(&open.payload).unwrap();
    assert_eq!(Ipv6Addr::from(endpoint.addr).to_string(), addr);
    assert_eq!(endpoint.port, server.port);
    assert!(endpoint.comm.starts_with(b"python3\0"));

    let truth = server.exchange(0);
    capture.stream(conn, Kind::Send).check(&truth.received, &[]);
    capture.stream(conn, Kind::Recv).check(&truth.sent, &[]);
    assert_eq!(
        capture
            .of(Kind::Close)
            .map(|kept| kept.header.conn)
            .collect::<Vec<_>>(),
        [conn]
    );
    assert_eq!(
        capture
            .of(Kind::Exit)
            .map(|kept| kept.header.pid)
            .collect::<Vec<_>>(),
        [pid]
    );
    let process = capture
        .records
        .iter()
        .position(|kept| kept.kind == Kind::Process)
        .unwrap();
    let open = capture
        .records
        .iter()
        .position(|kept| kept.kind == Kind::Open)
        .unwrap();
    assert!(process < open, "described before the first record");
    assert_eq!(capture.of(Kind::Lost).count(), 0);
    assert_eq!(capture.counter("unreadable"), 0);
}

/// Scenario: every call that reads or writes, over IPv4.
/// Guarantees: the captured streams are what the server exchanged, byte for byte; a peek counts for nothing.
#[test]
fn ipv4() {
    all_calls("connect()", "::ffff:127.0.0.1", false);
}

/// Scenario: the same over IPv6.
/// Guarantees: as above.
#[test]
fn ipv6() {
    all_calls("connect('::1', socket.AF_INET6)", "::1", false);
}

/// Scenario: the same from an IPv6 socket to an IPv4 address.
/// Guarantees: as above.
#[test]
fn ipv4_mapped() {
    all_calls(
        "connect('::ffff:127.0.0.1', socket.AF_INET6)",
        "::ffff:127.0.0.1",
        false,
    );
}

/// Scenario: over IPv4, where reads are seen from their entry on, as on kernels that leave no choice.
/// Guarantees: as above.
#[test]
fn reads_from_entry() {
    all_calls("connect()", "::ffff:127.0.0.1", true);
}

/// Scenario: whatever kernel this is.
/// Guarantees: the tracepoint back end sees reads at their return from Linux 5.15 to 6.18 where the kernel tells its types, else from their
/// entry on; the others have no such choice.
#[test]
fn reads_at_return() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let capture = Capture::start(server.port);
    let attached = capture.live.attached();
    let rows = attached.backend.plan().iter().zip(&attached.hooks);
    let used = rows.filter(|(_, state)| **state != State::Unused);
    let ways: HashSet<_> = used.filter_map(|(hook, _)| hook.reads).collect();
    let can_be = kernel_release::current().is_some_and(|release| ((5, 15)..(6, 19)).contains(&release))
        && cfg!(target_arch = "x86_64")
        && Path::new(BTF).exists();
    let wanted = match attached.backend {
        Backend::Tracepoint if can_be => HashSet::from([Reads::AtReturn]),
        Backend::Tracepoint => HashSet::from([Reads::FromEntry]),
        Backend::Fentry | Backend::Kprobe => HashSet::new(),
    };
    assert_eq!(ways, wanted);
}

/// Scenario: a write of more than fits between client and server, while the server reads nothing for a while; by each way of seeing reads.
/// Guarantees: it is told to have begun when it did, not when it returned.
#[test]
fn a_write_that_waits() {
    if !wanted() {
        return;
    }
    for reads_from_entry in [false, true] {
        let server = Server::start();
        let mut capture = Capture::with(&LiveOptions {
            reads_from_entry,
            ..options(server.port)
        });
        capture.run(
            server.port,
            "
s = connect()
s.send(b'W')
s.sendall(bytes(32 << 20))
s.close()
",
        );
        let longest = capture
            .of(Kind::Send)
            .map(|kept| kept.header.exit - kept.header.enter);
        let longest = Duration::from_nanos(longest.max().unwrap());
        assert!(longest > WAITS / 2 && longest < PATIENCE, "{longest:?}");
    }
}

/// Scenario: a non-blocking connect, asked for its result by a second connect, as gevent does.
/// Guarantees: one connection.
#[test]
fn non_blocking_connect() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let mut capture = Capture::start(server.port);
    capture.run(
        server.port,
        "
s = socket.socket()
s.setblocking(False)
print(s.connect_ex(('127.0.0.1', port)))
select.select([], [s], [])
print(s.connect_ex(('127.0.0.1', port)))
s.send(b'Shello')
s.close()
",
    );
    let conn = capture.only_conn();
    capture.stream(conn, Kind::Send).check(b"Shello", &[]);
}

/// Scenario: a connect that is refused, one to a port that is not watched, and one to the watched port.
/// Guarantees: only the last is a connection; the refused descriptor can be connected again.
#[test]
fn only_what_is_watched() {
    if !wanted() {
        return;
    }
    let (server, other) = (Server::start(), Server::start());
    let mut capture = Capture::start(server.port);
    capture.run(
        server.port,
        &format!(
            "
s = socket.socket()
s.connect(('127.0.0.1', {}))
s.send(b'Selsewhere')
s.close()
s = connect()
s.send(b'Shere')
s.close()
",
            other.port
        ),
    );
    assert_eq!(capture.conns().len(), 1);
    assert_eq!(
        capture
            .of(Kind::Send)
            .map(|kept| kept.payload.clone())
            .collect::<Vec<_>>(),
        [b"Shere"]
    );
}

/// Scenario: connects that nobody answers, at a watched port.
/// Guarantees: nothing of them stays: each that was told as open is told as closed.
#[test]
fn refused_connects() {
    if !wanted() {
        return;
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut capture = Capture::start(port);
    capture.run(
        port,
        "
for host, family in [('127.0.0.1', socket.AF_INET), ('::1', socket.AF_INET6)] * 3:
    try:
        connect(host, family)
    except ConnectionRefusedError:
        continue
    raise SystemExit('somebody listens')
",
    );
    let mut opened = capture.conns();
    let mut closed: Vec<u64> = capture.of(Kind::Close).map(|kept| kept.header.conn).collect();
    opened.sort_unstable();
    closed.sort_unstable();
    assert_eq!(opened, closed);
}

/// Scenario: the server says something and closes; the client reads after both, and once more.
/// Guarantees: the last bytes are told although the end came with them, and nothing counts as missed.
#[test]
fn last_bytes_with_the_end() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let mut capture = Capture::start(server.port);
    capture.run(
        server.port,
        "
s = connect()
s.send(b'C')
time.sleep(0.3)
assert s.recv(100) == b'bye'
assert s.recv(100) == b''
s.close()
",
    );
    let conn = capture.only_conn();
    capture.stream(conn, Kind::Recv).check(b"bye", &[]);
    assert_eq!(
        (capture.counter("missed_bytes"), capture.counter("returns_missed")),
        (0, 0)
    );
}

/// Scenario: bytes reach the connection by sendfile, which no probe of a call sees; a write to a file follows, then a send.
/// Guarantees: a back end that knows sockets makes of them a gap of their length, neither fills it with another call's bytes nor
/// misplaces what follows.
#[test]
fn bytes_that_no_call_moved() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let mut capture = Capture::start(server.port);
    if !capture.knows_sockets() {
        eprintln!("skipped: this back end does not know what it does not see");
        return;
    }
    capture.run(
        server.port,
        "
import tempfile
s = connect()
s.send(b'Sbefore')
with tempfile.TemporaryFile() as f:
    f.write(b'unseen')
    f.flush()
    assert os.sendfile(s.fileno(), f.fileno(), 0, 6) == 6
    os.write(f.fileno(), b'something else')
s.send(b'after')
s.close()
",
    );
    let conn = capture.only_conn();
    let stream = capture.stream(conn, Kind::Send);
    stream.check(b"Sbeforeunseenafter", &[(7, 13)]);
    assert_eq!(server.exchange(0).received, b"Sbeforeunseenafter");
}
