//! Whatever else speaks on the broker's port: the agent must neither fall over nor be misled.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use crate::check;
use crate::on_brokers::on_brokers;
use crate::rig::report::table;
use crate::rig::worker::Options;
use crate::rig::{Agent, Broker, Publisher, Scene, Worker};
use crate::rubbish;

/// Scenario: while a real workload runs, clients send HTTP, random bytes, cut and lying RESP or AMQP, absurd lengths, deep nesting, wrong
/// UTF-8, what is not Celery's, Celery's messages with wrong types, to the real broker and to a listener on a second watched port that
/// answers in kind.
/// Guarantees: the workload's spans are all there and right, nothing is made of the rest, the agent lives, and its
/// counters tell that it saw what it did not understand.
fn rubbish_on_the_broker_port(broker: Broker) {
    let Some(scene) = Scene::set_on(broker, "hostile", "celery57") else {
        return;
    };
    let (rubbish, replies, told) = match broker {
        Broker::Redis => (rubbish::for_redis(), REDIS_REPLIES, "resp"),
        _ => (rubbish::for_rabbitmq(), RABBITMQ_REPLIES, "amqp"),
    };
    let rogue = Rogue::start(replies);
    let ports = [scene.ports(), vec![rogue.port]].concat();
    let mut agent = Agent::start(scene.folder(), "agent", &ports, &["--stats"]);
    let worker = Worker::start(&scene, "w1", &Options::default());
    let mut publisher = Publisher::start(&scene, "publisher");
    publisher.publish("simple 2");
    for round in 0..3 {
        for rubbish in &rubbish {
            send(scene.port(), rubbish);
            send(rogue.port, rubbish);
        }
        publisher.publish(["chained", "retries", "chorded 3"][round]);
        assert!(agent.alive(), "the agent fell over: {}", agent.log());
    }
    scene.settle(Duration::from_secs(20));
    drop(worker);
    let left = agent.stop();
    let counters = check::counters(&left.log);
    let rows: Vec<Vec<String>> = counters
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(name, n)| vec![name.clone(), n.to_string()])
        .collect();
    table("The agent's counters after rubbish", &["counter", "value"], &rows);
    check::all_is_told(&scene, &left, &check::few_runs());
    let [errors, skipped] = ["protocol_errors", "skipped_bytes"].map(|what| format!("{told}_{what}"));
    for name in [&errors, &skipped, "messages_malformed"] {
        assert!(
            counters.get(name).is_some_and(|n| *n > 0),
            "{name} tells of no rubbish: {counters:?}"
        );
    }
}
on_brokers!(rubbish_on_the_broker_port: redis, rabbitmq);

const REDIS_REPLIES: &[&[u8]] = &[
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"*2\r\n$6\r\ncelery\r\n$4294967295\r\n{\"body\": \"",
    b"%4294967295\r\n",
    b":99999999999999999999999\r\n",
    b">3\r\n$7\r\nmessage\r\n",
    b"$12\r\nshort\r\n",
    b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
];

const RABBITMQ_REPLIES: &[&[u8]] = &[
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    // Another version, a frame without an end, one of 4 GiB, a method of no class.
    b"AMQP\0\0\x09\0",
    b"\x01\0\x01\0\0\0\x04\0\x3c\0\x3cX",
    b"\x01\0\x01\xff\xff\xff\xff\0\x3c\0\x3c",
    b"\x01\0\x01\0\0\0\x04\xff\xff\xff\xff\xce",
    // A delivery whose names are longer than it is, a content header of nothing, a piece of nothing.
    b"\x01\0\x01\0\0\0\x08\0\x3c\0\x3c\xff\xff\xff\xff\xce",
    b"\x02\0\x01\0\0\0\x0e\0\x3c\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xce",
    b"\x03\0\x01\0\0\0\x02ab\xce",
];

/// Sends, reads what comes for a moment, and goes; the other end may hang up at any time.
fn send(port: u16, bytes: &[u8]) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a listener");
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .expect("a timeout");
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .expect("a timeout");
    // In pieces, so that what is cut is cut in more than one way.
    for piece in bytes.chunks((bytes.len() / 3).max(1)) {
        if stream.write_all(piece).is_err() {
            return;
        }
    }
    let _ = stream.read(&mut [0; 4096]);
}

/// A listener that is no broker: answers every piece with replies that make no sense.
struct Rogue {
    port: u16,
    _thread: JoinHandle<()>,
}

impl Rogue {
    fn start(replies: &'static [&'static [u8]]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("its port").port();
        // Ends with the test program: it holds nothing that outlives it.
        let thread = spawn(move || {
            listener
                .incoming()
                .flatten()
                .for_each(|stream| answer(stream, replies));
        });
        Self {
            port,
            _thread: thread,
        }
    }
}

fn answer(mut stream: TcpStream, replies: &'static [&'static [u8]]) {
    spawn(move || {
        let mut buffer = [0; 16 * 1024];
        for reply in replies.iter().cycle() {
            match stream.read(&mut buffer) {
                Ok(n) if n > 0 && stream.write_all(reply).is_ok() => {}
                _ => break,
            }
        }
    });
}
