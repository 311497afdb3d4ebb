//! Made-up exchanges, one rule each; recorded ones are replayed in `tests/captures.rs`.

use celeryscope_common::Kind;

use super::RabbitConnection;
use crate::Limits;
use crate::broker::rig::Rig;

fn rig() -> Rig<RabbitConnection> {
    Rig::with(RabbitConnection::new(7, &Limits::default(), false))
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    frame_on(1, kind, payload)
}

fn frame_on(channel: u16, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(0xce);
    out
}

fn method(class: u16, id: u16, arguments: &[u8]) -> Vec<u8> {
    frame(
        1,
        &[&class.to_be_bytes()[..], &id.to_be_bytes(), arguments].concat(),
    )
}

fn short(text: &str) -> Vec<u8> {
    [&[text.len() as u8][..], text.as_bytes()].concat()
}

/// Content header and body of a task message.
fn content(id: &str) -> Vec<u8> {
    let mut table = Vec::new();
    for (key, value) in [("task", "t"), ("id", id)] {
        table.extend(short(key));
        table.push(b'S');
        table.extend((value.len() as u32).to_be_bytes());
        table.extend(value.as_bytes());
    }
    let body = b"[[1], {}, {}]";
    let mut header = vec![0, 60, 0, 0];
    header.extend((body.len() as u64).to_be_bytes());
    header.extend([0xa0, 0]);
    header.extend(short("application/json"));
    header.extend((table.len() as u32).to_be_bytes());
    header.extend(table);
    [frame(2, &header), frame(3, &body[..4]), frame(3, &body[4..])].concat()
}

fn publish(id: &str) -> Vec<u8> {
    let arguments = [&[0, 0][..], &short(""), &short("celery"), &[0]].concat();
    [method(60, 40, &arguments), content(id)].concat()
}

fn deliver(tag: u64, redelivered: bool, id: &str) -> Vec<u8> {
    deliver_to("c1", tag, redelivered, id)
}

fn deliver_to(consumer: &str, tag: u64, redelivered: bool, id: &str) -> Vec<u8> {
    let arguments = [
        &short(consumer)[..],
        &tag.to_be_bytes(),
        &[u8::from(redelivered)],
        &short(""),
        &short("celery"),
    ]
    .concat();
    [method(60, 60, &arguments), content(id)].concat()
}

fn ack(tag: u64, multiple: bool) -> Vec<u8> {
    method(60, 80, &[&tag.to_be_bytes()[..], &[u8::from(multiple)]].concat())
}

/// Scenario: a publish without confirms, then with them, three confirmed by one answer.
/// Guarantees: the first ends with its last byte, the others with the answer that covers them.
#[test]
fn confirms() {
    let mut rig = rig();
    assert_eq!(
        rig.send(&publish("0")),
        ["publish 1 0 to celery", "answered 1 at 15"]
    );
    assert!(rig.send(&method(85, 10, &[0])).is_empty());
    for id in ["1", "2", "3"] {
        assert_eq!(rig.send(&publish(id)).len(), 1);
    }
    assert_eq!(rig.recv(&ack(2, true)), ["answered 2 at 65", "answered 3 at 65"]);
    assert_eq!(rig.recv(&ack(3, false)), ["answered 4 at 75"]);
}

/// Scenario: a publish is lost on a connection with confirms.
/// Guarantees: what waits is given up, and no later publish is taken for answered by another's confirm.
#[test]
fn lost_publish_with_confirms() {
    let mut rig = rig();
    rig.send(&method(85, 10, &[0]));
    assert_eq!(rig.send(&publish("1")).len(), 1);
    rig.lose(Kind::Send, publish("2").len());
    let events = rig.send(&publish("3"));
    assert_eq!(
        events,
        ["unanswered 1", "publish 2 3 to celery", "answered 2 at 35"]
    );
    assert!(rig.recv(&ack(3, true)).is_empty());
}

/// Scenario: heartbeats are left out between two frames of one message, and, so it is said, within a frame.
/// Guarantees: between frames they cost nothing, in either direction; within one they are a gap, and what follows is read.
#[test]
fn heartbeats_that_are_left_out() {
    let gaps = |rig: &Rig<RabbitConnection>| {
        let (sent, received, ..) = rig.connection.layers();
        let (sent, received) = (sent.stats(), received.stats());
        (
            sent.gap_bytes + received.gap_bytes,
            sent.idle_bytes + received.idle_bytes,
        )
    };
    let mut rig = rig();
    let whole = publish("1");
    let (method, rest) = whole.split_at(whole.len() - content("1").len());
    rig.send(method);
    assert!(rig.idle(8, 16).is_empty());
    assert_eq!(rig.send(rest), ["publish 1 1 to celery", "answered 1 at 25"]);
    rig.recv(&deliver(1, false, "1"));
    assert_eq!(gaps(&rig), (0, 24));

    let body = frame(3, b"seventeen letters");
    rig.send(&body[..9]);
    rig.idle(8, 0);
    rig.send(&body[17..]);
    assert_eq!(gaps(&rig), (8, 24));
    assert_eq!(
        rig.send(&publish("2")),
        ["publish 2 2 to celery", "answered 2 at 65"]
    );
    let (.., outgoing, _) = rig.connection.layers();
    assert_eq!((outgoing.stats().degraded, outgoing.stats().sync_losses), (1, 0));
}

