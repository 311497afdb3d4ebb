mod foreign;

use super::*;

use celeryscope_common::Header;

const SECRETS: [&str; 7] = [
    "hunter2",
    "SECRET",
    "c2VjcmV0",
    "4242",
    "sekret",
    "Traceback",
    "tenant-7",
];
pub(super) const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn command(args: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len());
    for arg in args {
        out += &format!("${}\r\n{arg}\r\n", arg.len());
    }
    out.into_bytes()
}

fn envelope() -> String {
    format!(
        r#"{{"body": "c2VjcmV0c2VjcmV0", "content-encoding": "utf-8", "content-type": "application/json", "headers": {{"lang": "py", "task": "shop.pay", "id": "d5706acd", "shadow": null, "retries": 0, "timelimit": [null, 30], "root_id": "d5706acd", "argsrepr": "('sekret', \"quo\\\"ted SECRET\", 4242)", "kwargsrepr": "{{'k': 'sekret'}}", "origin": "gen1@h", "stamps": {{"tenant": "tenant-7"}}, "x-custom": ["sekret", 4242], "traceparent": "{TRACEPARENT}", "baggage": "k=sekret"}}, "properties": {{"correlation_id": "d5706acd", "delivery_info": {{"exchange": "", "routing_key": "celery"}}, "priority": 0, "body_encoding": "base64", "delivery_tag": "d8f9c8ab"}}}}"#
    )
}

/// What a client sends: everything that may hold a secret, and what must survive.
fn requests() -> Vec<u8> {
    commands().concat()
}

