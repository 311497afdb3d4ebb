//! The exporters against collectors in this process: what arrives, and what happens when nothing can.

mod collector;
mod faults;
mod metrics;
mod spans;
mod tls;

use std::collections::HashMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use celeryscope::config::OutputArgs;
use celeryscope::export::{Exporters, Fallback, Mode, OutputSpec, Plan};
use tokio::net::TcpListener;

use collector::Collector;
use spans::{assert_pair, numbered, pair_of_spans};

fn start(output: &str, endpoint: Option<String>, vars: &[(&str, &str)]) -> Exporters {
    let args = OutputArgs {
        output: Some(vec![output.parse::<OutputSpec>().unwrap()]),
        otlp_endpoint: endpoint,
        stats: None,
    };
    let mut env: HashMap<&str, &str> = HashMap::from([("OTEL_BSP_SCHEDULE_DELAY", "50")]);
    env.extend(vars.iter().copied());
    let plan = Plan::with_env(&args, Fallback::Tree, &|name| {
        env.get(name).map(|value| (*value).to_owned())
    });
    Exporters::start(&plan.unwrap(), Mode::Live).unwrap()
}

fn close(mut exporters: Exporters, deadline: Duration) -> HashMap<String, u64> {
    tokio::task::block_in_place(|| exporters.close(deadline)).unwrap();
    exporters
        .readings()
        .into_iter()
        .map(|reading| (reading.key(), reading.value))
        .collect()
}

/// Scenario: a publish and a run of two services, over gRPC.
/// Guarantees: they arrive with every field, each under its own service's resource, and are counted.
#[tokio::test(flavor = "multi_thread")]
async fn grpc_delivers_everything() {
    let collector = Collector::default();
    let (at, _stop) = collector.serve("127.0.0.1:0".parse().unwrap()).await;
    let mut exporters = start("otlp", Some(format!("http://{at}")), &[]);
    for span in &pair_of_spans() {
        exporters.send(span);
    }
    collector.expect(2).await;
    let counters = close(exporters, Duration::from_secs(4));
    assert_pair(&collector.got.lock().unwrap());
    assert_eq!(
        (
            counters["otlp_accepted"],
            counters["otlp_exported"],
            counters["otlp_dropped"]
        ),
        (2, 2, 0)
    );
}