/// Scenario: deliveries that are acked together, rejected for good, and put back.
/// Guarantees: each is named by connection, channel and tag; a redelivery says so.
#[test]
fn acks_and_rejects() {
    let mut rig = rig();
    for tag in 1..=4 {
        let again = tag == 4;
        let seen = rig.recv(&deliver(tag, again, "x"));
        assert_eq!(
            seen[1],
            format!("delivered x from celery{}", if again { " again" } else { "" })
        );
    }
    assert_eq!(rig.send(&ack(2, true)), ["acked 7.1.1", "acked 7.1.2"]);
    let reject = |tag: u64, requeue: u8| method(60, 90, &[&tag.to_be_bytes()[..], &[requeue]].concat());
    assert_eq!(rig.send(&reject(3, 0)), ["acked 7.1.3"]);
    assert_eq!(rig.send(&reject(4, 1)), ["requeued 7.1.4"]);
}

/// Scenario: a message whose content never comes, and headers of wrong types.
/// Guarantees: no event, and the next message is read.
#[test]
fn cut_and_malformed() {
    let mut rig = rig();
    let announced = publish("1");
    assert!(
        rig.send(&announced[..announced.len() - content("1").len()])
            .is_empty()
    );
    assert_eq!(rig.send(&publish("2")).len(), 2);
    assert_eq!(rig.connection.stats().messages_cut, 1);
    let mut wrong = publish("3");
    let at = wrong.windows(3).position(|w| w == b"idS").unwrap() + 2;
    wrong[at] = b'i';
    assert!(rig.send(&wrong).is_empty());
    assert_eq!(rig.connection.stats().messages_malformed, 1);
}

/// Scenario: a hole in a publish's method, on a connection with confirms; then confirms are selected once more.
/// Guarantees: the count of publishes is given up until the channel is opened anew.
#[test]
fn a_hole_in_a_publish_with_confirms() {
    let mut rig = rig();
    rig.send(&method(85, 10, &[0]));
    let second = publish("2");
    rig.send(&publish("1"));
    rig.send(&second[..12]);
    rig.lose(Kind::Send, 2);
    assert_eq!(rig.send(&second[14..]), ["unanswered 1"]);
    rig.send(&method(85, 10, &[0]));
    assert_eq!(rig.send(&publish("3")).len(), 2, "nothing is awaited");
    rig.send(&method(20, 10, &short("")));
    rig.send(&method(85, 10, &[0]));
    assert_eq!(rig.send(&publish("4")).len(), 1);
    assert_eq!(rig.recv(&ack(1, false)), ["answered 3 at 105"]);
}

/// Scenario: deliveries to a consumer with a name, to one that the broker named, and by `basic.get`.
/// Guarantees: each is from its queue.
#[test]
fn queues_of_deliveries() {
    let mut rig = rig();
    let consume = |queue: &str, tag: &str| {
        let arguments = [&[0, 0][..], &short(queue), &short(tag), &[0, 0, 0, 0, 0]].concat();
        method(60, 20, &arguments)
    };
    rig.send(&consume("q1", "c1"));
    rig.send(&consume("q2", ""));
    rig.recv(&method(60, 21, &short("amq.ctag-7")));
    rig.send(&method(60, 70, &[&[0, 0][..], &short("q3"), &[0]].concat()));
    for (consumer, queue) in [("c1", "q1"), ("amq.ctag-7", "q2")] {
        let seen = rig.recv(&deliver_to(consumer, 1, false, "x"));
        assert_eq!(seen[1], format!("delivered x from celery:{queue}"));
    }
    let got = [
        &2u64.to_be_bytes()[..],
        &[0],
        &short(""),
        &short("celery"),
        &[0; 4],
    ]
    .concat();
    let seen = rig.recv(&[method(60, 71, &got), content("y")].concat());
    assert_eq!(seen[1], "delivered y from celery:q3");
}

