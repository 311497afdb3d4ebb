//! The exporters against collectors in this process: what arrives, and what happens when nothing can.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use celeryscope::config::OutputArgs;
use celeryscope::export::{Exporters, Fallback, Mode, OutputSpec, Plan};
use celeryscope_core::{Event, Link, Process, Span, SpanId, SpanKind, Status, TraceId};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span as OtlpSpan;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

/// A collector that keeps what it is given.
#[derive(Clone, Default)]
struct Collector {
    got: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    /// Refuse that many requests first.
    refuse: Arc<Mutex<(usize, Option<tonic::Code>)>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        if let (left @ 1.., Some(code)) = &mut *self.refuse.lock().unwrap() {
            *left -= 1;
            return Err(tonic::Status::new(*code, "not now"));
        }
        self.got.lock().unwrap().push(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Serves gRPC until the sender is dropped.
    async fn serve(&self, at: SocketAddr) -> (SocketAddr, oneshot::Sender<()>) {
        self.serve_with(at, None).await
    }

    /// The same, under TLS where there is a configuration.
    async fn serve_with(
        &self,
        at: SocketAddr,
        tls: Option<ServerTlsConfig>,
    ) -> (SocketAddr, oneshot::Sender<()>) {
        let listener = TcpListener::bind(at).await.unwrap();
        let at = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let service = TraceServiceServer::new(self.clone());
        tokio::spawn(async move {
            let ended = async { drop(stopped.await) };
            let mut server = tonic::transport::Server::builder();
            if let Some(tls) = tls {
                server = server.tls_config(tls).unwrap();
            }
            let server = server.add_service(service);
            server
                .serve_with_incoming_shutdown(TcpIncoming::from(listener), ended)
                .await
                .unwrap();
        });
        (at, stop)
    }

    /// Serves OTLP/HTTP, under TLS where there is an acceptor.
    async fn serve_http(&self, tls: Option<TlsAcceptor>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let got = Arc::clone(&self.got);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                match &tls {
                    Some(tls) => {
                        if let Ok(mut socket) = tls.accept(socket).await {
                            answer(&mut socket, &got).await;
                        }
                    }
                    None => answer(&mut { socket }, &got).await,
                }
            }
        });
        at
    }

    fn spans(&self) -> Vec<OtlpSpan> {
        let requests = self.got.lock().unwrap();
        let scopes = requests
            .iter()
            .flat_map(|request| &request.resource_spans)
            .flat_map(|group| &group.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// Waits until so many spans have come.
    async fn expect(&self, count: usize) {
        let end = Instant::now() + Duration::from_secs(20);
        while self.spans().len() < count {
            assert!(
                Instant::now() < end,
                "{} of {count} spans came",
                self.spans().len()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// One request of OTLP/HTTP, as much of HTTP/1.1 as that takes.
async fn answer(
    socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
    got: &Mutex<Vec<ExportTraceServiceRequest>>,
) {
    let mut bytes = Vec::new();
    let (head, length) = loop {
        assert!(socket.read_buf(&mut bytes).await.unwrap() > 0);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap();
        break (head.clone(), end + 4 + length.parse::<usize>().unwrap());
    };
    while bytes.len() < length {
        assert!(socket.read_buf(&mut bytes).await.unwrap() > 0);
    }
    assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    let body = &bytes[head.len() + 4..];
    got.lock()
        .unwrap()
        .push(ExportTraceServiceRequest::decode(body).unwrap());
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    socket.write_all(answer.as_bytes()).await.unwrap();
    socket.flush().await.unwrap();
}

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
    Exporters::start(plan.unwrap(), Mode::Live).unwrap()
}

fn close(mut exporters: Exporters, deadline: Duration) -> HashMap<String, u64> {
    tokio::task::block_in_place(|| exporters.close(deadline)).unwrap();
    exporters
        .counters()
        .into_iter()
        .map(|counter| (counter.name, counter.value))
        .collect()
}

fn numbered(n: u64) -> Arc<Span> {
    let mut span = Span::new(
        SpanKind::Publish,
        TraceId([1; 16]),
        SpanId([1; 8]),
        "publish shop.add",
    );
    span.span_id = SpanId((n + 1).to_be_bytes());
    Arc::new(span)
}

fn process(pid: u32, service: &str) -> Arc<Process> {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    Arc::new(Process {
        pid,
        resource: vec![
            pair("service.name", service),
            pair("process.pid", &pid.to_string()),
        ],
    })
}

/// A publish and the failed run of it, of two services.
fn pair_of_spans() -> [Arc<Span>; 2] {
    let mut publish = Span::new(
        SpanKind::Publish,
        TraceId([1; 16]),
        SpanId([1; 8]),
        "publish shop.pay",
    );
    publish.span_id = SpanId([2; 8]);
    publish.start.0 = 1_795_186_876_000_000_001;
    publish.end.0 = 1_795_186_876_000_000_999;
    publish.process = process(7, "web");
    let mut run = Span::new(SpanKind::Run, TraceId([1; 16]), SpanId([1; 8]), "run shop.pay");
    run.span_id = SpanId([3; 8]);
    run.parent = Some(SpanId([2; 8]));
    run.trace_state = "vendor=x".to_owned();
    run.start.0 = 1_795_186_877_000_000_000;
    run.end.0 = 1_795_186_878_000_000_000;
    run.status = Status::Error("ValueError".to_owned());
    run.attributes = vec![
        ("celery.task_name", "shop.pay".into()),
        ("celery.retry_count", 2.into()),
        ("celery.queue_time", 0.25.into()),
        ("celery.redelivered", true.into()),
    ];
    run.events.push(Event {
        name: "exception",
        at: run.end,
        attributes: vec![("exception.type", "ValueError".into())],
    });
    run.links.push(Link {
        trace_id: TraceId([9; 16]),
        span_id: SpanId([8; 8]),
    });
    run.process = process(8, "worker");
    [Arc::new(publish), Arc::new(run)]
}

fn value(pairs: &[KeyValue], key: &str) -> Option<Value> {
    pairs.iter().find(|pair| pair.key == key)?.value.clone()?.value
}

/// What must have arrived of [`pair_of_spans`], whatever the way.
fn assert_pair(requests: &[ExportTraceServiceRequest]) {
    let groups: Vec<_> = requests
        .iter()
        .flat_map(|request| &request.resource_spans)
        .collect();
    assert_eq!(groups.len(), 2, "one resource for each process");
    let by_service = |name: &str| {
        let group = groups.iter().find(|group| {
            let attributes = &group.resource.as_ref().unwrap().attributes;
            value(attributes, "service.name") == Some(Value::StringValue(name.to_owned()))
        });
        let group = group.unwrap_or_else(|| panic!("no resource of {name}"));
        let scope = &group.scope_spans[0];
        assert_eq!(scope.scope.as_ref().unwrap().name, "celeryscope");
        assert_eq!(scope.spans.len(), 1);
        (group.resource.clone().unwrap().attributes, scope.spans[0].clone())
    };
    let (resource, publish) = by_service("web");
    assert_eq!(value(&resource, "process.pid"), Some(Value::IntValue(7)));
    assert_eq!(
        (publish.kind, publish.parent_span_id.len()),
        (4, 0),
        "a producer without parent"
    );
    assert_eq!((publish.trace_id, publish.span_id), (vec![1; 16], vec![2; 8]));
    assert_eq!(publish.start_time_unix_nano, 1_795_186_876_000_000_001);
    assert_eq!(publish.end_time_unix_nano, 1_795_186_876_000_000_999);

    let (_, run) = by_service("worker");
    assert_eq!(
        (run.kind, run.parent_span_id),
        (5, vec![2; 8]),
        "a consumer below the publish"
    );
    assert_eq!(
        (run.name.as_str(), run.trace_state.as_str()),
        ("run shop.pay", "vendor=x")
    );
    assert_eq!(run.flags & 0x301, 0x301, "sampled, parent elsewhere");
    let status = run.status.unwrap();
    assert_eq!((status.code, status.message.as_str()), (2, "ValueError"));
    assert_eq!(
        value(&run.attributes, "celery.retry_count"),
        Some(Value::IntValue(2))
    );
    assert_eq!(
        value(&run.attributes, "celery.queue_time"),
        Some(Value::DoubleValue(0.25))
    );
    assert_eq!(
        value(&run.attributes, "celery.redelivered"),
        Some(Value::BoolValue(true))
    );
    assert_eq!(run.events[0].name, "exception");
    assert_eq!(run.events[0].time_unix_nano, 1_795_186_878_000_000_000);
    assert_eq!(
        (&run.links[0].trace_id, &run.links[0].span_id),
        (&vec![9; 16], &vec![8; 8])
    );
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

/// A certificate authority of our own, what it signed, and its folder.
struct Certificates {
    folder: std::path::PathBuf,
    authority: String,
    certificate: String,
    key: String,
}

impl Certificates {
    fn new(name: &str) -> Self {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_certificate = authority.self_signed(&authority_key).unwrap();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let folder = std::env::temp_dir().join(format!("celeryscope-tls-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let made = Self {
            folder,
            authority: authority_certificate.pem(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        };
        for (file, pem) in [
            ("ca", &made.authority),
            ("cert", &made.certificate),
            ("key", &made.key),
        ] {
            std::fs::write(made.folder.join(file), pem).unwrap();
        }
        made
    }

    fn path(&self, file: &str) -> String {
        self.folder.join(file).display().to_string()
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Scenario: gRPC under TLS to a collector that wants to know its clients; the variables name authority, certificate
/// and key. Then an agent that does not know the authority.
/// Guarantees: the first delivers, the second delivers nothing.
#[tokio::test(flavor = "multi_thread")]
async fn grpc_under_tls() {
    let made = Certificates::new("grpc");
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(&made.certificate, &made.key))
        .client_ca_root(Certificate::from_pem(&made.authority));
    let collector = Collector::default();
    let (at, _stop) = collector
        .serve_with("127.0.0.1:0".parse().unwrap(), Some(tls))
        .await;
    let endpoint = format!("https://localhost:{}", at.port());
    let (ca, cert, key) = (made.path("ca"), made.path("cert"), made.path("key"));
    let vars = [
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", ca.as_str()),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", cert.as_str()),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", key.as_str()),
    ];
    let mut exporters = start("otlp", Some(endpoint.clone()), &vars);
    exporters.send(&numbered(0));
    assert_eq!(close(exporters, Duration::from_secs(4))["otlp_exported"], 1);

    let mut stranger = start("otlp", Some(endpoint), &[]);
    stranger.send(&numbered(1));
    assert_eq!(close(stranger, Duration::from_secs(1))["otlp_exported"], 0);
    assert_eq!(collector.spans().len(), 1);
}

/// Scenario: OTLP/HTTP under TLS, the authority named by its variable; then without.
/// Guarantees: the first delivers, the second delivers nothing.
#[tokio::test(flavor = "multi_thread")]
async fn http_under_tls() {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    let made = Certificates::new("http");
    let certificate = CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let collector = Collector::default();
    let at = collector.serve_http(Some(Arc::new(config).into())).await;
    let endpoint = format!("https://localhost:{}", at.port());
    let ca = made.path("ca");
    let protocol = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf");
    let vars = [protocol, ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", ca.as_str())];
    let mut exporters = start("otlp", Some(endpoint.clone()), &vars);
    exporters.send(&numbered(0));
    assert_eq!(close(exporters, Duration::from_secs(4))["otlp_exported"], 1);

    let mut stranger = start("otlp", Some(endpoint), &[protocol]);
    stranger.send(&numbered(1));
    assert_eq!(close(stranger, Duration::from_secs(1))["otlp_exported"], 0);
    assert_eq!(collector.spans().len(), 1);
}
