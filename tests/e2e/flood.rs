//! Ten thousand connections that say nothing of Celery's, beside a worker that works: the agent's memory stays within what its
//! limits allow, and every span is right.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use celeryscope_core::Limits;

use crate::check;
use crate::rig::agent::Left;
use crate::rig::report::table;
use crate::rig::worker::Options;
use crate::rig::{Agent, Broker, Publisher, Scene, Tls, Worker};
use crate::rubbish::{amqp, nested, noise, published};

const CONNECTIONS: usize = 10_000;
/// Those that send at the same time, each to a port of its own.
const SENDERS: usize = 8;
/// Connections that a sender keeps open. Twice the agent's limit in all, and two descriptors each.
const KEPT: usize = 1000;

/// What the agent may take beyond what it had before, in MiB. Its decoders may hold `stream_bytes` of what is not complete;
/// a buffer that grows is twice as large as what is in it, and so is a heap that has given back what lay between. Beyond
/// that each connection has its state, and 24 MiB are for what is on the way: the ring buffer's 16, whose pages count
/// once they are touched, and batches of it.
fn room() -> f64 {
    let limits = Limits::default();
    let state = 4 * 1024 * limits.connections;
    (2 * limits.stream_bytes as usize + state) as f64 / f64::from(1 << 20) + 24.0
}

/// Scenario: while a real workload runs, 10,000 connections to other watched ports send noise, cut commands, absurd lengths,
/// deep nesting, wrong UTF-8 and what begins as TLS does; 8,000 of them stay open, and hold more half-read bytes than the
/// agent may.
/// Guarantees: the agent lives, within its bounds; the workload's spans are all there and right; what was thrown away is counted.
#[test]
fn ten_thousand_connections() {
    let Some(scene) = Scene::set("flood", "celery57") else {
        return;
    };
    let flood = Flood::prepare(plain);
    let ports = [&[scene.port()], &flood.ports()[..]].concat();
    let agent = Agent::start(scene.folder(), "agent", &ports, &["--stats"]);
    let (left, before) = survive(&scene, agent, flood);
    let counters = tell(&left, before);
    let at_least = |name: &str, least: u64| {
        let count = counters.get(name).copied().unwrap_or(0);
        assert!(count >= least, "{name}: {count}, not {least}: {counters:?}");
    };
    at_least("connections", CONNECTIONS as u64);
    at_least("connections_evicted", (SENDERS * KEPT) as u64 / 2);
    at_least("connections_amqp", 1);
    at_least("connections_tls", 1);
    for name in [
        "streams_shed",
        "streams_shed_bytes",
        "resp_protocol_errors",
        "resp_skipped_bytes",
        "resp_unfinished_bytes",
        "amqp_protocol_errors",
        "amqp_skipped_bytes",
        "messages_malformed",
    ] {
        at_least(name, 1);
    }
}

/// Scenario: a real workload over TLS; 10,000 connections to other ports that are said to speak TLS send what begins as its records
/// do and is none, or what is plain.
/// Guarantees: as above.
#[test]
fn ten_thousand_connections_to_tls_ports() {
    let Some(scene) = Scene::set_over(Tls::V13, Broker::Redis, "flood-tls", "celery57") else {
        return;
    };
    let flood = Flood::prepare(sealed);
    let ports = [&[scene.port()], &flood.ports()[..]].concat();
    let mut more = vec!["--stats".to_owned()];
    more.extend(
        ports
            .iter()
            .flat_map(|port| ["--tls-port".to_owned(), port.to_string()]),
    );
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let agent = Agent::start(scene.folder(), "agent", &ports, &more);
    let (left, before) = survive(&scene, agent, flood);
    let counters = tell(&left, before);
    for name in ["connections_tls", "tls_unread_bytes"] {
        assert!(counters.get(name).is_some_and(|n| *n > 0), "{name}: {counters:?}");
    }
}

/// The workload before, during and after the flood; what the agent left, and its peak before, in MiB.
fn survive(scene: &Scene, mut agent: Agent, flood: Flood) -> (Left, f64) {
    let worker = Worker::start(scene, "w1", &Options::default());
    let mut publisher = Publisher::start_watched(scene, "publisher");
    publisher.publish("simple 2");
    let before = agent.usage().peak_rss;
    let flood = flood.begin();
    for scenario in ["chained", "retries", "chorded 3"] {
        publisher.publish(scenario);
        assert!(agent.alive(), "the agent fell over: {}", agent.log());
    }
    let kept = flood.end();
    publisher.publish("simple 2");
    scene.settle(Duration::from_secs(60));
    drop(worker);
    drop(kept);
    let left = agent.stop();
    check::all_is_told(scene, &left, &check::few_runs());
    (left, before)
}

/// Shows the counters; holds the peak to its bound.
fn tell(left: &Left, before: f64) -> BTreeMap<String, u64> {
    let counters = check::counters(&left.log);
    let mut rows: Vec<Vec<String>> = counters
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(name, n)| vec![name.clone(), n.to_string()])
        .collect();
    let (peak, most) = (left.usage.peak_rss, before + room());
    rows.push(vec![
        "MiB before, at most, allowed".to_owned(),
        format!("{before:.0}, {peak:.0}, {most:.0}"),
    ]);
    table("The agent after a flood", &["counter", "value"], &rows);
    assert!(peak <= most, "{peak:.0} MiB, {most:.0} are allowed");
    counters
}

