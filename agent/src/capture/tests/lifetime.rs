//! Descriptors and processes: shared, copied, closed, replaced.

use std::time::Duration;

use celeryscope_common::{Kind, flags};

use super::rig::{Capture, Program, Server, wanted};
use crate::capture::attach::State;
use crate::capture::plan::Reads;

fn pids(capture: &Capture, kind: Kind) -> Vec<u32> {
    capture.of(kind).map(|kept| kept.header.pid).collect()
}

/// Scenario: a child inherits a connection, both write, the parent closes first.
/// Guarantees: one connection with both processes' bytes under their own ids; Fork names the child; the connection is
/// closed with the child's end.
#[test]
fn a_child_inherits() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let mut capture = Capture::start(server.port);
    let parent = capture.run(
        server.port,
        "
s = connect()
s.send(b'Sparent ')
r, w = os.pipe()
child = os.fork()
if child == 0:
    os.read(r, 1)
    s.send(b'child')
    os._exit(3)
s.close()
os.write(w, b'x')
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
",
    );
    let conn = capture.only_conn();
    capture.stream(conn, Kind::Send).check(b"Sparent child", &[]);
    let fork = capture.of(Kind::Fork).next().unwrap().header;
    let child = u32::try_from(fork.conn).unwrap();
    assert_eq!(fork.pid, parent);
    assert_eq!(pids(&capture, Kind::Send), [parent, child]);
    assert_eq!(pids(&capture, Kind::Close), [child]);
    let exits: Vec<_> = capture
        .of(Kind::Exit)
        .map(|kept| (kept.header.pid, kept.header.conn))
        .collect();
    assert_eq!(exits, [(child, 3 << 8), (parent, 0)]);
}

/// Scenario: a process with a connection is killed.
/// Guarantees: its Exit has the signal; the connection is closed.
#[test]
fn killed() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let mut capture = Capture::start(server.port);
    let program = Program::start(
        server.port,
        "
s = connect()
threading.Thread(target=time.sleep, args=(20,), daemon=True).start()
os.kill(os.getpid(), signal.SIGKILL)
",
    );
    let pid = program.pid();
    assert!(!capture.end(program).success());
    let exit = capture.of(Kind::Exit).next().unwrap().header;
    assert_eq!((exit.pid, exit.conn), (pid, 9));
    assert_eq!(pids(&capture, Kind::Close), [pid]);
}

/// Scenario: between two sends, 32-bit system calls whose numbers are those of close and writev among 64-bit ones, and in whose
/// register for the first argument the connection's descriptor happens to be.
/// Guarantees: they are not taken for what they are not.
#[test]
#[cfg(target_arch = "x86_64")]
fn calls_of_32_bits() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let mut capture = Capture::start(server.port);
    // push rbx; mov eax, NUMBER; mov ebx, -1; int 0x80; pop rbx; ret
    capture.run(
        server.port,
        "
import ctypes, mmap
def call(number, fd):
    code = b'\\x53\\xb8' + number.to_bytes(4, 'little') + b'\\xbb\\xff\\xff\\xff\\xff\\xcd\\x80\\x5b\\xc3'
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(at)(fd)
s = connect()
s.send(b'Sbefore ')
read, getpid = 3, 20
assert call(read, s.fileno()) == -9
assert call(getpid, s.fileno()) == os.getpid()
s.send(b'after')
",
    );
    let conn = capture.only_conn();
    capture.stream(conn, Kind::Send).check(b"Sbefore after", &[]);
    assert_eq!(capture.counter("returns_missed"), 0);
}

