//! Collectors that refuse, throttle, fail and take their time. What is accepted ends as exported or failed, what is not is
//! dropped, and each span that a collector took came once.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use celeryscope::export::Exporters;
use tokio::net::TcpListener;

use crate::collector::{Answer, Collector};
use crate::spans::numbered;
use crate::{close, start};

const HTTP: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");

fn start_http(at: SocketAddr, more: &[(&str, &str)]) -> Exporters {
    start("otlp", Some(format!("http://{at}")), &[&[HTTP], more].concat())
}

/// Every span that was offered is accounted for, and what the collector has is what is said to be exported, each once.
fn adds_up(counters: &HashMap<String, u64>, offered: u64, collector: &Collector) {
    let of = |name: &str| counters[&format!("otlp_{name}")];
    assert_eq!(
        of("accepted") + of("dropped") + of("unsampled"),
        offered,
        "{counters:?}"
    );
    assert_eq!(
        of("accepted"),
        of("exported") + of("failed") + of("held"),
        "{counters:?}"
    );
    let mut ids: Vec<_> = collector.spans().into_iter().map(|span| span.span_id).collect();
    ids.sort();
    let all = ids.len();
    ids.dedup();
    assert_eq!((ids.len() as u64, all as u64), (of("exported"), of("exported")));
}

