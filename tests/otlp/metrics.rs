//! The agent's own numbers, on their way to a collector that takes them, and to one that does not.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use celeryscope::config::OutputArgs;
use celeryscope::export::{Exporters, Fallback, Mode, OutputSpec, Plan};
use celeryscope::metrics::{Board, Reading, catalogue, of_core};
use celeryscope_core::{Held, MetricKind, Stats};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::collector::Collector;
use super::spans::numbered;

fn plan(endpoint: &str) -> Plan {
    let args = OutputArgs {
        output: Some(vec![OutputSpec::Otlp]),
        otlp_endpoint: Some(endpoint.to_owned()),
        stats: None,
    };
    let env = HashMap::from([
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "200"),
    ]);
    let plan = Plan::with_env(&args, Fallback::Tree, &|name| {
        env.get(name).map(|value| (*value).to_owned())
    });
    plan.unwrap()
}

/// A loop that turns until it is dropped, with these numbers.
struct Turning {
    stop: Arc<AtomicBool>,
}

impl Turning {
    fn start(board: &Arc<Board>, readings: &[Reading]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (board, readings, stopped) = (Arc::clone(board), readings.to_vec(), Arc::clone(&stop));
        thread::spawn(move || {
            while !stopped.load(Relaxed) {
                board.turn(|| readings.clone());
                thread::sleep(Duration::from_millis(10));
            }
        });
        Self { stop }
    }
}

