use celeryscope_common::{Kind, flags};

use super::super::tests::{TRACEPARENT, assert_clean, open, run, transfer};
use super::super::{MASK, Redactor};

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(channel.to_be_bytes());
    out.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    out.extend(payload);
    out.push(0xce);
    out
}

fn short(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

fn long(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[kind], &len[..], bytes].concat()
}

fn table(fields: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let fields = fields
        .iter()
        .map(|(name, value)| [short(name), value.clone()].concat());
    fields.collect::<Vec<_>>().concat()
}

fn text(value: &str) -> Vec<u8> {
    long(b'S', value.as_bytes())
}

/// Content header and body frames of a message of this type.
fn content(content_type: &str, body: &[u8]) -> Vec<u8> {
    let headers = table(&[
        ("task", text("shop.pay")),
        ("argsrepr", text("('sekret', 4242)")),
        ("retries", b"I\0\0\0\x03".to_vec()),
        ("timelimit", long(b'A', b"Vb\x1e")),
        ("stamps", long(b'F', &table(&[("tenant", text("tenant-7"))]))),
        (
            "headers",
            long(
                b'F',
                &table(&[("sentry-trace", text("0123-4567-1")), ("card", text("sekret"))]),
            ),
        ),
        (
            "x-custom",
            long(b'A', &[text("sekret"), b"I\0\0\x10\x92".to_vec()].concat()),
        ),
        ("blob", long(b'x', b"SECRET")),
        (
            "deep",
            (0..20).fold(text("sekret"), |value, _| long(b'A', &value)),
        ),
        ("traceparent", text(TRACEPARENT)),
    ]);
    let mut header = vec![0, 60, 0, 0];
    header.extend((body.len() as u64).to_be_bytes());
    header.extend([0xff, 0xfc]);
    header.extend(short(content_type));
    header.extend(short("utf-8"));
    header.extend(u32::try_from(headers.len()).unwrap().to_be_bytes());
    header.extend(headers);
    header.extend([2, 7]);
    for property in ["d5706acd", "0feca74f", "30000", "SECRET"] {
        header.extend(short(property));
    }
    header.extend(1_795_186_876_u64.to_be_bytes());
    for property in ["kind", "hunter2", "hunter2", "hunter2"] {
        header.extend(short(property));
    }
    let (first, rest) = body.split_at(body.len() / 2);
    [
        frame(2, 1, &header),
        frame(3, 1, first),
        frame(8, 0, b""),
        frame(3, 1, rest),
    ]
    .concat()
}

const RESULT: &[u8] = br#"{"status": "FAILURE", "result": {"exc_type": "ValueError", "exc_message": ["SECRET"]}, "traceback": "Traceback SECRET", "task_id": "d5706acd"}"#;