async fn failed(exporters: &Exporters, count: u64) {
    let end = Instant::now() + Duration::from_secs(20);
    while exporters.totals().failed < count {
        assert!(Instant::now() < end, "{:?}", exporters.totals());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Between the first two requests.
fn first_pause(collector: &Collector) -> Duration {
    let asked = collector.asked.lock().unwrap();
    asked[1] - asked[0]
}

/// Scenario: nobody listens where the collector should be, by HTTP; more spans come than the queue holds; then it is there.
/// Guarantees: what the queue and the batch in hand hold arrives once, the rest is counted as dropped.
#[tokio::test(flavor = "multi_thread")]
async fn refused_connections() {
    let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = reserved.local_addr().unwrap();
    drop(reserved);
    let small = [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "50"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10"),
    ];
    let mut exporters = start_http(at, &small);
    for n in 0..100 {
        exporters.send(&numbered(n));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let collector = Collector::default();
    collector.serve_http_at(at, None).await;
    collector.expect(50).await;
    let counters = close(exporters, Duration::from_secs(4));
    adds_up(&counters, 100, &collector);
    assert!((40..=50).contains(&counters["otlp_dropped"]), "{counters:?}");
}

/// Scenario: a collector answers its first request after ten seconds, within the timeout; spans go on coming.
/// Guarantees: nothing is sent twice, offering never waits, and what the queue could not hold is counted.
#[tokio::test(flavor = "multi_thread")]
async fn slow() {
    let collector = Collector::default();
    let slow = Answer {
        after: Duration::from_secs(10),
        ..Answer::of(200)
    };
    collector.answers.lock().unwrap().push_back(slow);
    let at = collector.serve_http(None).await;
    let vars = [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "15000"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "50"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10"),
    ];
    let mut exporters = start_http(at, &vars);
    let began = Instant::now();
    for n in 0..200 {
        exporters.send(&numbered(n));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(5), "offering waited");
    // What the queue holds, and at least one in the batch in hand.
    collector.expect(51).await;
    let counters = close(exporters, Duration::from_secs(4));
    adds_up(&counters, 200, &collector);
    assert!(counters["otlp_dropped"] >= 100, "{counters:?}");
}

/// Scenario: 429 with Retry-After, shorter than a call's timeout and longer.
/// Guarantees: the collector is left alone for that long, then everything arrives once.
#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests() {
    for timeout in ["10000", "1000"] {
        let collector = Collector::default();
        let wish = Answer {
            retry_after: Some(3),
            ..Answer::of(429)
        };
        collector.answers.lock().unwrap().push_back(wish);
        let at = collector.serve_http(None).await;
        let mut exporters = start_http(at, &[("OTEL_EXPORTER_OTLP_TIMEOUT", timeout)]);
        exporters.send(&numbered(0));
        collector.expect(1).await;
        assert!(first_pause(&collector) >= Duration::from_millis(2950));
        adds_up(&close(exporters, Duration::from_secs(4)), 1, &collector);
    }
}

/// Scenario: 400 to one batch, 500 to another, then 503 and 502 a few times, all by HTTP.
/// Guarantees: after the first two nothing is tried again, and they are counted; the last is delivered.
#[tokio::test(flavor = "multi_thread")]
async fn errors_by_http() {
    let collector = Collector::default();
    let statuses = [400, 500, 503, 503, 502, 503, 503, 504];
    let answers = statuses.map(Answer::of);
    collector.answers.lock().unwrap().extend(answers);
    let at = collector.serve_http(None).await;
    let mut exporters = start_http(at, &[]);
    for n in 0..2 {
        exporters.send(&numbered(n));
        failed(&exporters, n + 1).await;
        assert_eq!(collector.asked.lock().unwrap().len() as u64, n + 1);
    }
    exporters.send(&numbered(2));
    collector.expect(1).await;
    let counters = close(exporters, Duration::from_secs(4));
    adds_up(&counters, 3, &collector);
    assert_eq!((counters["otlp_failed"], counters["otlp_exported"]), (2, 1));
    assert_eq!(collector.asked.lock().unwrap().len(), statuses.len() + 1);
}

/// Scenario: by HTTP, a collector answers well and says that it left out two spans of a batch of five; the next batch it takes whole.
/// Guarantees: those two are counted as failed and not sent again.
#[tokio::test(flavor = "multi_thread")]
async fn partly_taken() {
    let collector = Collector::default();
    collector.answers.lock().unwrap().push_back(Answer {
        rejected: 2,
        ..Answer::of(200)
    });
    let at = collector.serve_http(None).await;
    let five = [("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "5")];
    let mut exporters = start_http(at, &five);
    for n in 0..5 {
        exporters.send(&numbered(n));
    }
    failed(&exporters, 2).await;
    for n in 5..10 {
        exporters.send(&numbered(n));
    }
    collector.expect(8).await;
    let counters = close(exporters, Duration::from_secs(4));
    adds_up(&counters, 10, &collector);
    assert_eq!((counters["otlp_failed"], counters["otlp_exported"]), (2, 8));
}

/// Scenario: by HTTP, a collector, or somebody before it, sends the agent elsewhere, by each status that does.
/// Guarantees: nobody is asked there; the spans are counted as failed.
#[tokio::test(flavor = "multi_thread")]
async fn sent_elsewhere() {
    let (collector, other) = (Collector::default(), Collector::default());
    let elsewhere = other.serve_http(None).await;
    let statuses = [301, 302, 303, 307, 308];
    let answers = statuses.map(|status| Answer {
        location: Some(elsewhere),
        ..Answer::of(status)
    });
    collector.answers.lock().unwrap().extend(answers);
    let at = collector.serve_http(None).await;
    let mut exporters = start_http(at, &[("OTEL_EXPORTER_OTLP_HEADERS", "x-token=hunter2")]);
    for n in 0..statuses.len() as u64 {
        exporters.send(&numbered(n));
        failed(&exporters, n + 1).await;
    }
    adds_up(&close(exporters, Duration::from_secs(4)), 5, &collector);
    assert!(other.asked.lock().unwrap().is_empty());
}

/// Scenario: by gRPC, UNAVAILABLE more often than the exporter itself tries.
/// Guarantees: the spans arrive once.
#[tokio::test(flavor = "multi_thread")]
async fn unavailable() {
    let collector = Collector::default();
    *collector.refuse.lock().unwrap() = (6, Some(tonic::Code::Unavailable));
    let (at, _stop) = collector.serve("127.0.0.1:0".parse().unwrap()).await;
    let mut exporters = start("otlp", Some(format!("http://{at}")), &[]);
    for n in 0..5 {
        exporters.send(&numbered(n));
    }
    collector.expect(5).await;
    adds_up(&close(exporters, Duration::from_secs(4)), 5, &collector);
}

/// Scenario: by gRPC, RESOURCE_EXHAUSTED: without a word of when to come again, then with one, more often than the exporter
/// itself tries.
/// Guarantees: the first is final, as OTLP says, and counted; after the second the spans arrive once, not before their time.
#[tokio::test(flavor = "multi_thread")]
async fn resources_exhausted() {
    let exhausted = Some(tonic::Code::ResourceExhausted);
    let collector = Collector::default();
    *collector.refuse.lock().unwrap() = (1, exhausted);
    let (at, _stop) = collector.serve("127.0.0.1:0".parse().unwrap()).await;
    let mut exporters = start("otlp", Some(format!("http://{at}")), &[]);
    exporters.send(&numbered(0));
    failed(&exporters, 1).await;
    exporters.send(&numbered(1));
    collector.expect(1).await;
    let counters = close(exporters, Duration::from_secs(4));
    adds_up(&counters, 2, &collector);
    assert_eq!(counters["otlp_failed"], 1);

    let patient = Collector {
        retry_info: Some(Duration::from_millis(700)),
        ..Collector::default()
    };
    *patient.refuse.lock().unwrap() = (6, exhausted);
    let (at, _stop) = patient.serve("127.0.0.1:0".parse().unwrap()).await;
    let mut exporters = start("otlp", Some(format!("http://{at}")), &[]);
    exporters.send(&numbered(0));
    patient.expect(1).await;
    assert!(first_pause(&patient) >= Duration::from_millis(700));
    let counters = close(exporters, Duration::from_secs(4));
    adds_up(&counters, 1, &patient);
    assert_eq!(counters["otlp_failed"], 0);
}