impl Drop for Turning {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

fn metrics(request: &ExportMetricsServiceRequest) -> HashMap<&str, &Metric> {
    let scopes = request
        .resource_metrics
        .iter()
        .flat_map(|group| &group.scope_metrics);
    scopes
        .flat_map(|scope| &scope.metrics)
        .map(|metric| (metric.name.as_str(), metric))
        .collect()
}

fn whole(value: Option<&number_data_point::Value>) -> i64 {
    match value {
        Some(number_data_point::Value::AsInt(value)) => *value,
        other => panic!("no whole number: {other:?}"),
    }
}

/// Scenario: spans and numbers go to a collector that takes both; the program ends.
/// Guarantees: every metric of the catalogue with a number arrives with its unit, counters as monotonic sums, the rest as
/// gauges, of the agent as resource; each output has its own; the last numbers are those of the end.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_arrive() {
    let collector = Collector {
        takes_metrics: true,
        ..Collector::default()
    };
    let (at, _stop) = collector.serve("127.0.0.1:0".parse().unwrap()).await;
    let plan = plan(&format!("http://{at}"));
    let board = Arc::new(Board::default());
    let mut stats = Stats {
        records: 4711,
        ..Stats::default()
    };
    let telemetry = tokio::task::block_in_place(|| plan.telemetry(&board)).unwrap();
    let exporters = Exporters::start(&plan, Mode::Live).unwrap();
    let mut readings = of_core(&stats, &Held::default());
    readings.extend(exporters.readings());
    let _turning = Turning::start(&board, &readings);
    let end = Instant::now() + Duration::from_secs(20);
    while collector.numbers.lock().unwrap().is_empty() {
        assert!(Instant::now() < end, "no numbers came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stats.records = 9999;
    let last = of_core(&stats, &Held::default());
    tokio::task::block_in_place(|| telemetry.finish(last, Duration::from_secs(4)));

    let requests = collector.numbers.lock().unwrap();
    let resource = requests[0].resource_metrics[0].resource.as_ref().unwrap();
    let of_resource = |key: &str| {
        let found = resource.attributes.iter().find(|pair| pair.key == key)?;
        match found.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => Some(text.clone()),
            _ => None,
        }
    };
    assert_eq!(of_resource("service.name").as_deref(), Some("celeryscope"));
    assert_eq!(
        of_resource("service.version").as_deref(),
        Some(env!("CARGO_PKG_VERSION"))
    );
    assert!(of_resource("host.name").is_some_and(|host| !host.is_empty()));

    let first = metrics(&requests[0]);
    let put: HashSet<&str> = readings.iter().map(|reading| reading.metric.name).collect();
    for metric in catalogue().into_iter().filter(|metric| put.contains(metric.name)) {
        let name = format!("celeryscope.{}", metric.name);
        let sent = first
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{name} is not there"));
        assert_eq!(sent.unit, metric.unit, "{name}");
        match (metric.kind, sent.data.as_ref().unwrap()) {
            (MetricKind::Counter, Data::Sum(sum)) => {
                let cumulative = AggregationTemporality::Cumulative as i32;
                assert_eq!(
                    (sum.is_monotonic, sum.aggregation_temporality),
                    (true, cumulative)
                );
            }
            (MetricKind::Gauge, Data::Gauge(_)) => {}
            (kind, data) => panic!("{name} is a {kind:?} and came as {data:?}"),
        }
    }
    let records = |request: &ExportMetricsServiceRequest| match metrics(request)["celeryscope.records"]
        .data
        .as_ref()
        .unwrap()
    {
        Data::Sum(sum) => whole(sum.data_points[0].value.as_ref()),
        other => panic!("{other:?}"),
    };
    assert_eq!(records(&requests[0]), 4711);
    assert_eq!(records(requests.last().unwrap()), 9999, "the last ones");
    let Data::Gauge(queue) = first["celeryscope.export_queue_limit"].data.as_ref().unwrap() else {
        panic!("no gauge");
    };
    assert_eq!(queue.data_points[0].attributes[0].key, "celeryscope.output");
    assert_eq!(whole(queue.data_points[0].value.as_ref()), 16_384);
    assert_eq!(first["process.memory.usage"].unit, "By");
    assert_eq!(first["process.cpu.time"].unit, "s");
}

/// Scenario: the same to a collector that knows traces only, over gRPC.
/// Guarantees: the spans arrive as ever, and the end comes in time.
#[tokio::test(flavor = "multi_thread")]
async fn spans_go_on_without() {
    let collector = Collector::default();
    let (at, _stop) = collector.serve("127.0.0.1:0".parse().unwrap()).await;
    deliver_beside_refusals(&format!("http://{at}")).await;
    assert_eq!(collector.spans().len(), 3);
}

/// Scenario: a server that answers 404 to metrics and 200 to spans, over HTTP.
/// Guarantees: metrics are tried, spans arrive as ever, and the end comes in time.
#[tokio::test(flavor = "multi_thread")]
async fn not_found_is_no_matter() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let refused = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&refused);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut bytes = vec![0; 1 << 20];
                let mut len = 0;
                while !bytes[..len].windows(4).any(|window| window == b"\r\n\r\n") {
                    match socket.read(&mut bytes[len..]).await {
                        Ok(more @ 1..) => len += more,
                        _ => return,
                    }
                }
                let status = if bytes.starts_with(b"POST /v1/metrics ") {
                    counted.fetch_add(1, Relaxed);
                    "404 Not Found"
                } else {
                    "200 OK"
                };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = socket.write_all(answer.as_bytes()).await;
                // What is still coming must not turn into a reset.
                let _ = tokio::time::timeout(Duration::from_millis(100), socket.read(&mut bytes)).await;
            });
        }
    });
    // Port and path say HTTP to the exporter only where the port is 4318: the protocol is asked for.
    let args = OutputArgs {
        output: Some(vec![OutputSpec::Otlp]),
        otlp_endpoint: Some(format!("http://{at}")),
        stats: None,
    };
    let plan = Plan::with_env(&args, Fallback::Tree, &|name| match name {
        "OTEL_EXPORTER_OTLP_PROTOCOL" => Some("http/protobuf".to_owned()),
        "OTEL_METRIC_EXPORT_INTERVAL" => Some("200".to_owned()),
        "OTEL_BSP_SCHEDULE_DELAY" => Some("50".to_owned()),
        _ => None,
    });
    deliver(plan.unwrap()).await;
    assert!(refused.load(Relaxed) > 1, "metrics were not tried");
}

async fn deliver_beside_refusals(endpoint: &str) {
    deliver(plan(endpoint)).await;
}

/// Three spans, with numbers going out beside them for a second.
async fn deliver(plan: Plan) {
    let board = Arc::new(Board::default());
    let telemetry = tokio::task::block_in_place(|| plan.telemetry(&board)).unwrap();
    let readings = of_core(&Stats::default(), &Held::default());
    let _turning = Turning::start(&board, &readings);
    let mut exporters = Exporters::start(&plan, Mode::Live).unwrap();
    for n in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        exporters.send(&numbered(n));
    }
    let began = Instant::now();
    tokio::task::block_in_place(|| exporters.close(Duration::from_secs(4))).unwrap();
    tokio::task::block_in_place(|| telemetry.finish(readings, Duration::from_secs(4)));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let totals = exporters.totals();
    assert_eq!((totals.exported, totals.dropped, totals.failed), (3, 0, 0));
}
