//! Connections of the HTTP interface, plain or by TLS: how many, and how long each may take to say what it wants.
//!
//! What a handler reads and writes is bounded by the handler: bodies that come slowly by STOW-RS, answers that are taken slowly by WADO-RS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::Instrument;

use super::config::HttpConfig;
use super::http::audit;
use super::metrics::Metrics;
use super::settings::Current;
use super::trail::next_id;
use crate::store::{AuditRecord, Store};

/// The longest head of a request.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Between two attempts to take a connection, where the system has no more sockets.
const WAIT: Duration = Duration::from_millis(50);

/// Who calls, for handlers.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The other side.
    pub(super) peer: SocketAddr,
    /// Scheme and host by which he calls, where he says it: `https://node.example:11180`.
    pub(super) base: Option<String>,
}

/// What takes connections.
pub(super) struct Server {
    pub(super) current: Arc<Current>,
    pub(super) store: Arc<Store>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) routes: Router,
}

impl Server {
    /// Answers to all that come, as long as the runtime lives.
    pub(super) async fn run(self, listener: TcpListener) {
        let server = Arc::new(self);
        let places = Arc::new(Semaphore::new(server.current.get().http.connections));
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(taken) => taken,
                Err(error) => {
                    tracing::error!(%error, "an HTTP connection cannot be taken");
                    tokio::time::sleep(WAIT).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                server.metrics.http_refused.add(1);
                continue; // closed
            };
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let _place = place;
                server.connection(stream, peer).await;
            });
        }
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr) {
        let settings = self.current.get();
        let limit = Duration::from_secs(settings.http.head_s);
        let _ = stream.set_nodelay(true); // slower without, and no worse
        let Some(config) = settings.http_server() else { return self.serve(stream, peer, limit).await };
        match timeout(limit, TlsAcceptor::from(config).accept(stream)).await {
            Ok(Ok(stream)) => self.serve(stream, peer, limit).await,
            Ok(Err(error)) => {
                self.metrics.http_refused.add(1);
                tracing::warn!(%peer, %error, "an HTTP connection is refused by TLS");
                // Who goes away in the middle is no danger; who shows what we do not trust may be one.
                if error.kind() == io::ErrorKind::InvalidData {
                    audit(&self.store, AuditRecord::security_alert(&peer.to_string(), &format!("HTTP by TLS: {error}"))).await;
                }
            }
            Err(_) => self.metrics.http_refused.add(1),
        }
    }

    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: SocketAddr, head: Duration) {
        let connection = Connection { peer, current: Arc::clone(&self.current), metrics: Arc::clone(&self.metrics) };
        let routes = self.routes.clone().layer(middleware::from_fn_with_state(connection, around));
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
        if let Err(error) = served.await {
            tracing::debug!(%peer, %error, "an HTTP connection ended early");
        }
    }
}

/// What is known of each request of a connection.
#[derive(Clone)]
struct Connection {
    peer: SocketAddr,
    current: Arc<Current>,
    metrics: Arc<Metrics>,
}

/// Says who calls, counts, and gives the request an id, which stands in the log and in the answer.
async fn around(State(connection): State<Connection>, mut request: Request, next: Next) -> Response {
    let (began, id) = (Instant::now(), next_id());
    let base = base(request.headers(), &connection.current.get().http);
    request.extensions_mut().insert(Caller { peer: connection.peer, base });
    let span = tracing::error_span!("request", request = id, peer = %connection.peer);
    let mut response = next.run(request).instrument(span).await;
    connection.metrics.answered(response.status().as_u16(), began.elapsed());
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

/// Scheme and host by which the caller finds us: the host that he names, or what a proxy that we believe says of both.
fn base(headers: &HeaderMap, config: &HttpConfig) -> Option<String> {
    let printable = |host: &&str| !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-[]_".contains(&b));
    // A proxy behind a proxy adds its own behind a comma.
    let first = |name: &str| Some(headers.get(name)?.to_str().ok()?.split(',').next()?.trim());
    let forwarded = |name| config.forwarded.then(|| first(name)).flatten();
    let own = if config.tls.is_some() { "https" } else { "http" };
    let scheme = forwarded("x-forwarded-proto").filter(|scheme| ["http", "https"].contains(scheme)).unwrap_or(own);
    let host = forwarded("x-forwarded-host").filter(printable).or_else(|| first(header::HOST.as_str()).filter(printable))?;
    Some(format!("{scheme}://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_those_that_the_caller_uses() {
        let proxied = [("host", "10.0.0.1:11180"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "pacs.example, inner")];
        for (headers, forwarded, expected) in [
            (&[("host", "node.example:11180")][..], false, Some("http://node.example:11180")),
            (&[("host", "node.example\"/x")], false, None),
            (&[], false, None),
            (&proxied, false, Some("http://10.0.0.1:11180")),
            (&proxied, true, Some("https://pacs.example")),
            (&[("host", "a"), ("x-forwarded-proto", "javascript"), ("x-forwarded-host", "<b>")], true, Some("http://a")),
        ] {
            let map = headers.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect();
            let config = HttpConfig { forwarded, ..HttpConfig::default() };
            assert_eq!(base(&map, &config).as_deref(), expected, "{headers:?}");
        }
    }
}