fn commands() -> Vec<Vec<u8>> {
    let envelope = envelope();
    let meta = r#"{"status": "SUCCESS", "result": {"pid": "sekret", "SECRET": [4242]}, "traceback": null, "children": [[["c1d2", null], null]], "task_id": "d5706acd"}"#;
    let failure = r#"{"status": "FAILURE", "result": {"exc_type": "ValueError", "exc_message": ["SECRET", 4242], "exc_module": "builtins"}, "traceback": "Traceback SECRET", "task_id": "d5706acd"}"#;
    let started =
        r#"{"status": "STARTED", "result": {"pid": 19450, "hostname": "w1@h"}, "task_id": "d5706acd"}"#;
    let unacked = format!(r#"[{envelope}, "", "celery"]"#);
    vec![
        command(&["AUTH", "app", "hunter2"]),
        command(&["HELLO", "3", "AUTH", "hunter2", "hunter2", "SETNAME", "shop"]),
        command(&["auth", "hunter2"]),
        command(&["CONFIG", "SET", "requirepass", "hunter2"]),
        command(&["LPUSH", "celery\x06\x163", &envelope]),
        command(&["HSET", "unacked", "d8f9c8ab", &unacked]),
        command(&["ZADD", "unacked_index", "1795186876.5", "d8f9c8ab"]),
        command(&["SETEX", "celery-task-meta-d5706acd", "86400", meta]),
        command(&["PUBLISH", "celery-task-meta-d5706acd", failure]),
        command(&["SETEX", "celery-task-meta-d5706acd", "86400", started]),
        command(&[
            "ZADD",
            "celery-taskset-meta-g1.j",
            "1",
            r#"[1, "d5706acd", "SUCCESS", "SECRET"]"#,
        ]),
        command(&[
            "EVALSHA",
            "abc123",
            "2",
            "celery-taskset-meta-g1.j",
            "k2",
            "hunter2",
        ]),
        command(&[
            "SET",
            "session:1",
            r#"{"user": "sekret", "card": 4242, "body": "SECRET"}"#,
        ]),
        command(&["SET", "session:2", "hunter2", "EX", "60"]),
        command(&["SADD", "emails", "sekret"]),
        command(&["FROB", "sekret"]),
        command(&["BRPOP", "celery", "celery\x06\x163", "1"]),
    ]
}

fn replies() -> Vec<u8> {
    let envelope = envelope();
    [
        b"+OK\r\n:1\r\n_\r\n*-1\r\n$-1\r\n-ERR unknown command 'hunter2'\r\n".to_vec(),
        format!("*2\r\n$6\r\ncelery\r\n${}\r\n{envelope}\r\n", envelope.len()).into_bytes(),
        format!(
            ">3\r\n$7\r\nmessage\r\n$4\r\nchan\r\n${}\r\n{envelope}\r\n",
            envelope.len()
        )
        .into_bytes(),
    ]
    .concat()
}

/// One transfer, as records cut at these places.
pub(super) fn transfer(
    kind: Kind,
    start: usize,
    bytes: &[u8],
    cuts: &[usize],
) -> Vec<(Header, Kind, Vec<u8>)> {
    let mut places = vec![0];
    places.extend(cuts);
    places.push(bytes.len());
    places
        .windows(2)
        .map(|pair| {
            let header = Header {
                conn: 1,
                start: start as u64,
                at: u32::try_from(pair[0]).unwrap(),
                total: u32::try_from(bytes.len()).unwrap(),
                ..Header::default()
            };
            (header, kind, bytes[pair[0]..pair[1]].to_vec())
        })
        .collect()
}

pub(super) fn open(redactor: &mut Redactor, flags: u16) {
    let header = Header {
        conn: 1,
        flags,
        ..Header::default()
    };
    redactor.mask(&Record::new(Kind::Open, header, &[]));
}

pub(super) fn run(redactor: &mut Redactor, records: &[(Header, Kind, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (header, kind, payload) in records {
        let record = Record::new(*kind, *header, payload);
        let masked = redactor.mask(&record);
        assert_eq!(masked.payload.len(), payload.len());
        out.extend_from_slice(masked.payload);
    }
    out
}

pub(super) fn assert_clean(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

/// Scenario: all that a client sends, in one piece.
/// Guarantees: no secret is left; framing, names, ids, keys, statuses, the exception's class and the trace context are.
#[test]
fn requests_are_masked() {
    let mut redactor = Redactor::default();
    open(&mut redactor, 0);
    let bytes = requests();
    let masked = run(&mut redactor, &transfer(Kind::Send, 0, &bytes, &[]));
    assert_clean(&masked);
    let text = String::from_utf8(masked).unwrap();
    for kept in [
        "$5\r\nLPUSH\r\n$9\r\ncelery\x06\x163\r\n",
        "*7\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n$7\r\nxxxxxxx\r\n$7\r\nxxxxxxx\r\n$7\r\nSETNAME\r\n$4\r\nshop\r\n",
        r#"{"body": "xxxxxxxxxxxxxxxx", "content-encoding": "utf-8""#,
        r#""task": "shop.pay", "id": "d5706acd", "shadow": null, "retries": 0, "timelimit": [null, 30]"#,
        r#""argsrepr": "xxxx"#,
        r#""stamps": {"#,
        r#""x-custom": ["xxxxxx", 1111]"#,
        r#""delivery_info": {"exchange": "", "routing_key": "celery"}"#,
        r#"}}, "", "celery"]"#,
        TRACEPARENT,
        r#""result": {"exc_type": "ValueError", "exc_message": ["xxxxxx", 1111], "exc_module": "builtins"}"#,
        r#""result": {"pid": 19450, "hostname": "w1@h"}"#,
        r#""children": [[["c1d2", null], null]]"#,
        "1795186876.5\r\n",
        "\r\n86400\r\n",
        "celery-taskset-meta-g1.j\r\n$2\r\nk2\r\n",
    ] {
        assert!(text.contains(kept), "{kept:?} is not in {text}");
    }
    // JSON stays JSON.
    let start = text.find("{\"body\"").unwrap();
    let length = envelope().len();
    serde_json::from_str::<serde_json::Value>(&text[start..start + length]).unwrap();
}

/// Scenario: replies to BRPOP and pushed messages; then the reply to a GET of another program's value.
/// Guarantees: queue and channel stay where the command's replies hold such names, the other value goes.
#[test]
fn replies_are_masked() {
    let mut redactor = Redactor::default();
    open(&mut redactor, 0);
    let mut asked = command(&["BRPOP", "celery", "1"]).repeat(7);
    asked.extend(command(&["SUBSCRIBE", "chan"]));
    run(&mut redactor, &transfer(Kind::Send, 0, &asked, &[]));
    let bytes = replies();
    let masked = run(&mut redactor, &transfer(Kind::Recv, 0, &bytes, &[]));
    assert_clean(&masked);
    let text = String::from_utf8(masked).unwrap();
    for kept in [
        "+OK\r\n:1\r\n_\r\n*-1\r\n$-1\r\n-ERR xxx",
        "$6\r\ncelery\r\n",
        "$4\r\nchan\r\n",
        "shop.pay",
        TRACEPARENT,
    ] {
        assert!(text.contains(kept), "{kept:?} is not in {text}");
    }
    let get = command(&["GET", "session"]);
    run(&mut redactor, &transfer(Kind::Send, asked.len() + 40, &get, &[]));
    let reply = run(
        &mut redactor,
        &transfer(Kind::Recv, bytes.len(), b"$7\r\nhunter2\r\n", &[]),
    );
    // The gap in the requests (40) is one more reason to mask; the framing is known all the same.
    assert_clean(&reply);
}

/// Scenario: both directions cut into two records at every byte.
/// Guarantees: exactly the bytes that come out uncut.
#[test]
fn cuts_change_nothing() {
    let brpop = command(&["BRPOP", "celery", "1"]);
    for (kind, bytes) in [(Kind::Send, requests()), (Kind::Recv, replies())] {
        let masked = |cuts: &[usize]| {
            let mut redactor = Redactor::default();
            open(&mut redactor, 0);
            let mut start = 0;
            if kind == Kind::Recv {
                run(&mut redactor, &transfer(Kind::Send, 0, &brpop, &[]));
            } else {
                start = brpop.len();
                run(&mut redactor, &transfer(Kind::Send, 0, &brpop, &[]));
            }
            run(&mut redactor, &transfer(kind, start, &bytes, cuts))
        };
        let whole = masked(&[]);
        assert_clean(&whole);
        for cut in 1..bytes.len() {
            assert_eq!(masked(&[cut]), whole, "cut at {cut}");
        }
    }
}

/// Scenario: of each command and its successor, and of the replies, any stretch is missing.
/// Guarantees: no secret comes out, wherever the gap lies and however long it is.
#[test]
fn gaps_leak_nothing() {
    let brpop = command(&["BRPOP", "celery", "1"]);
    let mut streams: Vec<_> = commands()
        .into_iter()
        .map(|command| (Kind::Send, command))
        .collect();
    streams.push((Kind::Recv, replies()));
    for (kind, mut bytes) in streams {
        bytes.extend_from_slice(&brpop);
        for from in 1..bytes.len() {
            for length in [1, 2, 7, 40, 300] {
                let to = (from + length).min(bytes.len());
                let mut redactor = Redactor::default();
                open(&mut redactor, 0);
                run(&mut redactor, &transfer(Kind::Send, 0, &brpop, &[]));
                let start = if kind == Kind::Send { brpop.len() } else { 0 };
                let mut records = transfer(kind, start, &bytes, &[from, to]);
                records.remove(1);
                assert_clean(&run(&mut redactor, &records));
            }
        }
    }
}

/// Scenario: a poll and its answer, then a command of which the beginning is missing, and the answer to that.
/// Guarantees: the second answer is not taken for names.
#[test]
fn answers_to_what_was_lost_are_masked() {
    let brpop = command(&["BRPOP", "celery", "1"]);
    let polled = command(&["celery", "{}"]);
    let get = command(&["GET", "session"]);
    for from in 1..get.len() {
        let mut redactor = Redactor::default();
        open(&mut redactor, 0);
        run(&mut redactor, &transfer(Kind::Send, 0, &brpop, &[]));
        run(&mut redactor, &transfer(Kind::Recv, 0, &polled, &[]));
        let mut records = transfer(Kind::Send, brpop.len(), &get, &[from]);
        records.remove(0);
        run(&mut redactor, &records);
        let answer = transfer(Kind::Recv, polled.len(), b"$7\r\nhunter2\r\n", &[]);
        assert_clean(&run(&mut redactor, &answer));
    }
}

/// Scenario: a poll and its answer, in one record or in several, then the answer to a command of which nothing was captured; the
/// same after a poll that was itself not answered, and while messages are subscribed to.
/// Guarantees: what nobody is known to have asked for is not taken for names; what was asked for is.
#[test]
fn answers_to_commands_that_were_not_seen_are_masked() {
    let ask = |words: &[&str]| (Kind::Send, command(words));
    let answer = |text: &str| (Kind::Recv, text.as_bytes().to_vec());
    let brpop = || ask(&["BRPOP", "celery", "1"]);
    let polled = "*2\r\n$6\r\ncelery\r\n$2\r\n{}\r\n";
    let message = "*3\r\n$7\r\nmessage\r\n$4\r\nchan\r\n$2\r\n{}\r\n";
    let before = [
        vec![brpop(), answer(polled)],
        vec![brpop(), answer(&polled[..9]), answer(&polled[9..])],
        vec![brpop(), answer("*-1\r\n")],
        vec![brpop(), brpop(), answer(polled), answer(polled)],
        vec![ask(&["SUBSCRIBE", "chan"]), answer(message), answer(message)],
    ];
    for before in before {
        for lost in [
            "$7\r\nhunter2\r\n",
            "=11\r\ntxt:hunter2\r\n",
            "~1\r\n$7\r\nhunter2\r\n",
        ] {
            let mut redactor = Redactor::default();
            open(&mut redactor, 0);
            let (mut sent, mut received, mut shown) = (0, 0, Vec::new());
            for (kind, bytes) in before.iter().cloned().chain([answer(lost)]) {
                let at = if kind == Kind::Send {
                    &mut sent
                } else {
                    &mut received
                };
                let masked = run(&mut redactor, &transfer(kind, *at, &bytes, &[]));
                *at += bytes.len();
                if kind == Kind::Recv {
                    shown.extend(masked);
                }
            }
            assert_clean(&shown);
            let asked_for: Vec<u8> = before
                .iter()
                .filter(|(kind, _)| *kind == Kind::Recv)
                .flat_map(|(_, bytes)| bytes.clone())
                .collect();
            assert!(
                shown.starts_with(&asked_for),
                "{}",
                String::from_utf8_lossy(&shown)
            );
        }
    }
}

/// Scenario: statuses and errors, Redis's own and such as scripts make up.
/// Guarantees: only Redis's own words are shown, and of others no more than they have in common with them.
#[test]
fn statuses_of_scripts_are_masked() {
    let mut redactor = Redactor::default();
    open(&mut redactor, 0);
    run(&mut redactor, &transfer(Kind::Send, 0, &command(&["PING"]), &[]));
    let replies = b"+OK\r\n+QUEUED\r\n-WRONGTYPE Operation\r\n+hunter2\r\n+SECRET\r\n-hunter2 hunter2\r\n-ERRhunter2\r\n+OKhunter2\r\n";
    let masked = run(&mut redactor, &transfer(Kind::Recv, 0, replies, &[]));
    assert_eq!(
        String::from_utf8(masked).unwrap(),
        "+OK\r\n+QUEUED\r\n-WRONGTYPE xxxxxxxxx\r\n+xxxxxxx\r\n+xxxxxx\r\n-xxxxxxx xxxxxxx\r\n-ERRxxxxxxx\r\n+OKxxxxxxx\r\n"
    );
}

/// Scenario: the middle of a big body was not captured.
/// Guarantees: the headers after it are clear again, the body's end is not.
#[test]
fn headers_survive_a_gap_in_the_body() {
    let mut big = envelope();
    big.insert_str(big.find("c2Vj").unwrap(), &"c2VjcmV0".repeat(100));
    let bytes = command(&["LPUSH", "celery", &big]);
    let mut redactor = Redactor::default();
    open(&mut redactor, 0);
    let mut records = transfer(Kind::Send, 0, &bytes, &[100, 700]);
    records.remove(1);
    let masked = run(&mut redactor, &records);
    assert_clean(&masked);
    let text = String::from_utf8(masked).unwrap();
    assert!(text.contains(
        r#"xxxx", "content-encoding": "utf-8", "content-type": "application/json", "headers": {"lang""#
    ));
    assert!(text.contains(TRACEPARENT) && text.contains("shop.pay"));
}

/// Scenario: a connection entered in the middle.
/// Guarantees: all is masked until a transfer begins with a command.
#[test]
fn unknown_streams_are_masked_whole() {
    let mut redactor = Redactor::default();
    open(&mut redactor, flags::MIDSTREAM);
    let tail = b"hunter2\", \"task\": \"shop.pay\"}\r\n";
    assert!(
        run(&mut redactor, &transfer(Kind::Send, 0, tail, &[]))
            .iter()
            .all(|byte| *byte == MASK)
    );
    let brpop = command(&["BRPOP", "celery", "1"]);
    assert_eq!(
        run(&mut redactor, &transfer(Kind::Send, tail.len(), &brpop, &[])),
        brpop
    );
}

/// Scenario: polls are left out between two polls, and, so it is said, within a value; with and without secrets after.
/// Guarantees: between commands masking goes on as if nothing had been left out; within a value all is masked until a call begins
/// with a command. What says so stays as it is.
#[test]
fn polls_that_are_left_out() {
    let poll = command(&["BRPOP", "celery", "1"]);
    let idle = |redactor: &mut Redactor, sent: usize, received: usize| {
        let left_out = |start: usize| LeftOut {
            start: start as u64,
            bytes: 100,
        };
        let payload = Idle {
            sent: left_out(sent),
            received: left_out(received),
        }
        .to_bytes();
        let header = Header {
            conn: 1,
            ..Header::default()
        };
        let record = Record::new(Kind::Idle, header, &payload);
        assert_eq!(redactor.mask(&record), record);
    };
    let mut redactor = Redactor::default();
    open(&mut redactor, 0);
    run(&mut redactor, &transfer(Kind::Send, 0, &poll, &[]));
    run(&mut redactor, &transfer(Kind::Recv, 0, b"_\r\n", &[]));
    idle(&mut redactor, poll.len(), 3);
    let sent = poll.len() + 100;
    // In two calls: after a gap the second would be masked.
    let (first, second) = poll.split_at(9);
    assert_eq!(run(&mut redactor, &transfer(Kind::Send, sent, first, &[])), first);
    assert_eq!(
        run(&mut redactor, &transfer(Kind::Send, sent + 9, second, &[])),
        second
    );
    let reply = command(&["celery", &envelope()]);
    let masked = run(&mut redactor, &transfer(Kind::Recv, 103, &reply, &[]));
    assert_clean(&masked);
    assert!(String::from_utf8_lossy(&masked).contains("$6\r\ncelery\r\n"));

    let set = command(&["SET", "session", "hunter2 hunter2 hunter2"]);
    let (head, tail) = set.split_at(set.len() - 18);
    let sent = sent + poll.len();
    run(&mut redactor, &transfer(Kind::Send, sent, head, &[]));
    idle(&mut redactor, sent + head.len(), 103 + reply.len());
    let masked = run(
        &mut redactor,
        &transfer(Kind::Send, sent + head.len() + 100, tail, &[]),
    );
    assert!(
        masked.iter().all(|byte| *byte == MASK),
        "{}",
        masked.escape_ascii()
    );
}