/// Scenario: the same over HTTP, chosen by the standard variable, with a bare endpoint.
/// Guarantees: they arrive at /v1/traces as protobuf, with every field.
#[tokio::test(flavor = "multi_thread")]
async fn http_delivers_everything() {
    let collector = Collector::default();
    let at = collector.serve_http(None).await;
    let protocol = [("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
    let mut exporters = start("otlp", Some(format!("http://{at}")), &protocol);
    for span in &pair_of_spans() {
        exporters.send(span);
    }
    // Closing flushes: nothing waits for the batch's delay.
    let counters = close(exporters, Duration::from_secs(4));
    assert_pair(&collector.got.lock().unwrap());
    assert_eq!(counters["otlp_exported"], 2);
}

/// Scenario: the same in a process whose environment asks for compression, which the exporter reads by itself.
/// Guarantees: they arrive compressed, and the same.
#[tokio::test(flavor = "multi_thread")]
async fn http_compressed() {
    const COMPRESSION: &str = "OTEL_EXPORTER_OTLP_COMPRESSION";
    if std::env::var_os(COMPRESSION).is_none() {
        let mut own = Command::new(std::env::current_exe().unwrap());
        let output = own
            .args(["--exact", "http_compressed"])
            .env(COMPRESSION, "gzip")
            .output();
        let output = output.unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        return;
    }
    let collector = Collector::default();
    let at = collector.serve_http(None).await;
    let mut exporters = start(
        "otlp",
        Some(format!("http://{at}/v1/traces")),
        &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")],
    );
    for span in &pair_of_spans() {
        exporters.send(span);
    }
    close(exporters, Duration::from_secs(4));
    assert_pair(&collector.got.lock().unwrap());
    assert_eq!(
        collector.gzipped.load(Relaxed),
        2,
        "requests, one for each process"
    );
}

/// Scenario: the same into a file.
/// Guarantees: one line of OTLP/JSON that reads back as the same request.
#[tokio::test(flavor = "multi_thread")]
async fn otlp_json_is_one_request_a_line() {
    let path = std::env::temp_dir().join(format!("celeryscope-otlp-{}.jsonl", std::process::id()));
    let mut exporters = start(&format!("otlp-json={}", path.display()), None, &[]);
    for span in &pair_of_spans() {
        exporters.send(span);
    }
    let counters = close(exporters, Duration::from_secs(4));
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!((text.lines().count(), counters["otlp_json_exported"]), (1, 2));
    assert!(
        text.contains(r#""traceId":"01010101010101010101010101010101""#),
        "ids are hex: {text}"
    );
    assert!(
        text.contains(r#""startTimeUnixNano":"1795186876000000001""#),
        "times are strings: {text}"
    );
    assert_pair(&[serde_json::from_str(&text).unwrap()]);
}

/// Scenario: the collector is away at the start, comes, goes, and comes back.
/// Guarantees: every span arrives in the end, none twice, none dropped.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_may_come_and_go() {
    let collector = Collector::default();
    let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = reserved.local_addr().unwrap();
    drop(reserved);
    let mut exporters = start("otlp", Some(format!("http://{at}")), &[]);
    for n in 0..10 {
        exporters.send(&numbered(n));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (_, stop) = collector.serve(at).await;
    collector.expect(10).await;
    drop(stop);
    tokio::time::sleep(Duration::from_millis(300)).await;
    for n in 10..20 {
        exporters.send(&numbered(n));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (_, _stop) = collector.serve(at).await;
    collector.expect(20).await;
    let counters = close(exporters, Duration::from_secs(4));
    let mut ids: Vec<_> = collector.spans().into_iter().map(|span| span.span_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), collector.spans().len()), (20, 20));
    assert_eq!(
        (
            counters["otlp_exported"],
            counters["otlp_dropped"],
            counters["otlp_failed"]
        ),
        (20, 0, 0)
    );
}

/// Scenario: the collector says "bad request" to one batch, and "unavailable" a few times to another.
/// Guarantees: the first is dropped and counted, not tried again; the second is delivered.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_final_or_not() {
    let collector = Collector::default();
    let (at, _stop) = collector.serve("127.0.0.1:0".parse().unwrap()).await;
    *collector.refuse.lock().unwrap() = (1, Some(tonic::Code::InvalidArgument));
    let mut exporters = start("otlp", Some(format!("http://{at}")), &[]);
    exporters.send(&numbered(0));
    let end = Instant::now() + Duration::from_secs(10);
    while exporters.totals().failed == 0 && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    *collector.refuse.lock().unwrap() = (6, Some(tonic::Code::Unavailable));
    exporters.send(&numbered(1));
    collector.expect(1).await;
    let counters = close(exporters, Duration::from_secs(4));
    assert_eq!(collector.spans()[0].span_id, 2_u64.to_be_bytes());
    assert_eq!(
        (
            counters["otlp_failed"],
            counters["otlp_exported"],
            counters["otlp_accepted"]
        ),
        (1, 1, 2)
    );
}

/// Scenario: a collector that takes connections and never answers; more spans than the queue holds.
/// Guarantees: offering never waits, the end comes in time, and every span is accounted for as dropped.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_collector_stops_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = silent.local_addr().unwrap();
    let queue = [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10"),
    ];
    let mut exporters = start("otlp", Some(format!("http://{at}")), &queue);
    let began = Instant::now();
    for n in 0..5000 {
        exporters.send(&numbered(n));
    }
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "offering took {:?}",
        began.elapsed()
    );
    let began = Instant::now();
    let counters = close(exporters, Duration::from_millis(500));
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "closing took {:?}",
        began.elapsed()
    );
    assert_eq!(counters["otlp_dropped"], 5000);
    assert_eq!(
        (
            counters["otlp_accepted"],
            counters["otlp_exported"],
            counters["otlp_failed"]
        ),
        (0, 0, 0)
    );
}

/// Scenario: OTEL_TRACES_SAMPLER keeps nothing, then only what its publisher had sampled.
/// Guarantees: the rest is counted as unsampled and not sent.
#[tokio::test(flavor = "multi_thread")]
async fn the_sampler_decides() {
    let collector = Collector::default();
    let (at, _stop) = collector.serve("127.0.0.1:0".parse().unwrap()).await;
    let vars = [
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0"),
    ];
    let mut exporters = start("otlp", Some(format!("http://{at}")), &vars);
    let mut sampled = (*numbered(5)).clone();
    sampled.sampled = Some(true);
    exporters.send(&Arc::new(sampled));
    exporters.send(&numbered(6));
    let counters = close(exporters, Duration::from_secs(4));
    assert_eq!(collector.spans().len(), 1);
    assert_eq!((counters["otlp_exported"], counters["otlp_unsampled"]), (1, 1));
}
