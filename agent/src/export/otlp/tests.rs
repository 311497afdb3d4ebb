//! The output with exporters of the tests' own and a clock that goes ahead by itself; collectors proper are in `tests/otlp`.

use std::sync::Mutex;

use celeryscope_core::{Span, SpanId, SpanKind, TraceId};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::SpanData;

use super::super::Mode;
use super::super::intake::{self, Counts};
use super::*;

/// A collector that takes nothing before `until`; it needs `takes` for each request.
#[derive(Clone, Debug)]
struct Collector {
    until: Instant,
    takes: Duration,
    got: Arc<Mutex<Vec<u64>>>,
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Export for Collector {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.asked.lock().unwrap().push(Instant::now());
        tokio::time::sleep(self.takes).await;
        if Instant::now() < self.until {
            let text = "TonicTracesClient export failed with gRPC code: Unavailable";
            return Err(OTelSdkError::InternalFailure(text.to_owned()));
        }
        let ids = batch
            .iter()
            .map(|span| u64::from_be_bytes(span.span_context.span_id().to_bytes()));
        self.got.lock().unwrap().extend(ids);
        Ok(())
    }
}

fn numbered(n: u64) -> Arc<Span> {
    let mut span = Span::new(SpanKind::Publish, TraceId([1; 16]), SpanId([1; 8]), "publish add");
    span.span_id = SpanId(n.to_be_bytes());
    Arc::new(span)
}

/// Offers ten spans a second for `seconds` to a queue of 200; gives the counts at their end, what arrived, and how long after the
/// first span it was tried.
async fn offer(seconds: u64, away: Duration, takes: Duration) -> (Arc<Counts>, Vec<u64>, Vec<Duration>, u64) {
    let start = Instant::now();
    let collector = Collector {
        until: start + away,
        takes,
        got: Arc::default(),
        asked: Arc::default(),
    };
    let batching = Batching {
        queue: 200,
        batch: 50,
        delay: Some(Duration::from_millis(100)),
    };
    let counts = Arc::new(Counts::default());
    let (mut queue, intake) = intake::queue(batching.queue, batching.batch, &counts);
    let otlp = Otlp::with(collector.clone(), Arc::default(), batching, "http://c", None);
    let running = tokio::spawn(otlp.run(intake));
    let mut most = 0;
    for n in 1..=seconds * 10 {
        match queue.send(numbered(n), Mode::Live) {
            Ok(()) => counts.accepted(1),
            Err(_) => counts.dropped(1),
        }
        most = most.max(counts.read().held);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Time for what is held to be delivered, then the end.
    tokio::time::sleep(Duration::from_secs(120)).await;
    queue.close();
    running.await.unwrap().unwrap();
    let got = collector.got.lock().unwrap().clone();
    let asked = collector.asked.lock().unwrap();
    let asked = asked.iter().map(|at| *at - start).collect();
    (counts, got, asked, most)
}

/// Scenario: the collector is away for a minute while spans come, more than the queue holds, and comes back.
/// Guarantees: what the queue and the batch in hand hold arrives, each once and in order; the rest is counted as dropped; never
/// is more held; the attempts become rarer.
#[tokio::test(start_paused = true)]
async fn away_for_a_minute() {
    let takes = Duration::from_millis(1);
    let (counts, got, asked, most) = offer(90, Duration::from_secs(60), takes).await;
    let counts = counts.read();
    assert_eq!(counts.accepted + counts.dropped, 900);
    assert_eq!(
        (counts.exported, counts.failed, counts.held),
        (counts.accepted, 0, 0)
    );
    assert!(most <= 250, "{most} spans were held");
    // Ten a second until a span is taken, after a minute and what is left of a pause, but for those that are held: 200, and 1 to
    // 50 in hand.
    let minute = Duration::from_secs(60);
    let taken = asked.iter().find(|at| **at + takes >= minute).unwrap();
    assert!(*taken <= minute + LONGEST_PAUSE * 5 / 4 + takes, "{taken:?}");
    let offered = taken.as_millis() as u64 / 100 + 1;
    assert!(
        (offered - 250..=offered - 200).contains(&counts.dropped),
        "{counts:?}, {taken:?}"
    );
    assert_eq!(got.len() as u64, counts.exported);
    assert!(
        got.windows(2).all(|two| two[0] < two[1]),
        "twice, or out of order"
    );
    let away: Vec<_> = asked.windows(2).take(8).map(|two| two[1] - two[0]).collect();
    assert!(away[0] >= Duration::from_millis(375), "{away:?}");
    assert!(asked.iter().filter(|at| *at < taken).count() <= 12, "{away:?}");
}

/// Scenario: the collector needs ten seconds for each request, longer than spans need to fill the queue.
/// Guarantees: nobody waits; what was accepted arrives once, the rest is counted.
#[tokio::test(start_paused = true)]
async fn slow() {
    let began = Instant::now();
    let (counts, got, _, most) = offer(90, Duration::ZERO, Duration::from_secs(10)).await;
    // Offering itself, and the time granted after it.
    assert!(began.elapsed() < Duration::from_secs(90 + 120 + 60));
    let counts = counts.read();
    assert_eq!(counts.accepted + counts.dropped, 900);
    assert_eq!(
        (counts.exported, counts.failed, counts.held),
        (counts.accepted, 0, 0)
    );
    assert!(counts.dropped > 0 && most <= 250, "{counts:?}, {most}");
    assert_eq!(got.len() as u64, counts.exported);
}

/// Scenario: pauses, many times over.
/// Guarantees: no two agents need meet, and none comes much sooner or later than it should.
#[test]
fn pauses_are_spread() {
    let pauses: Vec<_> = (0..200).map(|_| spread(Duration::from_secs(4))).collect();
    let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
    assert!(*least >= Duration::from_secs(3) && *most <= Duration::from_secs(5));
    assert!(*most - *least > Duration::from_millis(500));
}

/// Scenario: the exporter's errors, as its version words them.
/// Guarantees: only what the specification calls retryable is tried again; a collector that is out of resources only where it said
/// when it will have some, which the exporter shows by having tried again.
#[test]
fn transient_or_final() {
    let grpc = |rest: &str| {
        OTelSdkError::InternalFailure(format!("TonicTracesClient export failed with gRPC code: {rest}"))
    };
    let http = |status: &str| {
        OTelSdkError::InternalFailure(format!("HTTP export failed with status code: {status}"))
    };
    for error in [
        grpc("Unavailable: transport error: connection refused"),
        grpc("DeadlineExceeded"),
        grpc("Unknown: transport error: broken pipe"),
        http("503"),
        http("429"),
        OTelSdkError::InternalFailure("HTTP export failed: network error".to_owned()),
        OTelSdkError::Timeout(Duration::from_secs(1)),
    ] {
        assert!(is_transient(&error, false), "{error}");
    }
    for error in [
        grpc("InvalidArgument"),
        grpc("Unimplemented"),
        grpc("ResourceExhausted"),
        http("400"),
        http("404"),
    ] {
        assert!(!is_transient(&error, false), "{error}");
    }
    assert!(is_transient(&grpc("ResourceExhausted"), true));
    assert!(!is_transient(&grpc("InvalidArgument"), true));
}
