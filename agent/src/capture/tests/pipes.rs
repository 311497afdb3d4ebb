//! Pool pipes: frames as billiard writes them, from processes that are and are not watched.

use celeryscope_common::Kind;
use celeryscope_core::Output;

use super::rig::{Capture, Kept, Program, Server, wanted};

/// A parent and its child, with two pipes between them, and the frames of a pool; in the end the parent writes what a child would. It
/// waits before it makes the child if `early`, else after that.
const POOL: &str = "
def frame(body):
    return struct.pack('>I', len(body)) + body
def pickled(body, protocol=4):
    return b'\\x80' + bytes([protocol, 0x95]) + struct.pack('<Q', len(body)) + body
task = pickled(b'K\\x02(K\\x00N' + b't' * 1000, 5)
ack = pickled(b'K\\x00(K\\x00NG' + b'a' * 20)
ready = pickled(b'K\\x01(K\\x00N' + bytes(range(200)))
inr, inw = os.pipe()
outr, outw = os.pipe()
if early:
    pause()
child = os.fork()
if child == 0:
    got = os.read(inr, 4)
    got = os.read(inr, struct.unpack('>I', got)[0])
    assert got == task
    os.write(outw, frame(ack))
    os.write(outw, struct.pack('>I', len(ready)))
    os.write(outw, ready)
    os.write(outw, b'something else altogether')
    os.write(outw, frame(pickled(b'K\\x05nothing known')))
    os._exit(0)
if not early:
    pause()
os.write(inw, frame(task)[:4])
os.write(inw, task)
os.waitpid(child, 0)
os.read(outr, 10000)
os.write(inw, ack)
";

/// What becomes of the program.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It is a worker, before it has a child.
    Early,
    /// It is one, but that is known when the child is there.
    Late,
    Never,
}

fn run(found: Found) -> (Capture, u32) {
    let server = Server::start();
    let mut capture = Capture::start(server.port);
    let early = if found == Found::Early { "True" } else { "False" };
    let mut program = Program::start(server.port, &format!("early = {early}\n{POOL}"));
    let pid = program.pid();
    program.paused();
    if found != Found::Never {
        capture.live.apply(&Output::Worker { pid });
    }
    program.go_on();
    capture.finish(program);
    (capture, pid)
}

/// Scenario: a worker is found only after its child was made; the child reads a task and answers.
/// Guarantees: the child's side alone is captured: the task's first 512 bytes, the answers' first 128 and last 32, from
/// the pickle's first byte whether or not its length was written with it; nothing else that was written, and nothing that the
/// parent writes, even where a child would be told by it.
#[test]
fn a_childs_frames() {
    if wanted() {
        frames_of_the_child(Found::Late);
    }
}

/// Scenario: the same of a worker that is found before it has a child.
/// Guarantees: the same: the child is watched from its first moment.
#[test]
fn a_later_childs_frames() {
    if wanted() {
        frames_of_the_child(Found::Early);
    }
}

fn frames_of_the_child(found: Found) {
    let (capture, parent) = run(found);
    let frames: Vec<_> = capture
        .records
        .iter()
        .filter(|kept| matches!(kept.kind, Kind::PipeRead | Kind::PipeWrite))
        .collect();
    let shape: Vec<_> = frames
        .iter()
        .map(|kept| {
            (
                kept.kind,
                kept.header.at,
                kept.header.len,
                kept.header.total,
                kept.header.flags,
            )
        })
        .collect();
    assert_eq!(
        shape,
        [
            (Kind::PipeRead, 0, 512, 1017, 1),
            (Kind::PipeWrite, 0, 38, 38, 1),
            (Kind::PipeWrite, 0, 128, 217, 0),
            (Kind::PipeWrite, 185, 32, 217, 1),
        ]
    );
    assert!(frames[0].payload.starts_with(b"\x80\x05\x95"));
    assert!(frames[1].payload.starts_with(b"\x80\x04\x95"));
    assert_eq!(frames[2].payload[11..17], *b"K\x01(K\x00N");
    assert_eq!(frames[3].payload, (168..200).collect::<Vec<u8>>());
    assert!(
        frames
            .iter()
            .all(|kept| kept.header.pid != parent && kept.header.start == 0)
    );
}

/// Scenario: a worker is older than the agent, and its children hold its connection as well; one of them reads a task and dies, before
/// anybody looks at what it did.
/// Guarantees: it is told as a child of that worker, before its frame, by what it was when the agent came.
#[test]
fn children_that_share_a_connection() {
    if !wanted() {
        return;
    }
    let server = Server::start();
    let (mut capture, mut program) = Capture::joining(
        server.port,
        "
if sys.argv[-1] != 'again':
    script = open('/proc/self/cmdline').read().split('\\0')[2]
    os.execv(sys.executable, ['celeryd: w1@h:MainProcess', '-c', script, str(port), 'again'])
s = connect()
s.sendall(b'E')
task = b'\\x80\\x05\\x95' + bytes(8) + b'K\\x02(K\\x00N' + b't' * 100
inr, inw = os.pipe()
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        os.read(inr, 1000)
        os._exit(3)
    children.append(child)
pause()
for child in children:
    os.write(inw, task)
    os.wait()
",
    );
    let worker = program.pid();
    capture.drain();
    program.go_on();
    capture.finish(program);
    let read: Vec<u32> = capture.of(Kind::PipeRead).map(|kept| kept.header.pid).collect();
    assert_eq!(read.len(), 3);
    for child in read {
        let told = |kept: &&Kept| kept.header.pid == child && kept.kind == Kind::Process;
        let leaders: Vec<u64> = capture
            .records
            .iter()
            .filter(told)
            .map(|kept| kept.header.conn)
            .collect();
        assert_eq!(leaders, [u64::from(worker)], "of {child}");
    }
}

/// Scenario: the same program, nobody's worker.
/// Guarantees: no record at all.
#[test]
fn strangers_pipes_are_left_alone() {
    if !wanted() {
        return;
    }
    let (capture, _) = run(Found::Never);
    assert_eq!(
        capture
            .records
            .iter()
            .filter(|kept| kept.kind != Kind::Clock)
            .count(),
        0
    );
}