/// Scenario: a connection is copied by dup, dup2, dup3 and fcntl; the original is closed and the copies used.
/// Guarantees: all are the same connection, closed with the last.
#[test]
fn copies() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let mut capture = Capture::start(server.port);
    let mut program = Program::start(
        server.port,
        "
s = connect()
s.send(b'S')
copies = [fcntl.fcntl(s, fcntl.F_DUPFD, 100), fcntl.fcntl(s, fcntl.F_DUPFD_CLOEXEC, 100),
          os.dup2(s.fileno(), 200), os.dup2(s.fileno(), 201, inheritable=False), os.dup(s.fileno())]
s.close()
for i, fd in enumerate(copies):
    os.write(fd, b'copy %d,' % i)
for fd in copies[1:]:
    os.close(fd)
pause()
os.closerange(100, 101)
pause()
",
    );
    program.paused();
    capture.drain();
    assert_eq!(capture.of(Kind::Close).count(), 0);
    program.go_on();
    program.paused();
    capture.drain();
    assert_eq!(capture.of(Kind::Close).count(), 1);
    program.go_on();
    capture.finish(program);
    let conn = capture.only_conn();
    capture
        .stream(conn, Kind::Send)
        .check(b"Scopy 0,copy 1,copy 2,copy 3,copy 4,", &[]);
}

/// Scenario: a connection's descriptor is closed and its number used for a file, then replaced by dup2, then for a new
/// connection.
/// Guarantees: the file's bytes are nobody's; the new connection has an id of its own.
#[test]
fn numbers_are_used_again() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let mut capture = Capture::start(server.port);
    capture.run(
        server.port,
        "
s = connect()
n = s.fileno()
s.send(b'Sfirst')
s.close()
null = os.open('/dev/null', os.O_WRONLY)
assert null == n
os.write(null, b'not captured')
os.close(null)
s = connect()
assert s.fileno() == n
s.send(b'Ssecond')
null = os.open('/dev/null', os.O_WRONLY)
os.dup2(null, n)
os.write(n, b'not captured')
",
    );
    let conns = capture.conns();
    assert_eq!(conns.len(), 2);
    assert_ne!(conns[0], conns[1]);
    capture.stream(conns[0], Kind::Send).check(b"Sfirst", &[]);
    capture.stream(conns[1], Kind::Send).check(b"Ssecond", &[]);
    assert_eq!(
        capture
            .of(Kind::Close)
            .map(|kept| kept.header.conn)
            .collect::<Vec<_>>(),
        conns
    );
}

/// Scenario: threads are made while a connection is open, another thread uses it, the main thread closes it while
/// the threads live.
/// Guarantees: threads are no processes; the bytes have the thread's id; the close is told at once.
#[test]
fn threads_are_not_processes() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let mut capture = Capture::start(server.port);
    let mut program = Program::start(
        server.port,
        "
s = connect()
s.send(b'Smain ')
sent, done = threading.Event(), threading.Event()
def other():
    s.send(b'thread')
    sent.set()
    done.wait()
t = threading.Thread(target=other)
t.start()
sent.wait()
s.close()
pause()
done.set()
t.join()
",
    );
    program.paused();
    capture.drain();
    assert_eq!(capture.of(Kind::Close).count(), 1);
    let pid = program.pid();
    program.go_on();
    capture.finish(program);
    assert_eq!(capture.of(Kind::Fork).count(), 0);
    assert_eq!(pids(&capture, Kind::Exit), [pid]);
    let sends: Vec<_> = capture.of(Kind::Send).map(|kept| kept.header).collect();
    assert_eq!((sends[0].pid, sends[0].tid), (pid, pid));
    assert!(sends[1].pid == pid && sends[1].tid != pid);
    capture
        .stream(capture.conns()[0], Kind::Send)
        .check(b"Smain thread", &[]);
}

/// Scenario: a connection is open, and shared with a child, before capture starts.
/// Guarantees: it is found, as one, and said to be in mid-stream; both processes' bytes are captured from there.
#[test]
fn open_before_capture() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let (mut capture, mut program) = Capture::joining(
        server.port,
        "
s = connect()
s.send(b'Sbefore')
r, w = os.pipe()
child = os.fork()
if child == 0:
    os.read(r, 1)
    s.send(b'child')
    os._exit(0)
pause()
s.send(b'parent ')
os.write(w, b'x')
os.waitpid(child, 0)
s.close()
",
    );
    assert_eq!(
        (
            capture.live.attached().processes,
            capture.live.attached().connections
        ),
        (2, 1)
    );
    let pid = program.pid();
    program.go_on();
    capture.finish(program);
    let open = capture.of(Kind::Open).next().unwrap().header;
    assert_eq!((open.pid, open.flags), (pid, flags::MIDSTREAM));
    assert_eq!(capture.conns().len(), 1);
    capture.stream(open.conn, Kind::Send).check(b"parent child", &[]);
    assert_eq!(pids(&capture, Kind::Close), [pid]);
}