/// What the `n`th connection to a plain port sends.
fn plain(n: usize) -> Vec<u8> {
    let lpush = |len: usize, value: &[u8]| {
        let head = format!("*3\r\n$5\r\nLPUSH\r\n$6\r\ncelery\r\n${len}\r\n");
        [head.as_bytes(), value].concat()
    };
    match n % 32 {
        0 => noise(n as u64, 4096),
        1 => lpush(4_294_967_296, b"{\"body\": \""),
        2 => lpush(18_446_744_073_709_551_615, b""),
        3 => b"*1\r\n".repeat(4000),
        4 => lpush(5000, &b"[".repeat(5000)),
        5 => lpush(
            50,
            b"{\"body\": \"\xff\xfe\", \"headers\": {\"task\": \"\xc3\x28\"}}\r\n",
        ),
        6 => lpush(41, b"{\"headers\": {\"task\": 7, \"id\": [\"x\", {}]}}\r\n"),
        // A frame's length, and one that ends with something else than a frame's end.
        7 => b"AMQP\0\0\x09\x01\x01\0\0\x7f\xff\xff\xff\0\x0a\0\x0b".to_vec(),
        8 => [
            b"AMQP\0\0\x09\x01\x01\0\0\0\0\0\x04\0\x0a\0\x0bX".as_slice(),
            &noise(1, 2000),
        ]
        .concat(),
        // A handshake, by its first bytes.
        9 => [
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".as_slice(),
            &noise(2, 600),
        ]
        .concat(),
        10 => amqp(&published(&nested(500), 2, b"{}")),
        11 => amqp(&published(b"\x04task\x53\0\0\0\x02\xc3\x28", 2, b"\xff\xfe")),
        12 => amqp(&published(b"", 1 << 40, &noise(4, 60_000))),
        // A message that never ends: without its limits the agent would come to hold 300 MiB of these.
        _ => lpush(
            60_000,
            &[b"{\"body\": \"".as_slice(), &[b'a'; 56 * 1024]].concat(),
        ),
    }
}

/// What the `n`th connection to a port of TLS sends.
fn sealed(n: usize) -> Vec<u8> {
    let hello = |len: u16, rest: usize| {
        let mut bytes = b"\x16\x03\x01".to_vec();
        bytes.extend(len.to_be_bytes());
        bytes.extend(noise(n as u64 + 1, rest));
        bytes
    };
    match n % 6 {
        0 => hello(512, 512),
        1 => hello(u16::MAX, 100),
        2 => hello(0, 3000),
        // Data before any handshake, and an alert.
        3 => [b"\x17\x03\x03\x40\0".as_slice(), &noise(3, 16_384)].concat(),
        4 => b"\x15\x03\x01\0\x02\x02\x28".repeat(300),
        _ => plain(n / 6),
    }
}

/// Both ends of connections that nobody uses any more.
type Kept = VecDeque<(TcpStream, TcpStream)>;

/// The ports, and what is sent there.
struct Flood {
    listeners: Vec<TcpListener>,
    sent: fn(usize) -> Vec<u8>,
}

impl Flood {
    fn prepare(sent: fn(usize) -> Vec<u8>) -> Self {
        let listen = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        Self {
            listeners: (0..SENDERS).map(listen).collect(),
            sent,
        }
    }

    fn ports(&self) -> Vec<u16> {
        let port = |listener: &TcpListener| listener.local_addr().expect("its port").port();
        self.listeners.iter().map(port).collect()
    }

    fn begin(self) -> Senders {
        let sent = self.sent;
        let each = CONNECTIONS / SENDERS;
        let sender = |(number, listener): (usize, TcpListener)| {
            spawn(move || {
                let mut kept = Kept::new();
                for n in 0..each {
                    kept.push_back(exchange(&listener, &sent(n * SENDERS + number), n));
                    if kept.len() > KEPT {
                        kept.pop_front();
                    }
                    // The agent is to be held to what it holds, not to how fast it reads.
                    std::thread::sleep(Duration::from_millis(30));
                }
                kept
            })
        };
        Senders(self.listeners.into_iter().enumerate().map(sender).collect())
    }
}

/// Those that are at it.
struct Senders(Vec<JoinHandle<Kept>>);

impl Senders {
    /// Waits for the last; gives what is still open.
    fn end(self) -> Vec<Kept> {
        let all = self.0.into_iter();
        all.map(|sender| sender.join().expect("a sender that ends"))
            .collect()
    }
}

/// A connection of which both ends are here: bytes one way, in two pieces, and an answer that makes no sense.
fn exchange(listener: &TcpListener, bytes: &[u8], n: usize) -> (TcpStream, TcpStream) {
    const ANSWERS: [&[u8]; 6] = [
        b"+OK\r\n",
        b"*2\r\n$6\r\ncelery\r\n$4294967295\r\n{\"body\": \"",
        b":99999999999999999999999\r\n",
        b"\x01\0\0\0\0\0\x04\0\x0a\0\x0aX",
        b"\x16\x03\x03\0\x7a\x02\0\0\x76",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ];
    let address = listener.local_addr().expect("its port");
    let mut client = TcpStream::connect(address).expect("a listener");
    let (mut server, _) = listener.accept().expect("the client");
    let (head, tail) = bytes.split_at(bytes.len() / 3);
    for piece in [head, tail] {
        client.write_all(piece).expect("a peer that reads");
        let mut read = vec![0; piece.len()];
        server.read_exact(&mut read).expect("what was sent");
    }
    server
        .write_all(ANSWERS[n % ANSWERS.len()])
        .expect("a peer that reads");
    let _ = client.read(&mut [0; 256]).expect("an answer");
    (client, server)
}
