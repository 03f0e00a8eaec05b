//! From endpoints to a stream, and the connector that hands streams to tonic.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncBufReadExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::error::{DialCause, DialError};
use super::resolve::resolve;
use super::stream::{Duplex, Stream};
use super::{Dialer, FIRST_BYTES_TIMEOUT, KEEPALIVE_INTERVAL, Place, Reconnect, STEP_TIMEOUT, Target};
use crate::clock;
use crate::config::TlsFiles;
use crate::random::Random;

/// Unanswered TCP probes, 5 s apart, before the kernel gives a connection up.
const TCP_PROBES: u32 = 3;

impl Dialer {
    /// Dials the endpoints in random order until one answers. Of several failures the most telling is reported.
    pub async fn dial(&self) -> Result<Stream, DialError> {
        let mut order: VecDeque<&Target> = self.targets.iter().collect();
        Random::new(clock::seed()).shuffle(order.make_contiguous());
        let mut worst: Option<DialError> = None;
        for target in order {
            match self.dial_one(target).await {
                Ok(stream) => return Ok(stream),
                Err(cause) => {
                    if cause.is_telling() || worst.is_none() {
                        worst = Some(DialError { endpoint: target.text.clone(), cause });
                    }
                }
            }
        }
        Err(worst.expect("a dialer has at least one endpoint"))
    }

    async fn dial_one(&self, target: &Target) -> Result<Stream, DialCause> {
        match &target.place {
            Place::Unix(path) => secure(connect_unix(path).await?, self.tls.as_ref(), &target.server_name).await,
            Place::Tcp { host, port } => {
                let ips = in_time(resolve(host, &self.host_aliases)).await??;
                secure(connect_tcp(&ips, *port).await?, self.tls.as_ref(), &target.server_name).await
            }
        }
    }
}

async fn connect_unix(path: &Path) -> Result<UnixStream, DialCause> {
    in_time(UnixStream::connect(path)).await?.map_err(|e| DialCause::Io(e.kind()))
}

async fn connect_tcp(ips: &[IpAddr], port: u16) -> Result<TcpStream, DialCause> {
    let mut last = DialCause::TimedOut;
    for ip in ips {
        match in_time(TcpStream::connect(SocketAddr::new(*ip, port))).await {
            Ok(Ok(tcp)) => {
                keep_alive(&tcp).map_err(|e| DialCause::Io(e.kind()))?;
                return Ok(tcp);
            }
            Ok(Err(e)) => last = DialCause::Io(e.kind()),
            Err(late) => last = late,
        }
    }
    Err(last)
}

fn keep_alive(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let probes = TcpKeepalive::new().with_time(KEEPALIVE_INTERVAL).with_interval(STEP_TIMEOUT).with_retries(TCP_PROBES);
    SockRef::from(tcp).set_tcp_keepalive(&probes)
}

/// In TLS 1.3 a server judges our certificate after our side of the handshake is done. Waiting for its first bytes
/// (HTTP/2 SETTINGS, sent unasked) makes a refusal a typed error here, not a broken pipe later.
async fn secure(io: impl Duplex + 'static, tls: Option<&TlsFiles>, name: &str) -> Result<Stream, DialCause> {
    let Some(files) = tls else { return Ok(Stream::new(io)) };
    let config = tombolo_certs::client_config(files).map_err(|e| DialCause::OurFiles(e.to_string()))?;
    let server_name = ServerName::try_from(name.to_owned()).map_err(|_| DialCause::BadEndpoint)?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(server_name, io);
    let mut tls = in_time(handshake).await?.map_err(|e| DialCause::of_io(&e, name))?;
    match timeout(FIRST_BYTES_TIMEOUT, tls.fill_buf()).await {
        Ok(Ok([])) => Err(DialCause::Closed),
        Ok(Err(e)) => Err(DialCause::of_io(&e, name)),
        Ok(Ok(_)) | Err(_) => Ok(Stream::new(tls)),
    }
}

async fn in_time<T>(step: impl Future<Output = T>) -> Result<T, DialCause> {
    timeout(STEP_TIMEOUT, step).await.map_err(|_| DialCause::TimedOut)
}

/// A connector for tonic: hands out the stream that stands already, then dials, or fails.
#[derive(Clone)]
pub struct Connector {
    dialer: Arc<Dialer>,
    first: Arc<Mutex<Option<Stream>>>,
    reconnect: Reconnect,
}

impl Connector {
    pub(super) fn new(dialer: Arc<Dialer>, first: Stream, reconnect: Reconnect) -> Self {
        Self { dialer, first: Arc::new(Mutex::new(Some(first))), reconnect }
    }
}

impl tower_service::Service<http::Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let first = self.first.lock().take();
        let (dialer, reconnect) = (Arc::clone(&self.dialer), self.reconnect);
        Box::pin(async move {
            match (first, reconnect) {
                (Some(stream), _) => Ok(TokioIo::new(stream)),
                (None, Reconnect::Always) => dialer.dial().await.map(TokioIo::new),
                (None, Reconnect::Never) => Err(DialError { endpoint: "store".into(), cause: DialCause::Over }),
            }
        })
    }
}
