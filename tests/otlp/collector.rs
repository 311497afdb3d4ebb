//! A collector in this process: gRPC or HTTP, under TLS or not.

use std::collections::VecDeque;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span as OtlpSpan;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tonic::transport::ServerTlsConfig;
use tonic::transport::server::TcpIncoming;
use tonic_types::{ErrorDetails, StatusExt as _};

/// A collector that keeps what it is given.
#[derive(Clone, Default)]
pub(crate) struct Collector {
    pub(crate) got: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    /// What came of the agent's own numbers, where they are taken.
    pub(crate) numbers: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
    pub(crate) takes_metrics: bool,
    /// Refuse that many requests first.
    pub(crate) refuse: Arc<Mutex<(usize, Option<tonic::Code>)>>,
    /// Whom it refuses is told to come again after this time.
    pub(crate) retry_info: Option<Duration>,
    /// What the first requests by HTTP get; then they are taken.
    pub(crate) answers: Arc<Mutex<VecDeque<Answer>>>,
    /// How many requests by HTTP came compressed.
    pub(crate) gzipped: Arc<AtomicUsize>,
    /// When each request came.
    pub(crate) asked: Arc<Mutex<Vec<Instant>>>,
}

/// An answer by HTTP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<u64>,
    /// It takes that long.
    pub(crate) after: Duration,
    /// It sends elsewhere.
    pub(crate) location: Option<SocketAddr>,
    /// So many spans are left out, as it says.
    pub(crate) rejected: usize,
}

impl Answer {
    pub(crate) fn of(status: u16) -> Self {
        Self {
            status,
            retry_after: None,
            after: Duration::ZERO,
            location: None,
            rejected: 0,
        }
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.asked.lock().unwrap().push(Instant::now());
        if let (left @ 1.., Some(code)) = &mut *self.refuse.lock().unwrap() {
            *left -= 1;
            let details = self
                .retry_info
                .map(|after| ErrorDetails::with_retry_info(Some(after)));
            return Err(match details {
                Some(details) => tonic::Status::with_error_details(*code, "not now", details),
                None => tonic::Status::new(*code, "not now"),
            });
        }
        self.got.lock().unwrap().push(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        self.numbers.lock().unwrap().push(request.into_inner());
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}

impl Collector {
    /// Serves gRPC until the sender is dropped.
    pub(crate) async fn serve(&self, at: SocketAddr) -> (SocketAddr, oneshot::Sender<()>) {
        self.serve_with(at, None).await
    }

    /// The same, under TLS where there is a configuration.
    pub(crate) async fn serve_with(
        &self,
        at: SocketAddr,
        tls: Option<ServerTlsConfig>,
    ) -> (SocketAddr, oneshot::Sender<()>) {
        let listener = TcpListener::bind(at).await.unwrap();
        let at = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let service = TraceServiceServer::new(self.clone());
        let metrics = self
            .takes_metrics
            .then(|| MetricsServiceServer::new(self.clone()));
        tokio::spawn(async move {
            let ended = async { drop(stopped.await) };
            let mut server = tonic::transport::Server::builder();
            if let Some(tls) = tls {
                server = server.tls_config(tls).unwrap();
            }
            let server = server.add_service(service).add_optional_service(metrics);
            server
                .serve_with_incoming_shutdown(TcpIncoming::from(listener), ended)
                .await
                .unwrap();
        });
        (at, stop)
    }

    /// Serves OTLP/HTTP, under TLS where there is an acceptor.
    pub(crate) async fn serve_http(&self, tls: Option<TlsAcceptor>) -> SocketAddr {
        self.serve_http_at("127.0.0.1:0".parse().unwrap(), tls).await
    }

    /// The same at an address of the caller's.
    pub(crate) async fn serve_http_at(&self, at: SocketAddr, tls: Option<TlsAcceptor>) -> SocketAddr {
        let listener = TcpListener::bind(at).await.unwrap();
        let at = listener.local_addr().unwrap();
        let collector = self.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                match &tls {
                    Some(tls) => {
                        if let Ok(mut socket) = tls.accept(socket).await {
                            answer(&mut socket, &collector).await;
                        }
                    }
                    None => answer(&mut { socket }, &collector).await,
                }
            }
        });
        at
    }

    pub(crate) fn spans(&self) -> Vec<OtlpSpan> {
        let requests = self.got.lock().unwrap();
        let scopes = requests
            .iter()
            .flat_map(|request| &request.resource_spans)
            .flat_map(|group| &group.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// Waits until so many spans have come.
    pub(crate) async fn expect(&self, count: usize) {
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
async fn answer(socket: &mut (impl AsyncRead + AsyncWrite + Unpin), collector: &Collector) {
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
    let body = decoded(&head, &bytes[head.len() + 4..]);
    collector
        .gzipped
        .fetch_add(usize::from(head.contains(GZIPPED)), Relaxed);
    collector.asked.lock().unwrap().push(Instant::now());
    let next = collector.answers.lock().unwrap().pop_front();
    let next = next.unwrap_or_else(|| Answer::of(200));
    if next.status == 200 {
        let mut request = ExportTraceServiceRequest::decode(&*body).unwrap();
        let spans = &mut request.resource_spans[0].scope_spans[0].spans;
        spans.truncate(spans.len() - next.rejected);
        collector.got.lock().unwrap().push(request);
    }
    tokio::time::sleep(next.after).await;
    let wish = next
        .retry_after
        .map(|seconds| format!("retry-after: {seconds}\r\n"));
    let elsewhere = next
        .location
        .map(|at| format!("location: http://{at}/v1/traces\r\n"));
    let told = ExportTraceServiceResponse {
        partial_success: (next.rejected > 0).then(|| ExportTracePartialSuccess {
            rejected_spans: next.rejected.try_into().unwrap(),
            error_message: "too many attributes".to_owned(),
        }),
    };
    let told = told.encode_to_vec();
    let head = format!(
        "HTTP/1.1 {} So\r\n{}{}content-length: {}\r\nconnection: close\r\n\r\n",
        next.status,
        wish.unwrap_or_default(),
        elsewhere.unwrap_or_default(),
        told.len(),
    );
    // Who has given up waiting is not there any more.
    let _ = socket.write_all(&[head.as_bytes(), &told].concat()).await;
    let _ = socket.flush().await;
}

const GZIPPED: &str = "content-encoding: gzip";

fn decoded(head: &str, body: &[u8]) -> Vec<u8> {
    if !head.contains(GZIPPED) {
        return body.to_vec();
    }
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(body)
        .read_to_end(&mut plain)
        .unwrap();
    plain
}
