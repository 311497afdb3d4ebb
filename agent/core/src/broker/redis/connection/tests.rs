//! Made-up exchanges, one rule each; recorded ones are replayed in `tests/captures.rs`.

use celeryscope_common::Kind;

use super::RedisConnection;
use crate::Limits;
use crate::broker::Verdict;
use crate::broker::rig::Rig;
use crate::time::Mono;

fn rig() -> Rig<RedisConnection> {
    Rig::with(RedisConnection::new(&Limits::default(), Some(Mono(1))))
}

fn command(args: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn envelope(id: &str, redelivered: bool) -> String {
    format!(
        r#"{{"body": "W10=", "content-type": "application/json", "headers": {{"task": "t", "id": "{id}"}}, "properties": {{"delivery_tag": "tag-{id}", "delivery_info": {{"exchange": "", "routing_key": "celery", "redelivered": {redelivered}}}}}}}"#
    )
}

fn push(id: &str) -> Vec<u8> {
    command(&[b"LPUSH", b"shop:celery\x06\x163", envelope(id, false).as_bytes()])
}

/// Scenario: two publishes, one of them to a priority step behind a key prefix, in one call.
/// Guarantees: each is answered by its own reply; the destination is the queue's name.
#[test]
fn pipelined_publishes() {
    let mut rig = rig();
    assert_eq!(
        rig.send(&[push("1"), push("2")].concat()),
        ["publish 1 1 to celery", "publish 2 2 to celery"]
    );
    assert_eq!(rig.recv(b":1\r\n"), ["answered 1 at 25"]);
    assert_eq!(rig.recv(b":2\r\n"), ["answered 2 at 35"]);
    assert_eq!(rig.connection.verdict(), Verdict::Celery);
}

/// Scenario: a publish inside a transaction (a queue that expires).
/// Guarantees: it is one publish, answered by EXEC's reply and not by `+QUEUED`.
#[test]
fn publish_in_a_transaction() {
    let mut rig = rig();
    let sent = [
        command(&[b"MULTI"]),
        push("1"),
        command(&[b"PEXPIRE", b"celery", b"9"]),
        command(&[b"EXEC"]),
    ];
    assert_eq!(rig.send(&sent.concat()), ["publish 1 1 to celery"]);
    assert!(rig.recv(b"+OK\r\n+QUEUED\r\n+QUEUED\r\n").is_empty());
    assert_eq!(rig.recv(b"*2\r\n:1\r\n:1\r\n"), ["answered 1 at 35"]);
}

/// Scenario: a transaction that is discarded.
/// Guarantees: nothing was published.
#[test]
fn discarded_transaction() {
    let mut rig = rig();
    assert!(
        rig.send(&[command(&[b"MULTI"]), push("1"), command(&[b"DISCARD"])].concat())
            .is_empty()
    );
    assert!(rig.recv(b"+OK\r\n+QUEUED\r\n+OK\r\n").is_empty());
    let mut out = Vec::new();
    rig.connection.finish(&mut out);
    assert!(out.is_empty());
}

/// Scenario: a delivery, its copy in the unacked set, its ack.
/// Guarantees: one delivery and one ack; the copy is neither publish nor delivery.
#[test]
fn deliver_and_ack() {
    let mut rig = rig();
    assert_eq!(
        rig.send(&command(&[b"BRPOP", b"celery", b"celery\x06\x163", b"1"])),
        ["consumer"]
    );
    let reply = command(&[b"celery", envelope("1", false).as_bytes()]);
    assert_eq!(rig.recv(&reply), ["delivered 1 from celery"]);
    rig.known_tag = "tag-1";
    let copy = format!(r#"[{}, "", "celery"]"#, envelope("1", false));
    let hset = command(&[b"HSET", b"unacked", b"tag-1", copy.as_bytes()]);
    assert!(rig.send(&hset).is_empty());
    assert!(rig.recv(b":1\r\n").is_empty());
    assert_eq!(
        rig.send(&command(&[b"HDEL", b"unacked", b"tag-1"])),
        ["acked tag-1"]
    );
}

/// Scenario: the same copy, where the delivery itself was not seen.
/// Guarantees: the copy stands in for it.
#[test]
fn copy_of_an_unseen_delivery() {
    let mut rig = rig();
    let copy = format!(r#"[{}, "", "celery"]"#, envelope("1", false));
    let hset = command(&[b"HSET", b"unacked", b"tag-1", copy.as_bytes()]);
    assert_eq!(rig.send(&hset), ["delivered 1 from celery"]);
}

/// Scenario: a rejected message goes back to its queue, in one transaction.
/// Guarantees: a requeue, no ack and no publish.
#[test]
fn requeue() {
    let mut rig = rig();
    let back = command(&[b"LPUSH", b"celery", envelope("1", true).as_bytes()]);
    let sent = [
        command(&[b"MULTI"]),
        command(&[b"HDEL", b"unacked", b"tag-1"]),
        back,
        command(&[b"EXEC"]),
    ];
    assert_eq!(rig.send(&sent.concat()), ["requeued tag-1"]);
}

/// Scenario: RESP2 pub/sub: replies to SUBSCRIBE and messages are arrays.
/// Guarantees: messages deliver, and none is taken for the reply to a command.
#[test]
fn resp2_subscription() {
    let mut rig = rig();
    assert!(rig.send(&command(&[b"SUBSCRIBE", b"/0.bcast/celery"])).is_empty());
    assert!(
        rig.recv(b"*3\r\n$9\r\nsubscribe\r\n$15\r\n/0.bcast/celery\r\n:1\r\n")
            .is_empty()
    );
    let message = command(&[b"message", b"/0.bcast/celery", envelope("1", false).as_bytes()]);
    assert_eq!(rig.recv(&message), ["delivered 1 from bcast"]);
    let control = command(&[b"message", b"/0.celery.pidbox", envelope("2", false).as_bytes()]);
    assert!(rig.recv(&control).is_empty());
}

/// Scenario: a worker binds its mailbox for remote control by SADD, as kombu did, and by kombu 5.7's script; a client one for
/// replies.
/// Guarantees: the worker's name is told by the first; the second names nobody.
#[test]
fn mailboxes() {
    let mut rig = rig();
    let bind = |exchange: &str, queue: &str| {
        let (key, member) = (
            format!("_kombu.binding.{exchange}"),
            format!("\x06\x16\x06\x16{queue}"),
        );
        command(&[b"SADD", key.as_bytes(), member.as_bytes()])
    };
    assert_eq!(
        rig.send(&bind("celery.pidbox", "w1@host.celery.pidbox")),
        ["worker w1@host"]
    );
    let script: [&[u8]; 7] = [
        b"EVALSHA",
        b"ef7a9e205fbaf46bf959e1522ff796622fc676c7",
        b"2",
        b"_kombu.binding.celery.pidbox",
        b"_kombu.binding_deadlines",
        b"\x06\x16\x06\x16w2@host.celery.pidbox",
        b"celery.pidbox",
    ];
    assert_eq!(rig.send(&command(&script)), ["worker w2@host"]);
    assert!(
        rig.send(&bind("reply.celery.pidbox", "5f8f8be2.reply.celery.pidbox"))
            .is_empty()
    );
    assert!(rig.send(&bind("celery", "celery")).is_empty());
}

/// Scenario: a subscribed connection that is older than the agent, in both protocols.
/// Guarantees: the first message that begins a read is delivered, though nothing is ever sent.
#[test]
fn subscribed_before_the_agent_came() {
    for message in [
        command(&[b"message", b"/0.bcast/celery", envelope("1", false).as_bytes()]),
        [
            b">4\r\n".to_vec(),
            command(&[
                b"pmessage",
                b"/0.*",
                b"/0.bcast/celery",
                envelope("1", false).as_bytes(),
            ])
            .split_off(4),
        ]
        .concat(),
    ] {
        let mut rig = rig();
        rig.connection = RedisConnection::new(&Limits::default(), None);
        assert!(rig.recv(b"end of something\r\n").is_empty());
        assert_eq!(rig.recv(&message), ["delivered 1 from bcast"]);
    }
}

/// Scenario: the reply to a publish was not captured.
/// Guarantees: that publish is reported unanswered; the next pair is right.
#[test]
fn lost_reply() {
    let mut rig = rig();
    assert_eq!(rig.send(&push("1")).len(), 1);
    rig.lose(Kind::Recv, 4);
    assert_eq!(rig.send(&push("2")).len(), 1);
    let mut events = rig.recv(b":2\r\n");
    events.extend(rig.send(&push("3")));
    assert!(events.contains(&"unanswered 1".to_owned()), "{events:?}");
    assert!(!events.iter().any(|e| e.starts_with("answered 1")), "{events:?}");
    assert_eq!(rig.recv(b":3\r\n"), ["answered 3 at 55"]);
}

fn poll() -> Vec<u8> {
    command(&[b"BRPOP", b"celery", b"celery\x06\x163", b"1"])
}

fn message(id: &str) -> Vec<u8> {
    command(&[b"celery", envelope(id, false).as_bytes()])
}

/// Bytes in gaps, and bytes stepped over, of both directions.
fn missing(rig: &Rig<RedisConnection>) -> (u64, u64) {
    let (sent, received, ..) = rig.connection.layers();
    let (sent, received) = (sent.stats(), received.stats());
    (
        sent.gap_bytes + received.gap_bytes,
        sent.idle_bytes + received.idle_bytes,
    )
}

/// Scenario: a worker that waited: its first poll and its last are told, those between are left out with their answers. Once seen
/// from the start, once on a connection that is older and tells of what was left out before it tells anything else.
/// Guarantees: what the last poll brings is delivered; nothing is missed and no sync is lost.
#[test]
fn polls_that_are_left_out() {
    let mut rig = rig();
    assert_eq!(rig.send(&poll()), ["consumer"]);
    assert!(rig.recv(b"_\r\n").is_empty());
    assert!(rig.idle(9 * poll().len(), 9 * 3).is_empty());
    rig.send(&poll());
    assert_eq!(rig.recv(&message("1")), ["delivered 1 from celery"]);
    assert_eq!(missing(&rig), (0, 9 * (poll().len() as u64 + 3)));
    let stats = rig.connection.stats();
    assert_eq!(
        (stats.commands, stats.commands_unpaired, stats.replies_unpaired),
        (2, 0, 0)
    );

    let mut older = Rig::with(RedisConnection::new(&Limits::default(), None));
    older.lose(Kind::Send, 1000);
    older.lose(Kind::Recv, 70);
    older.idle(2 * poll().len(), 2 * 3);
    older.send(&poll());
    assert_eq!(older.recv(&message("1")), ["delivered 1 from celery"]);
    assert_eq!(missing(&older).0, 0);
}

/// Scenario: polls are said to be left out where they can't be: while a publish waits for its answer, whose record was lost; within a
/// command; within a reply; while another poll waits; in an open transaction.
/// Guarantees: each is a gap of that length. No answer goes to another command, and after the next poll all is right again.
#[test]
fn polls_that_cannot_be_left_out() {
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() - 9].to_vec();
    type Before = (Kind, Vec<u8>);
    let cases: [Vec<Before>; 5] = [
        vec![(Kind::Send, push("1"))],
        vec![(Kind::Send, cut(push("1")))],
        vec![(Kind::Send, poll()), (Kind::Recv, cut(message("1")))],
        vec![(Kind::Send, poll())],
        vec![
            (Kind::Send, command(&[b"MULTI"])),
            (Kind::Recv, b"+OK\r\n".to_vec()),
        ],
    ];
    for (n, before) in cases.into_iter().enumerate() {
        let mut rig = rig();
        let mut events = Vec::new();
        for (kind, bytes) in before {
            events.extend(match kind {
                Kind::Send => rig.send(&bytes),
                _ => rig.recv(&bytes),
            });
        }
        events.extend(rig.idle(2 * poll().len(), 2 * 3));
        let left_out = 2 * (poll().len() as u64 + 3);
        assert_eq!(missing(&rig), (left_out, 0), "case {n}");
        events.extend(rig.send(&poll()));
        events.extend(rig.recv(b"_\r\n"));
        assert!(
            !events
                .iter()
                .any(|e| e.starts_with("answered") || e.starts_with("delivered")),
            "case {n}: {events:?}"
        );
        rig.send(&poll());
        assert_eq!(rig.recv(&message("2")), ["delivered 2 from celery"], "case {n}");
        rig.send(&push("3"));
        assert_eq!(rig.recv(b":1\r\n").len(), 1, "case {n}");
    }
}

/// Scenario: what says that polls were left out is lost itself.
/// Guarantees: a gap in both directions; the poll after the next delivers again.
#[test]
fn what_was_left_out_is_not_told() {
    let mut rig = rig();
    rig.send(&poll());
    rig.recv(b"_\r\n");
    rig.lose(Kind::Send, 4 * poll().len());
    rig.lose(Kind::Recv, 4 * 3);
    rig.send(&poll());
    assert!(rig.recv(&message("1")).is_empty());
    rig.send(&poll());
    assert_eq!(rig.recv(&message("2")), ["delivered 2 from celery"]);
    assert_eq!(missing(&rig), (4 * (poll().len() as u64 + 3), 0));
}

/// Scenario: a cache on the same Redis, and programs that speak no RESP at all.
/// Guarantees: both are ignored after a few commands; set-up commands alone decide nothing.
#[test]
fn verdicts() {
    let mut cache = rig();
    for _ in 0..100 {
        cache.send(&command(&[b"PING"]));
    }
    assert_eq!(cache.connection.verdict(), Verdict::Unknown);
    for _ in 0..32 {
        cache.send(&command(&[b"GET", b"views:index"]));
    }
    assert_eq!(cache.connection.verdict(), Verdict::Ignore);
    cache.connection.reconsider();
    assert_eq!(cache.connection.verdict(), Verdict::Unknown);
    cache.send(&push("1"));
    assert_eq!(cache.connection.verdict(), Verdict::Celery);

    let mut rubbish = rig();
    for _ in 0..64 {
        rubbish.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    }
    assert_eq!(rubbish.connection.verdict(), Verdict::Ignore);
}

/// Scenario: messages that are JSON but not a task's, and headers of wrong types.
/// Guarantees: counted; no event.
#[test]
fn not_a_task() {
    let mut rig = rig();
    for payload in [
        r#"{"user": 5}"#,
        r#"{"headers": {"task": 5, "id": "1"}}"#,
        r#"{"headers": {"task": "t"}}"#,
        r#"{"headers": {"task": "t", "id": "1", "retries": "many"}}"#,
        r#"{"headers": {"task": "t", "id": "1"}, "properties": "none"}"#,
        r#"{"headers": {"task": "t", "id": "#,
    ] {
        assert!(
            rig.send(&command(&[b"LPUSH", b"jobs", payload.as_bytes()]))
                .is_empty(),
            "{payload}"
        );
    }
    let stats = rig.connection.stats();
    assert_eq!((stats.messages_other, stats.messages_malformed), (1, 5));
}

/// The commands by which Celery stores a result, in the calls in which it sends them: a look, then a transaction.
fn stored(id: &str) -> [Vec<u8>; 2] {
    let key = format!("celery-task-meta-{id}");
    let stored: [&[&[u8]]; 4] = [
        &[b"MULTI"],
        &[b"SETEX", key.as_bytes(), b"9", br#"{"status": "STARTED"}"#],
        &[b"PUBLISH", key.as_bytes(), b"{}"],
        &[b"EXEC"],
    ];
    [command(&[b"GET", key.as_bytes()]), stored.map(command).concat()]
}

/// Scenario: results stored on a connection opened for it, on one in use, after a look at another task's, and on one that
/// was opened long ago.
/// Guarantees: the program turned to the first when it opened the connection, to the others when it looked at what is
/// stored, or where no such look goes before, with the command itself.
#[test]
fn when_a_result_begins() {
    let mut rig = rig();
    rig.send(&command(&[b"CLIENT", b"SETINFO", b"LIB-NAME", b"redis-py"]));
    let [look, store] = stored("1");
    assert!(rig.send(&look).is_empty());
    assert_eq!(rig.send(&store), ["result 1 Started from 1"]);
    let [look, store] = stored("2");
    assert!(rig.send(&look).is_empty());
    assert_eq!(rig.send(&store), ["result 2 Started from 40"]);
    assert_eq!(rig.send(&store), ["result 2 Started from 60"]);
    assert!(rig.send(&look).is_empty());
    assert_eq!(rig.send(&stored("3")[1]), ["result 3 Started from 80"]);
    let long_ago = Mono(0);
    rig.connection = RedisConnection::new(&Limits::default(), Some(long_ago));
    rig.sleep(2_000_000_000);
    assert_eq!(rig.send(&store), ["result 2 Started from 2000000090"]);
}