/// Scenario: a capture starts while a thread waits for an answer.
/// Guarantees: where reads are seen at their return alone, the answer is captured; what is read next is in any case.
#[test]
fn read_under_way_at_the_start() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let (mut capture, mut program) = Capture::joining(
        server.port,
        "
s = connect()
s.sendall(b'E')
def answer():
    assert exactly(s, 5) == b'first'
waits = threading.Thread(target=answer)
waits.start()
time.sleep(0.2)
pause()
s.sendall(b'first')
waits.join()
s.sendall(b'second')
exactly(s, 6)
",
    );
    program.go_on();
    capture.finish(program);
    let conn = capture.only_conn();
    let heard: Vec<u8> = capture
        .of(Kind::Recv)
        .filter(|kept| kept.header.conn == conn)
        .flat_map(|kept| kept.payload.clone())
        .collect();
    let attached = capture.live.attached();
    let mut rows = attached.backend.plan().iter().zip(&attached.hooks);
    let at_return = rows.any(|(hook, state)| hook.reads == Some(Reads::AtReturn) && *state != State::Unused);
    let wanted: &[u8] = if at_return { b"firstsecond" } else { b"second" };
    assert_eq!(heard, wanted);
}

/// Scenario: a process hands an inheritable connection to the program it executes.
/// Guarantees: Exec is told; the connection goes on, under a new id in mid-stream where descriptors tell connections; the
/// process is described again.
#[test]
fn executed_program_goes_on() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let mut capture = Capture::start(server.port);
    let program = Program::start(
        server.port,
        "
s = connect()
s.set_inheritable(True)
s.send(b'Sbefore ')
os.execvp('python3', ['python3', '-c', 'import os, sys, time; time.sleep(0.5); os.write(int(sys.argv[1]), b\"after\")', str(s.fileno())])
",
    );
    let pid = program.pid();
    std::thread::sleep(Duration::from_millis(50));
    capture.finish(program);
    assert_eq!(pids(&capture, Kind::Exec), [pid]);
    let conns = capture.conns();
    if capture.knows_sockets() {
        assert_eq!(conns.len(), 1);
        capture.stream(conns[0], Kind::Send).check(b"Sbefore after", &[]);
    } else {
        assert_eq!(conns.len(), 2);
        capture.stream(conns[0], Kind::Send).check(b"Sbefore ", &[]);
        capture.stream(conns[1], Kind::Send).check(b"after", &[]);
        let second = capture.of(Kind::Open).nth(1).unwrap().header;
        assert_eq!(second.flags, flags::MIDSTREAM);
    }
    assert_eq!(pids(&capture, Kind::Process), [pid, pid]);
    assert_eq!(server.exchange(0).received, b"Sbefore after");
}

/// Scenario: a process has more connections than a process has slots, and ends.
/// Guarantees: all are captured; where descriptors tell connections the overflow is counted and the sweep leaves nothing
/// behind.
#[test]
fn more_connections_than_slots() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let mut capture = Capture::start(server.port);
    capture.run(
        server.port,
        "
all = [connect() for _ in range(70)]
for i, s in enumerate(all):
    s.send(b'S%d' % i)
os._exit(0)
",
    );
    let conns = capture.conns();
    assert_eq!(conns.len(), 70);
    for (n, conn) in conns.iter().enumerate() {
        capture
            .stream(*conn, Kind::Send)
            .check(format!("S{n}").as_bytes(), &[]);
    }
    if !capture.knows_sockets() {
        assert_eq!(capture.counter("slots_full"), 6);
        assert_eq!(capture.of(Kind::Close).count(), 64);
    }
    capture.sweep();
    capture.sweep();
    assert_eq!(capture.of(Kind::Close).count(), 70);
}
