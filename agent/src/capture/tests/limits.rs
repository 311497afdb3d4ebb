//! What is left out: by the capture limit, by verdict, for want of room.

use celeryscope_common::Kind;
use celeryscope_core::{Output, Verdict};

use super::rig::{Capture, Program, Server, wanted};

const K: usize = 1024;

/// Scenario: single sends of 64 KiB, of a byte more, and of 10 MiB.
/// Guarantees: the first is whole; of the others the first and the last 16 KiB are there and the gap is exactly between.
#[test]
fn head_and_tail_of_long_sends() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let mut capture = Capture::start(server.port);
    capture.run(
        server.port,
        "
for size in (65536, 65537, 10 << 20):
    s = connect()
    data = os.urandom(size - 1)
    assert s.send(b'S' + data) == size
    s.close()
",
    );
    let conns = capture.conns();
    assert_eq!(conns.len(), 3);
    let gaps: [&[_]; 3] = [&[], &[(16 * K, 48 * K + 1)], &[(16 * K, 10 * K * K - 16 * K)]];
    for (n, gaps) in gaps.into_iter().enumerate() {
        capture
            .stream(conns[n], Kind::Send)
            .check(&server.exchange(n).received, gaps);
    }
    let cut = capture.counter("cut_bytes");
    assert_eq!(cut, (32 * K + 1 + 10 * K * K - 32 * K) as u64);
}

/// Scenario: 10 MiB from a socket that does not block, sent in pieces as room comes.
/// Guarantees: every captured byte is right, the message's start and end are there, and at most 32 KiB of each piece.
#[test]
fn partial_sends() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let mut capture = Capture::start(server.port);
    capture.run(
        server.port,
        "
s = connect()
s.setblocking(False)
data = memoryview(b'S' + os.urandom(10 << 20))
while data:
    select.select([], [s], [])
    data = data[s.send(data):]
s.close()
",
    );
    let conn = capture.conns()[0];
    let truth = server.exchange(0).received;
    let stream = capture.stream(conn, Kind::Send);
    assert_eq!(stream.total, truth.len());
    let mut seen = 0;
    for (at, part) in &stream.parts {
        assert!(truth[*at..at + part.len()] == part[..], "other bytes at {at}");
        seen += part.len();
    }
    let (first, last) = (&stream.parts[0], &stream.parts[stream.parts.len() - 1]);
    assert!(first.0 == 0 && first.1.len() >= 16 * K);
    assert!(last.0 + last.1.len() == truth.len());
    let transfers = capture
        .of(Kind::Send)
        .filter(|kept| kept.header.flags & 1 != 0)
        .count();
    assert!(transfers > 1, "it was not sent in pieces");
    assert!(
        seen <= 64 * K + transfers * 32 * K,
        "{seen} bytes of {transfers} pieces"
    );
}

/// Scenario: 1 MiB comes back and is read in full buffers of 32 KiB, as a Redis client does; then a short exchange.
/// Guarantees: whole up to 64 KiB, the last 16 KiB of each buffer after that, the exchange whole again.
#[test]
fn tails_of_a_long_answer() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let mut capture = Capture::start(server.port);
    capture.run(
        server.port,
        "
s = connect()
n = 1 << 20
s.sendall(b'B' + struct.pack('>Q', n))
time.sleep(0.3)
while n:
    time.sleep(0.002)
    n -= len(s.recv(min(n, 32768), socket.MSG_WAITALL))
s.close()
",
    );
    let conn = capture.conns()[0];
    // A run is long once more than 64 KiB of it were read: after the third buffer.
    let gaps: Vec<_> = (3..32).map(|n| (n * 32 * K, n * 32 * K + 16 * K)).collect();
    capture
        .stream(conn, Kind::Recv)
        .check(&server.exchange(0).sent, &gaps);
}

/// Scenario: a connection is ignored for a while.
/// Guarantees: nothing of it is captured meanwhile; afterwards the offsets show how much was missed.
#[test]
fn ignored_for_a_while() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let mut capture = Capture::start(server.port);
    let mut program = Program::start(
        server.port,
        "
s = connect()
for text in (b'Sone', b'two', b'three'):
    s.send(text)
    pause()
s.close()
",
    );
    program.paused();
    capture.drain();
    let conn = capture.conns()[0];
    let verdict = |verdict| Output::Verdict { conn, verdict };
    capture.live.apply(&verdict(Verdict::Ignore));
    program.go_on();
    program.paused();
    capture.live.apply(&verdict(Verdict::Celery));
    program.go_on();
    program.paused();
    program.go_on();
    capture.finish(program);
    capture
        .stream(conn, Kind::Send)
        .check(&server.exchange(0).received, &[(4, 7)]);
    assert_eq!(capture.counter("ignored"), 1);
    assert_eq!(capture.of(Kind::Close).count(), 1);
}

/// Scenario: more is sent than the smallest ring holds while nobody reads it.
/// Guarantees: every record that finds no room is counted, told once, and a gap; what is captured is right.
#[test]
fn losses_are_told() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let mut capture = Capture::with_ring(server.port, 1 << 16);
    let mut program = Program::start(
        server.port,
        "
s = connect()
s.send(b'S')
for i in range(100):
    s.send(bytes([i]) * 1000)
pause()
s.send(b'the end')
s.close()
",
    );
    program.paused();
    capture.drain();
    program.go_on();
    capture.finish(program);
    let lost: u64 = capture.of(Kind::Lost).map(|kept| kept.header.conn).sum();
    let captured = capture.of(Kind::Send).count() as u64;
    assert!(lost > 0);
    assert_eq!(lost + captured, 102);
    assert_eq!(capture.counter("lost_send"), lost);
    let conn = capture.conns()[0];
    let truth = server.exchange(0).received;
    let stream = capture.stream(conn, Kind::Send);
    let seen: usize = stream.parts.iter().map(|(_, part)| part.len()).sum();
    // Those lost follow each other: one gap, of as many sends.
    let from = seen - "the end".len();
    stream.check(&truth, &[(from, from + usize::try_from(lost).unwrap() * 1000)]);
}
