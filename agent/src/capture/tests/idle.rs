//! What an idle program moves.

use celeryscope_common::{Idle, Kind, Record};

use super::rig::{Capture, Program, Server, wanted};

/// A poll whose last queue's name says what it is to be answered: the same bytes but for that letter.
const POLLING: &str = "
s = connect()
def poll(how):
    s.sendall(b'*4\\r\\n$5\\r\\nBRPOP\\r\\n$6\\r\\nCELERY\\r\\n$1\\r\\n' + how + b'\\r\\n$1\\r\\n1\\r\\n')
def polled(how):
    poll(how)
    s.recv(100)
";
const POLL: usize = 41;

fn left_out(capture: &Capture) -> Vec<Idle> {
    let idle = capture.of(Kind::Idle);
    idle.map(|kept| {
        Record::new(Kind::Idle, kept.header, &kept.payload)
            .idle()
            .unwrap()
    })
    .collect()
}

/// The gaps that these are in a direction.
fn gaps(idle: &[Idle], sent: bool) -> Vec<(usize, usize)> {
    let part = |idle: &Idle| {
        let part = if sent { idle.sent } else { idle.received };
        (part.bytes > 0).then_some((part.start as usize, (part.start + part.bytes) as usize))
    };
    idle.iter().filter_map(part).collect()
}

/// Scenario: polls that find nothing, in both protocols' words, and then another poll; polls of another length; an answer in two
/// pieces; a poll after another command without an answer in between.
/// Guarantees: of each kind the first is told with its answer, and those that repeat it are not; what was left out is told exactly,
/// and so is each poll that is answered otherwise, at its own time.
#[test]
fn polls_that_find_nothing() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let mut capture = Capture::start(server.port);
    capture.run(
        server.port,
        &format!(
            "{POLLING}
for _ in range(5): polled(b'n')
for _ in range(4): polled(b'o')
for _ in range(3): polled(b'p'), s.recv(100)
for _ in range(3): polled(b'n')
s.sendall(b'*1\\r\\n$4\\r\\nPING\\r\\n')
for _ in range(2): polled(b'n')
for _ in range(3): polled(b'm')
s.close()
"
        ),
    );
    let conn = capture.only_conn();
    let truth = server.exchange(0);
    let idle = left_out(&capture);
    let sums: Vec<_> = idle
        .iter()
        .map(|idle| (idle.sent.bytes as usize, idle.received.bytes))
        .collect();
    // Four repeat the first of five; of the polls answered in pieces none; two of three; one before and two after PING, which is not
    // answered, but the first of these follows it at once.
    assert_eq!(
        sums,
        [(4 * POLL, 12), (3 * POLL, 15), (2 * POLL, 6), (POLL, 3)],
        "{idle:?}"
    );
    let sent = capture.stream(conn, Kind::Send);
    sent.check(&truth.received, &gaps(&idle, true));
    capture
        .stream(conn, Kind::Recv)
        .check(&truth.sent, &gaps(&idle, false));
    assert_eq!(capture.counter("idle_polls"), 10);
    assert_eq!(capture.counter("idle_bytes"), (10 * POLL + 36) as u64);
    assert_eq!(capture.counter("implied_unknown"), 0);
    let transfers = capture.records.iter().filter(|kept| kept.header.conn == conn);
    assert!(transfers.clone().all(|kept| kept.header.flags & !1 == 0));
    // Put back where it belongs: before its answer, and with times of its own.
    let mut last = 0;
    for kept in transfers.filter(|kept| matches!(kept.kind, Kind::Send | Kind::Recv)) {
        assert!(kept.header.enter >= last, "{:?} after {last}", kept.header);
        last = kept.header.exit;
    }
}

/// Scenario: a program polls, finds nothing, and waits in the next poll, which was held back, until it is killed.
/// Guarantees: nothing is told of it but what was told before, and the end of the connection.
#[test]
fn a_poll_that_is_never_answered() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let mut capture = Capture::start(server.port);
    let mut program = Program::start(
        server.port,
        &format!("{POLLING}\nfor _ in range(3): polled(b'n')\npoll(b'n')\npause()"),
    );
    program.paused();
    capture.drain();
    program.go_on();
    capture.finish(program);
    let of = |kind| capture.of(kind).count();
    assert_eq!((of(Kind::Send), of(Kind::Recv)), (1, 1));
    assert_eq!((of(Kind::Idle), of(Kind::Close)), (0, 1));
}

/// Scenario: heartbeats are sent and come back, read in two pieces as py-amqp does and in one; the head of a frame that is none;
/// a heartbeat that is sent between the two pieces of another.
/// Guarantees: heartbeats are left out; what begins like one is told with all its bytes.
#[test]
fn heartbeats() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let mut capture = Capture::start(server.port);
    capture.run(
        server.port,
        "
s = connect()
beat = bytes([8, 0, 0, 0, 0, 0, 0, 0xce])
s.sendall(b'E')
for pieces in ((7, 1), (8,), (7, 1)):
    s.sendall(beat)
    for n in pieces: exactly(s, n)
s.sendall(beat[:7] + b'x')
for n in (7, 1): exactly(s, n)
s.sendall(beat)
exactly(s, 7)
s.sendall(beat)
exactly(s, 1)
exactly(s, 8)
s.sendall(b'end')
exactly(s, 3)
s.close()
",
    );
    let conn = capture.only_conn();
    let truth = server.exchange(0);
    let idle = left_out(&capture);
    let sums: Vec<_> = idle
        .iter()
        .map(|idle| (idle.sent.bytes, idle.received.bytes))
        .collect();
    // The one that is sent while another is half read tells that half, and is told.
    assert_eq!(sums, [(24, 24), (8, 0), (0, 8)], "{idle:?}");
    capture
        .stream(conn, Kind::Send)
        .check(&truth.received, &gaps(&idle, true));
    capture
        .stream(conn, Kind::Recv)
        .check(&truth.sent, &gaps(&idle, false));
    assert_eq!(capture.counter("heartbeats"), 8);
}
