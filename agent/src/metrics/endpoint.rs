//! `--metrics-listen`: the numbers for Prometheus, and whether the agent lives and is ready, over HTTP.
//!
//! On a thread of its own, so that a slow client never holds up capture; it reads what the loop put on the [`Board`]. The
//! number of connections, the size of a request's head and the time that a client may take are bounded.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use super::board::Board;
use super::exposition::{self, exposition};
use super::own::Usage;

/// Connections served at once; more wait to be accepted.
const CONNECTIONS: usize = 64;
/// Largest head of a request.
const HEAD: usize = 16 * 1024;
/// A client has sent its request by then, or is hung up on.
const HEAD_TIME: Duration = Duration::from_secs(3);
/// And has read the answer by then.
const WHOLE_TIME: Duration = Duration::from_secs(10);
/// How long the loop is waited for when the numbers there are old.
const PATIENCE: Duration = Duration::from_millis(500);

/// An address that is listened on; who connects waits.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

/// The running endpoint. Dropping it ends it.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    _running: oneshot::Sender<()>,
}

impl Bound {
    /// Listens.
    ///
    /// # Errors
    /// The address can't be had.
    pub fn new(address: SocketAddr) -> anyhow::Result<Self> {
        let listen = || -> std::io::Result<(TcpListener, SocketAddr)> {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = listen().map_err(|error| {
            let advice = match error.kind() {
                std::io::ErrorKind::AddrInUse => ": another program listens there, give another port",
                std::io::ErrorKind::AddrNotAvailable => ": no interface of this host has that address",
                _ => "",
            };
            anyhow!("can't listen on {address} (--metrics-listen): {error}{advice}")
        })?;
        tracing::info!("metrics at http://{address}/metrics");
        if !address.ip().is_loopback() {
            tracing::warn!(
                "metrics on {address} are open to the network: anybody who reaches it can read them"
            );
        }
        Ok(Self { listener, address })
    }
}

impl Endpoint {
    /// Answers.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn start(bound: Bound, board: Arc<Board>) -> anyhow::Result<Self> {
        let Bound { listener, address } = bound;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("can't start the event loop of --metrics-listen")?;
        let (running, ended) = oneshot::channel::<()>();
        thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = serve(listener, board) => {}
                        _ = ended => {}
                    }
                });
            })
            .context("can't start the thread of --metrics-listen")?;
        Ok(Self {
            address,
            _running: running,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(listener: TcpListener, board: Arc<Board>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("--metrics-listen: can't wait for connections: {error}"),
    };
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else {
            return;
        };
        let Ok((socket, _)) = listener.accept().await else {
            // Most likely out of descriptors: some will be closed.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let board = Arc::clone(&board);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let board = Arc::clone(&board);
                async move { Ok::<_, Infallible>(answer(&request, &board).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME)
                .max_buf_size(HEAD)
                .keep_alive(false)
                .serve_connection(TokioIo::new(socket), service);
            // What a client does wrong is its own affair.
            let _ = timeout(WHOLE_TIME, connection).await;
            drop(seat);
        });
    }
}

async fn answer(request: &Request<Incoming>, board: &Board) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !["/metrics", "/healthz", "/readyz"].contains(&path) {
        return plain(StatusCode::NOT_FOUND, "not found: /metrics, /healthz, /readyz\n");
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        response
            .headers_mut()
            .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => metrics(board).await,
        "/healthz" => match board.stuck() {
            None => plain(StatusCode::OK, "ok\n"),
            Some(still) => {
                let text = format!("the loop has not turned for {} s\n", still.as_secs());
                plain(StatusCode::SERVICE_UNAVAILABLE, text)
            }
        },
        _ if board.is_ready() => plain(StatusCode::OK, "ok\n"),
        _ => plain(StatusCode::SERVICE_UNAVAILABLE, "capture is not attached\n"),
    }
}

async fn metrics(board: &Board) -> Response<Full<Bytes>> {
    let mut readings = board.recent(PATIENCE).await.readings;
    readings.extend(Usage::now().readings());
    respond(StatusCode::OK, exposition::CONTENT_TYPE, exposition(&readings))
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", text)
}

fn respond(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