/// Scenario: three deliveries, one acked, then `basic.recover`.
/// Guarantees: those that were not acked go back, once.
#[test]
fn recover() {
    let mut rig = rig();
    for tag in 1..=3 {
        rig.recv(&deliver(tag, false, "x"));
    }
    rig.send(&ack(2, false));
    assert_eq!(
        rig.send(&method(60, 110, &[1])),
        ["requeued 7.1.1", "requeued 7.1.3"]
    );
    assert!(rig.send(&method(60, 110, &[1])).is_empty());
}

/// Scenario: a mandatory publish comes back, and is confirmed; then the broker closes the connection.
/// Guarantees: the returned content is no delivery, the return is counted; what waits for a confirm is given up.
#[test]
fn returned_and_closed() {
    let mut rig = rig();
    rig.send(&method(85, 10, &[0]));
    rig.send(&publish("1"));
    let reason = [
        &312u16.to_be_bytes()[..],
        &short("NO_ROUTE"),
        &short(""),
        &short("celery"),
    ]
    .concat();
    assert!(
        rig.recv(&[method(60, 50, &reason), content("1")].concat())
            .is_empty()
    );
    assert_eq!(rig.connection.stats().messages_returned, 1);
    assert_eq!(rig.recv(&ack(1, false)), ["answered 1 at 45"]);
    rig.send(&publish("2"));
    let reason = [&320u16.to_be_bytes()[..], &short("CONNECTION_FORCED"), &[0; 4]].concat();
    assert_eq!(
        rig.recv(&frame_on(0, 1, &[&[0, 10, 0, 50][..], &reason].concat())),
        ["unanswered 2"]
    );
}

/// Scenario: a client that uses more channels than are followed, each with a publish that waits.
/// Guarantees: the oldest is forgotten, its publish given up, and both counted.
#[test]
fn channels_are_capped() {
    let mut rig = rig();
    let select = |channel: u16| frame_on(channel, 1, &[0, 85, 0, 10, 0]);
    rig.send(&select(1));
    rig.send(&publish("1"));
    for channel in 2..=256 {
        assert!(rig.send(&select(channel)).is_empty());
    }
    assert_eq!(rig.send(&select(257)), ["unanswered 1"]);
    assert_eq!(rig.connection.stats().channels_evicted, 1);
}

/// Scenario: a message that a queue let expire comes by way of its dead-letter exchange: the broker has sorted its headers and
/// put `x-death` among them, an array of tables.
/// Guarantees: it is delivered as what it is.
#[test]
fn dead_lettered() {
    let long = |text: &str| [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
    let field = |name: &str, kind: u8, value: &[u8]| [&short(name)[..], &[kind], value].concat();
    let sized = |bytes: Vec<u8>| [&(bytes.len() as u32).to_be_bytes()[..], &bytes].concat();
    let death = [
        field("count", b'l', &1u64.to_be_bytes()),
        field("queue", b'S', &long("parked")),
        field("reason", b'S', &long("expired")),
        field("time", b'T', &1_795_186_875u64.to_be_bytes()),
    ];
    let deaths = [&[b'F'][..], &sized(death.concat())].concat();
    let headers = [
        field("id", b'S', &long("d")),
        field("retries", b'l', &0u64.to_be_bytes()),
        field("task", b'S', &long("t")),
        field("x-death", b'A', &sized(deaths)),
        field("x-first-death-reason", b'S', &long("expired")),
    ];
    let arguments = [
        &short("c1")[..],
        &1u64.to_be_bytes(),
        &[0],
        &short("dlx"),
        &short("celery"),
    ]
    .concat();
    let header = [
        &[0, 60, 0, 0][..],
        &2u64.to_be_bytes(),
        &[0xa0, 0],
        &short("application/json"),
        &sized(headers.concat()),
    ];
    let message = [
        method(60, 60, &arguments),
        frame(2, &header.concat()),
        frame(3, b"[]"),
    ]
    .concat();
    assert_eq!(rig().recv(&message)[1], "delivered d from dlx:celery");
}

/// Scenario: a worker consumes from its queue, its mailbox for remote control and a queue for replies.
/// Guarantees: its name is told once, by the mailbox.
#[test]
fn mailbox() {
    let mut rig = rig();
    let consume = |queue: &str| {
        method(
            60,
            20,
            &[&[0, 0][..], &short(queue), &short(queue), &[0; 5]].concat(),
        )
    };
    assert_eq!(rig.send(&consume("w1@host.celery.pidbox")), ["worker w1@host"]);
    assert!(rig.send(&consume("celery")).is_empty());
    assert!(rig.send(&consume("5f8f8be2.reply.celery.pidbox")).is_empty());
}
