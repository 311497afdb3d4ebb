//! What the probes cost the programs they watch, and those they don't.

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use super::rig::{Capture, wanted};

const ROUNDS: u32 = 200_000;
const BYTES: usize = 200;

/// Nanoseconds of processor time for a write and a read, the least of five runs.
fn measure(near: &mut impl std::io::Write, far: &mut impl std::io::Read) -> u32 {
    let mut buffer = [7; BYTES];
    let run = |near: &mut dyn std::io::Write, far: &mut dyn std::io::Read| {
        let start = processor_time();
        for _ in 0..ROUNDS / 5 {
            near.write_all(&buffer).unwrap();
            far.read_exact(&mut buffer).unwrap();
        }
        u32::try_from(processor_time() - start).unwrap_or(u32::MAX) / (ROUNDS / 5)
    };
    let mut run = run;
    (0..5).map(|_| run(near, far)).min().unwrap()
}

/// What this thread has used, in ns: other programs on the machine count less than with a wall clock.
fn processor_time() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap()
}

/// Scenario: 200 bytes written and read in a loop: on a socket pair, with no capture, with a capture that watches
/// something else; on a watched TCP connection without and with capture.
/// Guarantees: nothing; it prints what a pair of calls costs.
#[test]
#[ignore = "measures, proves nothing"]
fn nanoseconds() {
    if !wanted() {
        return;
    }
    let (mut a, mut b) = UnixStream::pair().unwrap();
    let bare = measure(&mut a, &mut b);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let tcp = || {
        let near = TcpStream::connect(("127.0.0.1", port)).unwrap();
        (near, listener.accept().unwrap().0)
    };
    let (mut near, mut far) = tcp();
    let tcp_bare = measure(&mut near, &mut far);
    drop((near, far));
    let idle = Capture::start(1);
    let unmatched = measure(&mut a, &mut b);
    drop(idle);
    let mut capture = Capture::start(port);
    let (mut near, mut far) = tcp();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let matched = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                capture.live.drain(&mut |_| {});
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        let matched = measure(&mut near, &mut far);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        matched
    });
    eprintln!("socket pair, write + read: {bare} ns, with capture of something else {unmatched} ns");
    eprintln!("TCP, write + read: {tcp_bare} ns, with the write captured {matched} ns");
}
