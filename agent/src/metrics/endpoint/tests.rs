//! The endpoint from outside, over plain sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use celeryscope_core::Stats;

use super::*;
use crate::metrics::Reading;

fn start() -> (Endpoint, Arc<Board>) {
    let board = Arc::new(Board::default());
    let address = "127.0.0.1:0".parse().unwrap();
    let bound = Bound::new(address).unwrap();
    (Endpoint::start(bound, Arc::clone(&board)).unwrap(), board)
}

fn connect(endpoint: &Endpoint) -> TcpStream {
    let stream = TcpStream::connect(endpoint.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Everything that comes back.
fn exchange(endpoint: &Endpoint, request: &[u8]) -> String {
    let mut stream = connect(endpoint);
    // It may hang up before all is sent.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    String::from_utf8(answer).unwrap()
}

fn get(endpoint: &Endpoint, path: &str) -> String {
    exchange(
        endpoint,
        format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes(),
    )
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

/// Scenario: each path before and after capture is attached, paths that there are not, another method.
/// Guarantees: readiness follows capture, the numbers are those on the board and the process's; 404 and 405 for the rest.
#[test]
fn paths_and_methods() {
    let (endpoint, board) = start();
    assert_eq!(status(&get(&endpoint, "/readyz")), "503");
    assert_eq!(status(&get(&endpoint, "/healthz")), "200", "it is still starting");
    board.attached(true);
    assert_eq!(status(&get(&endpoint, "/readyz")), "200");
    board.put(vec![Reading::new(&Stats::METRICS[0], 4711)]);
    let metrics = get(&endpoint, "/metrics?x=y");
    assert_eq!(status(&metrics), "200");
    for part in [
        "content-type: text/plain; version=0.0.4",
        "\n# TYPE celeryscope_records_total counter\nceleryscope_records_total 4711\n",
        "\nprocess_resident_memory_bytes ",
        "\nprocess_cpu_seconds_total ",
    ] {
        assert!(metrics.contains(part), "{part} is not in {metrics}");
    }
    assert_eq!(status(&get(&endpoint, "/")), "404");
    assert_eq!(status(&get(&endpoint, "/metrics/")), "404");
    let post = exchange(
        &endpoint,
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(status(&post), "405");
    assert!(post.contains("allow: GET, HEAD"), "{post}");
    let head = exchange(&endpoint, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(status(&head) == "200" && head.ends_with("\r\n\r\n"), "{head}");
}

/// Scenario: the numbers are asked for while the loop turns, and then while it stands still.
/// Guarantees: they are taken for the asker; a loop that stands still delays the answer for less than a second, and it is
/// the last numbers.
#[test]
fn numbers_are_asked_for() {
    let (endpoint, board) = start();
    let turning = Arc::clone(&board);
    let turns = thread::spawn(move || {
        for _ in 0..40 {
            turning.turn(|| vec![Reading::new(&Stats::METRICS[0], 7)]);
            thread::sleep(Duration::from_millis(10));
        }
    });
    assert!(get(&endpoint, "/metrics").contains("celeryscope_records_total 7\n"));
    turns.join().unwrap();
    thread::sleep(Duration::from_millis(1_100));
    let began = Instant::now();
    assert!(get(&endpoint, "/metrics").contains("celeryscope_records_total 7\n"));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

/// Scenario: clients that send nothing, and half a request; a head that does not end.
/// Guarantees: others are served meanwhile; the silent are hung up on; a head beyond the limit is refused.
#[test]
fn bad_clients() {
    let (endpoint, _board) = start();
    let mut silent: Vec<TcpStream> = (0..CONNECTIONS - 1).map(|_| connect(&endpoint)).collect();
    for (at, stream) in silent.iter_mut().enumerate() {
        if at % 2 == 0 {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHo").unwrap();
        }
    }
    let began = Instant::now();
    assert_eq!(status(&get(&endpoint, "/healthz")), "200");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());

    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(4 * HEAD));
    let refused = exchange(&endpoint, long.as_bytes());
    assert!(["431", "none"].contains(&status(&refused)), "{refused}");

    // All seats are taken: the next client waits until one of them is free.
    let _last = connect(&endpoint);
    assert_eq!(status(&get(&endpoint, "/healthz")), "200");
    for stream in &mut silent {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

/// Scenario: an address that is taken.
/// Guarantees: the error names it, the option, and what to do.
#[test]
fn taken_address() {
    let (endpoint, _board) = start();
    let error = Bound::new(endpoint.address()).unwrap_err().to_string();
    let address = endpoint.address().to_string();
    for part in [address.as_str(), "--metrics-listen", "give another port"] {
        assert!(error.contains(part), "{error}");
    }
}

/// Scenario: the endpoint is dropped.
/// Guarantees: nobody listens any more.
#[test]
fn it_ends() {
    let (endpoint, _board) = start();
    let address = endpoint.address();
    drop(endpoint);
    let end = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < end, "it still listens");
        thread::sleep(Duration::from_millis(10));
    }
}