/// What a client sends: everything that may hold a secret, and what must survive.
fn sent() -> Vec<Vec<u8>> {
    let publish = frame(
        1,
        1,
        &[b"\0\x3c\0\x28\0\0".to_vec(), short(""), short("celery"), vec![0]].concat(),
    );
    let start_ok = [
        b"\0\x0a\0\x0b".to_vec(),
        long(b'F', &table(&[("product", text("SECRET"))]))[1..].to_vec(),
        short("PLAIN"),
        long(b'S', b"\0app\0hunter2")[1..].to_vec(),
        short("en_US"),
    ]
    .concat();
    let consume = [
        b"\0\x3c\0\x14\0\0".to_vec(),
        short("celery"),
        short("None4"),
        vec![0],
        table(&[("x-token", text("hunter2"))]),
    ]
    .concat();
    let declare = [b"\0\x32\0\x0a\0\0".to_vec(), short("SECRET"), vec![0; 5]].concat();
    vec![
        b"AMQP\0\0\x09\x01".to_vec(),
        frame(1, 0, &start_ok),
        frame(1, 0, b"\0\x0a\0\x1f\x07\xff\0\x02\0\0\0\x3c"),
        frame(
            1,
            0,
            &[b"\0\x0a\0\x46".to_vec(), text("hunter2"), short("hunter2")].concat(),
        ),
        frame(1, 1, b"\0\x14\0\x0a\0"),
        frame(1, 1, &declare),
        frame(1, 1, &consume),
        [
            publish.clone(),
            content("application/json", br#"[["sekret", 4242], {"k": "SECRET"}, {}]"#),
        ]
        .concat(),
        [publish.clone(), content("application/json", RESULT)].concat(),
        [
            publish.clone(),
            content("application/x-python-serialize", b"{sekret SECRET hunter2}"),
        ]
        .concat(),
        [
            publish,
            content("application/json", br#"{"user": "sekret", "status": "SECRET"}"#),
        ]
        .concat(),
        frame(1, 1, b"\0\x3c\0\x50\0\0\0\0\0\0\0\x07\0"),
    ]
}

fn masked(kind: Kind, bytes: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut redactor = Redactor::default();
    open(&mut redactor, 0);
    run(&mut redactor, &transfer(kind, 0, bytes, cuts))
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

/// Scenario: all that a client sends, in one piece; the same as what it receives.
/// Guarantees: no secret is left; framing, methods, ids, names, numbers and the trace context are, and of results the
/// status and the exception's class.
#[test]
fn frames_are_masked() {
    let bytes = sent().concat();
    for kind in [Kind::Send, Kind::Recv] {
        let out = masked(kind, &bytes, &[]);
        assert_clean(&out);
        for kept in [
            &b"AMQP\0\0\x09\x01"[..],
            b"\0\x0a\0\x0bx",
            b"\0\x0a\0\x1f\x07\xff\0\x02\0\0\0\x3c\xce",
            b"\0\x0a\0\x46x",
            b"\0\x3c\0\x14\0\0\x06celery\x05None4\0x",
            b"\0\x3c\0\x28\0\0\0\x06celery\0\xce",
            b"\x10application/json\x05utf-8",
            b"\x04taskS\0\0\0\x08shop.pay",
            b"\x08argsreprS\0\0\0\x10xxxxxxxxxxxxxxxx",
            b"\x07retriesI\0\0\0\x03",
            b"\x09timelimitA\0\0\0\x03Vb\x1e",
            b"\x06stampsF\0\0\0\x14\x06xxxxxxS\0\0\0\x08xxxxxxxx",
            b"\x0csentry-traceS\0\0\0\x0b0123-4567-1",
            b"\x04cardS\0\0\0\x06xxxxxx",
            b"\x08x-customA",
            TRACEPARENT.as_bytes(),
            b"\x02\x07\x08d5706acd\x080feca74f\x0530000\x06xxxxxx",
            b"\x04kind\x07xxxxxxx",
            br#"{"status": "FAILURE", "result": {"exc_type": "#,
            br#""task_id": "d5706acd"}"#,
            b"\0\x3c\0\x50\0\0\0\0\0\0\0\x07\0\xce",
        ] {
            assert!(
                contains(&out, kept),
                "{} is not in {}",
                kept.escape_ascii(),
                out.escape_ascii()
            );
        }
    }
}

/// Scenario: all of it cut into two records at every byte.
/// Guarantees: exactly the bytes that come out uncut.
#[test]
fn cuts_change_nothing() {
    let bytes = sent().concat();
    let whole = masked(Kind::Send, &bytes, &[]);
    for cut in 1..bytes.len() {
        assert_eq!(masked(Kind::Send, &bytes, &[cut]), whole, "cut at {cut}");
    }
}

/// Scenario: of each method and message, and its successor, any stretch is missing.
/// Guarantees: no secret comes out, wherever the gap lies and however long it is.
#[test]
fn gaps_leak_nothing() {
    let units = sent();
    for pair in units.windows(2) {
        let bytes = [&units[0][..], &pair[0], &pair[1]].concat();
        for from in 9..bytes.len() {
            for length in [1, 2, 7, 40, 300] {
                let to = (from + length).min(bytes.len());
                let mut records = transfer(Kind::Send, 0, &bytes, &[from, to]);
                records.remove(1);
                let mut redactor = Redactor::default();
                open(&mut redactor, 0);
                assert_clean(&run(&mut redactor, &records));
            }
        }
    }
}

/// Scenario: a connection that is older than the recording, met inside a body; then a call that begins with a method.
/// Guarantees: all is masked until that call.
#[test]
fn met_in_the_middle() {
    let mut redactor = Redactor::default();
    open(&mut redactor, flags::MIDSTREAM);
    let mut start = 0;
    let ack = frame(1, 1, b"\0\x3c\0\x50\0\0\0\0\0\0\0\x07\0");
    for tail in [&b"sekret\"], {}, {}]"[..], b"\xce", &frame(3, 1, b"hunter2")] {
        let out = run(&mut redactor, &transfer(Kind::Send, start, tail, &[]));
        start += tail.len();
        assert!(out.iter().all(|byte| *byte == MASK), "{}", out.escape_ascii());
    }
    assert_eq!(run(&mut redactor, &transfer(Kind::Send, start, &ack, &[])), ack);
}
