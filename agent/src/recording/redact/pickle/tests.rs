use celeryscope_common::{Header, Kind, Record, flags};

use super::super::tests::{TRACEPARENT, assert_clean};
use super::super::{MASK, Redactor};

/// A TASK frame in pickle protocol 5, in the shape billiard and celery 5.7 give it.
fn task_frame() -> Vec<u8> {
    let mut out = b"\x80\x05\x95\xd9\x03\0\0\0\0\0\0K\x02(K\x00N".to_vec();
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend([0x8c, u8::try_from(text.len()).unwrap()]);
        out.extend(text.bytes());
        out.push(0x94);
    };
    text(&mut out, "celery.app.trace");
    text(&mut out, "fast_trace_task");
    out.extend(b"\x93\x94(");
    text(&mut out, "shop.pay");
    text(&mut out, "d5706acd");
    out.extend(b"}\x94(");
    for (key, value) in [
        ("lang", "py"),
        ("argsrepr", "('sekret', 4242)"),
        ("origin", "gen1@h"),
        ("custom", "SECRET"),
    ] {
        text(&mut out, key);
        text(&mut out, value);
    }
    text(&mut out, "timelimit");
    out.extend(b"]\x94(NNe");
    text(&mut out, "stamps");
    out.extend(b"}\x94");
    text(&mut out, "tenant");
    text(&mut out, "tenant-7");
    out.extend(b"s");
    text(&mut out, "custom-table");
    out.extend(b"}\x94");
    text(&mut out, "hunter2");
    out.extend(b"K\x01s");
    text(&mut out, "traceparent");
    text(&mut out, TRACEPARENT);
    text(&mut out, "properties");
    out.extend(b"}\x94(");
    text(&mut out, "delivery_info");
    out.extend(b"}\x94(");
    text(&mut out, "routing_key");
    text(&mut out, "celery");
    text(&mut out, "exchange");
    out.extend(b"h\x0bu");
    text(&mut out, "reply_to");
    text(&mut out, "0feca74f");
    out.extend(b"u");
    text(&mut out, "hostname");
    text(&mut out, "w1@h");
    text(&mut out, "args");
    out.extend(b"]\x94");
    text(&mut out, "sekret");
    out.extend(b"a");
    text(&mut out, "kwargs");
    out.extend(b"}\x94");
    text(&mut out, "retries");
    out.extend(b"K\x03uC\x1c[[\"sekret\", 4242], {}, SECRET]\x94");
    text(&mut out, "application/json");
    out.extend(b"t\x94}\x94t\x94\x86\x94.");
    out
}

fn pipe(kind: Kind, at: u32, flags: u16, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        conn: 9,
        at,
        flags,
        ..Header::default()
    };
    Redactor::default()
        .mask(&Record::new(kind, header, payload))
        .payload
        .to_vec()
}

/// Scenario: a TASK frame, captured whole and to every shorter length.
/// Guarantees: no secret at any length; name, ids, listed headers, queue, worker and trace context stay as far as they
/// were captured.
#[test]
fn task_frames_are_masked() {
    let frame = task_frame();
    let masked = pipe(Kind::PipeRead, 0, flags::LAST, &frame);
    assert_clean(&masked);
    let text = String::from_utf8_lossy(&masked);
    for kept in [
        "shop.pay",
        "d5706acd",
        "gen1@h",
        TRACEPARENT,
        "celery",
        "0feca74f",
        "w1@h",
        "custom",
        "custom-table",
        "kwargs",
    ] {
        assert!(text.contains(kept), "{kept} is not in {text}");
    }
    assert!(
        masked.windows(4).any(|window| window == b"\x94K\x03u"),
        "retries after the containers"
    );
    for length in 0..frame.len() {
        let cut = pipe(Kind::PipeRead, 0, 0, &frame[..length]);
        assert_clean(&cut);
        let same = cut.iter().zip(&masked).take_while(|(a, b)| a == b).count();
        // A container cut in its first element can't be told from an empty one; nothing else may differ.
        assert!(same + 40 >= length, "{same} of {length}");
    }
    assert!(
        pipe(Kind::PipeRead, 0, 0, b"\x80\x05\x95hunter2")
            .iter()
            .all(|byte| *byte == MASK)
    );
    assert!(
        pipe(Kind::PipeRead, 512, 0, b"hunter2")
            .iter()
            .all(|byte| *byte == MASK)
    );
}

/// Scenario: what children answer: accepted, done, failed, and the last bytes of a long success.
/// Guarantees: results and messages go; type, job, times, pid, outcome, exception class and runtime stay.
#[test]
fn answers_are_masked() {
    let ack = b"\x80\x04\x95\x18\0\0\0\0\0\0\0K\x00(K\x05NG\x40\x94\x1c\x5d\xb1\xd1\xa7\x5bM\x31\x30Nt\x94\x86\x94.";
    assert_eq!(pipe(Kind::PipeWrite, 0, flags::LAST, ack), ack);

    let end = b"\x94G\x3f\xf0\0\0\0\0\0\0\x87\x94\x86\x94K\x08t\x94\x86\x94.";
    let done = [
        b"\x80\x04\x95\x20\0\0\0\0\0\0\0K\x01(K\x05N\x88K\x00\x8c\x07hunter2".as_slice(),
        end,
    ]
    .concat();
    let masked = pipe(Kind::PipeWrite, 0, flags::LAST, &done);
    assert_clean(&masked);
    assert_eq!(&masked[..22], &done[..22]);
    assert_eq!(&masked[masked.len() - end.len() + 1..], &end[1..]);

    let failed = b"\x80\x04\x95\x20\0\0\0\0\0\0\0K\x01(K\x05N\x88K\x01\x8c\x0ebilliard.einfo\x94\x8c\x0dExceptionInfo\x94\x93\x94)\x81\x94}\x94(\x8c\x04type\x94\x8c\x08builtins\x94\x8c\x0aValueError\x94\x93\x94\x8c\x09exception\x94\x8c\x06SECRET\x94";
    let masked = pipe(Kind::PipeWrite, 0, 0, failed);
    assert_clean(&masked);
    assert!(masked.windows(10).any(|window| window == b"ValueError"));

    let tail = [b"hunter2hunter2".as_slice(), end].concat();
    let masked = pipe(Kind::PipeWrite, 4000, flags::LAST, &tail[tail.len() - 32..]);
    assert_clean(&masked);
    assert_eq!(&masked[32 - end.len() + 1..], &end[1..]);
}
