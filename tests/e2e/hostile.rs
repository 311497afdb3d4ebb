//! Whatever else speaks on the broker's port: the agent must neither fall over nor be misled.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use crate::check;
use crate::flood::noise;
use crate::rig::report::table;
use crate::rig::worker::Options;
use crate::rig::{Agent, Publisher, Scene, Worker};

/// Scenario: while a real workload runs, clients send HTTP, random bytes, cut and lying RESP, JSON that is not Celery,
/// Celery's envelope with wrong types, to the real Redis and to a listener on a second watched port that answers in kind.
/// Guarantees: the workload's spans are all there and right, nothing is made of the rest, the agent lives, and its
/// counters tell that it saw what it did not understand.
#[test]
fn rubbish_on_the_broker_port() {
    let Some(scene) = Scene::set("hostile", "celery57") else {
        return;
    };
    let rogue = Rogue::start();
    let mut agent = Agent::start(scene.folder(), "agent", &[scene.port(), rogue.port], &["--stats"]);
    let worker = Worker::start(&scene, "w1", &Options::default());
    let mut publisher = Publisher::start(&scene, "publisher");
    publisher.publish("simple 2");
    for round in 0..3 {
        for rubbish in every_kind() {
            send(scene.port(), &rubbish);
            send(rogue.port, &rubbish);
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
    for name in ["resp_protocol_errors", "messages_malformed", "resp_skipped_bytes"] {
        assert!(
            counters.get(name).is_some_and(|n| *n > 0),
            "{name} tells of no rubbish: {counters:?}"
        );
    }
}

/// Everything that is thrown at a port, each on a connection of its own.
fn every_kind() -> Vec<Vec<u8>> {
    let lpush = |value: &[u8]| {
        let mut command = format!("*3\r\n$5\r\nLPUSH\r\n$7\r\nrubbish\r\n${}\r\n", value.len()).into_bytes();
        command.extend_from_slice(value);
        command.extend_from_slice(b"\r\n");
        command
    };
    let envelope = |headers: &str| {
        lpush(
            format!(r#"{{"body": "W10=", "headers": {headers}, "properties": {{"delivery_info": 7}}}}"#)
                .as_bytes(),
        )
    };
    vec![
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".to_vec(),
        noise(1, 64 * 1024),
        // Cut in the middle of a bulk string, of a length, of a command.
        b"*3\r\n$5\r\nLPUSH\r\n$6\r\ncelery\r\n$900\r\n{\"body\": \"W1".to_vec(),
        b"*3\r\n$5\r\nLPUSH\r\n$6".to_vec(),
        b"*2\r\n".to_vec(),
        // Lengths that no memory holds.
        b"*3\r\n$5\r\nLPUSH\r\n$6\r\ncelery\r\n$4294967296\r\n{\"body\":".to_vec(),
        b"*3\r\n$5\r\nLPUSH\r\n$6\r\ncelery\r\n$18446744073709551616\r\n".to_vec(),
        b"*2147483647\r\n$5\r\nLPUSH\r\n".to_vec(),
        b"*3\r\n$-7\r\n$0\r\n\r\n$3\r\nabc\r\n".to_vec(),
        b"*1\r\n".repeat(20_000),
        b"\r\n\r\n+OK\r\n:12\r\n-ERR no\r\n$-1\r\n*-1\r\n_\r\n".to_vec(),
        // JSON, but not Celery's.
        lpush(br#"{"id": 1, "queue": "mail", "args": ["x"], "class": "Job"}"#),
        lpush(b"[1, 2, {\"headers\": {\"task\": \"app.add\"}}]"),
        lpush(&b"[".repeat(100_000)),
        lpush(b"{\"body\": \"\xff\xfe\", \"headers\": {\"task\": \"\xc3\x28\"}}"),
        // Celery's envelope with wrong types, in wrong places.
        envelope(r#"{"task": 7, "id": ["x"], "retries": "many"}"#),
        envelope(r#"{"task": null, "id": null, "root_id": {}}"#),
        envelope(r#"["task", "id"]"#),
        envelope(r#""task""#),
        envelope(&format!(r#"{{"task": {}, "id": "x"}}"#, "[".repeat(5_000))),
    ]
}

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

/// A listener that is no Redis: answers every piece with replies that make no sense.
struct Rogue {
    port: u16,
    _thread: JoinHandle<()>,
}

impl Rogue {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("its port").port();
        // Ends with the test program: it holds nothing that outlives it.
        let thread = spawn(move || listener.incoming().flatten().for_each(answer));
        Self {
            port,
            _thread: thread,
        }
    }
}

fn answer(mut stream: TcpStream) {
    const REPLIES: &[&[u8]] = &[
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"*2\r\n$6\r\ncelery\r\n$4294967295\r\n{\"body\": \"",
        b"%4294967295\r\n",
        b":99999999999999999999999\r\n",
        b">3\r\n$7\r\nmessage\r\n",
        b"$12\r\nshort\r\n",
        b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
    ];
    spawn(move || {
        let mut buffer = [0; 16 * 1024];
        for reply in REPLIES.iter().cycle() {
            match stream.read(&mut buffer) {
                Ok(n) if n > 0 && stream.write_all(reply).is_ok() => {}
                _ => break,
            }
        }
    });
}
