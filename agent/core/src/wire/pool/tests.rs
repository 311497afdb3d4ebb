//! Recorded frames, and what can be made of them.

use super::pickle::Pickle;
use super::*;

/// A TASK frame as billiard 4.3 wrote it (Python 3.11), cut at 512 bytes.
const TASK: &[u8] = include_bytes!("../../../tests/data/pool-task.bin");
/// A failed READY frame, cut at 128 bytes.
const RAISED: &[u8] = include_bytes!("../../../tests/data/pool-ready-raised.bin");
const ACK: &[u8] =
    b"\x80\x04\x95\x18\0\0\0\0\0\0\0\x4b\0\x28\x4b\x07\x4e\x47\x40\x94\x1c\x5d\xb1\xd1\xa7\x5b\x4d\x31\x30\x4e\x74\x94\x86\x94.";

/// Scenario: recorded frames of each kind.
/// Guarantees: job, name, ids, retries and exception class are read.
#[test]
fn recorded_frames() {
    let Some(PoolFrame::Task(task)) = parse(true, TASK) else {
        panic!("no task")
    };
    assert_eq!(task.name, "capapp.boom");
    assert_eq!(task.id.len(), 36);
    assert_eq!((task.retries, task.parent_id), (Some(0), Some(None)));
    assert_eq!(task.root_id, Some(Some(task.id)));
    assert_eq!(parse(false, ACK), Some(PoolFrame::Ack { job: 7 }));
    let Some(PoolFrame::Ready { outcome, .. }) = parse(false, RAISED) else {
        panic!("no ready")
    };
    assert_eq!(
        outcome,
        Outcome::Raised {
            module: "builtins",
            class: "ValueError"
        }
    );
}

/// Scenario: the same frames cut at every byte, and with every byte changed.
/// Guarantees: no panic; what a cut frame tells is a part of what the whole one tells.
#[test]
fn cut_and_broken_frames() {
    for (read, whole) in [(true, TASK), (false, RAISED), (false, ACK)] {
        for cut in 0..whole.len() {
            let part = parse(read, &whole[..cut]);
            if let (Some(PoolFrame::Task(part)), Some(PoolFrame::Task(task))) = (part, parse(read, whole)) {
                assert_eq!((part.id, part.name), (task.id, task.name));
                assert!(part.retries.is_none() || part.retries == task.retries);
                assert!(part.root_id.is_none() || part.root_id == task.root_id);
            }
            let mut broken = whole.to_vec();
            for value in [0, 0x28, 0x58, 0x8c, 0xff] {
                broken[cut] = value;
                let _ = parse(read, &broken);
            }
        }
    }
}

/// Frames as they are written nearly always, and in other ways: jobs of one, two and four bytes, one that is negative,
/// another function, a root that refers to what stands at the beginning, exceptions and a failure to tell of them.
fn written() -> Vec<(bool, Vec<u8>)> {
    let jobs: [&[u8]; 5] = [
        b"K\x07",
        b"M\x07\x01",
        b"J\x07\0\x01\0",
        b"J\xff\xff\xff\xff",
        b"N",
    ];
    let root = TASK
        .windows(10)
        .position(|w| w == b"\x8c\x07root_id\x94")
        .unwrap();
    let function = TASK.windows(9).position(|w| w == b"fast_trac").unwrap();
    let mut all = Vec::new();
    for (read, whole) in [(true, TASK), (false, RAISED), (false, ACK)] {
        // The job is a single byte in all of them.
        let (before, after) = (&whole[..14], &whole[16..]);
        all.extend(jobs.map(|job| (read, [before, job, after].concat())));
    }
    for name in [&b"x"[..], b"\xff"] {
        let (before, after) = (&TASK[..function - 1], &TASK[function + 15..]);
        all.push((true, [before, &[name.len() as u8], name, after].concat()));
    }
    for index in 0..30 {
        let (before, after) = (&TASK[..root + 10], &TASK[root + 10 + 39..]);
        all.push((true, [before, b"h", &[index], after].concat()));
    }
    for end in [&b"\x88K\0X"[..], b"\x88K\x01", b"\x89K\0", b"\x88M\0\0", b"\x88N"] {
        all.push((false, [&b"\x80\x05\x95........K\x01(K\x07N"[..], end].concat()));
    }
    all
}

/// Scenario: frames as they are written nearly always and in other ways, whole and cut anywhere, and the same with what
/// says nothing put in at each place where it may stand, so that they are read token by token.
/// Guarantees: both tell the same.
#[test]
fn short_cuts_tell_the_same() {
    for (read, whole) in written() {
        for cut in PREAMBLE..=whole.len() {
            let frame = &whole[..cut];
            let mut pickle = Pickle::new(&frame[PREAMBLE..]);
            let mut slow = frame[..PREAMBLE].to_vec();
            while !pickle.rest.is_empty() {
                let before = pickle.rest;
                let ended = pickle.any().is_none();
                let token = &before[..before.len() - pickle.rest.len()];
                // Not between a list or dict and what fills it.
                if !matches!(before, [b'(' | 0x94, ..]) {
                    slow.extend_from_slice(b"\x95........");
                }
                slow.extend_from_slice(if ended { before } else { token });
                if ended {
                    break;
                }
            }
            assert_eq!(parse(read, &slow), parse(read, frame), "{frame:?}");
        }
    }
}

/// Scenario: the right bytes in the wrong direction, and text that only looks alike.
/// Guarantees: not a frame.
#[test]
fn not_a_frame() {
    assert_eq!(parse(false, TASK), None);
    assert_eq!(parse(true, ACK), None);
    assert_eq!(parse(true, b""), None);
    assert_eq!(
        parse(true, b"\x80\x05\x95........K\x02(K\0Ncelery.app.trace"),
        None
    );
}
