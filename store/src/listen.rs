//! Listeners for gRPC servers: TCP or Unix socket, mTLS or plain, saying who is on the other end.
//!
//! What [`Listener::incoming`] yields goes to tonic's `serve_with_incoming`. A handler then finds the caller by
//! `request.extensions().get::<Peer>()`; who may do what is the handler's business.

use std::fs::Permissions;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream as Incoming};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::Connected;
use tracing::{Instrument, debug, info_span, warn};

use crate::config::TlsFiles;
use crate::dial::{Duplex, Stream};

/// Handshakes at a time; further connections wait in the kernel's queue.
const HANDSHAKES: usize = 64;
/// A handshake may take this long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections ready for the server to take.
const READY: usize = 16;
/// How long accepting rests after the kernel refused (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Only the owner may connect to a socket.
const SOCKET_MODE: u32 = 0o600;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddr {
    /// `IP:PORT`.
    Tcp(SocketAddr),
    /// `unix:/path`.
    Unix(PathBuf),
}

/// The text is neither `IP:PORT` nor `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address to listen on: it must be IP:PORT or unix:/path")]
pub struct BadListenAddr(String);

/// Why listening failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// The kernel refused.
    #[error("cannot listen on {addr}: {kind}")]
    Bind {
        /// Where.
        addr: String,
        /// Why.
        kind: io::ErrorKind,
    },
    /// The certificate files cannot be used.
    #[error("cannot listen with TLS: {0}")]
    Files(String),
    /// TCP without certificates.
    #[error("cannot listen on {0} without TLS: only a Unix socket may be plain")]
    NoTls(SocketAddr),
}

/// Who is on the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The CN of the verified client certificate; None without TLS.
    pub common_name: Option<String>,
    /// The remote address; None on a Unix socket.
    pub remote: Option<SocketAddr>,
}

/// A bound listener.
pub struct Listener {
    socket: Socket,
    tls: Option<TlsFiles>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// An accepted connection, for tonic.
pub struct Connection {
    stream: Stream,
    peer: Peer,
}

impl Listener {
    /// Binds. A Unix socket is made with mode 0600, in place of one that nobody listens on any more.
    ///
    /// `tls` None is plain, which only a Unix socket may be. The files are read here once, so that mistakes show at
    /// start, and then again at every handshake.
    pub async fn bind(addr: &ListenAddr, tls: Option<TlsFiles>) -> Result<Self, ListenError> {
        if let Some(files) = &tls {
            tombolo_certs::server_config(files).map_err(|e| ListenError::Files(e.to_string()))?;
        }
        let refused = |e: io::Error| ListenError::Bind { addr: addr.to_string(), kind: e.kind() };
        let socket = match addr {
            ListenAddr::Tcp(addr) if tls.is_none() => return Err(ListenError::NoTls(*addr)),
            ListenAddr::Tcp(addr) => Socket::Tcp(TcpListener::bind(addr).await.map_err(refused)?),
            ListenAddr::Unix(path) => Socket::Unix(bind_unix(path).await.map_err(refused)?),
        };
        Ok(Self { socket, tls })
    }

    /// The bound TCP address, with the port the kernel chose; None for a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(tcp) => tcp.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// Accepts until `cancel` is cancelled or the result is dropped. Handshakes run beside each other, in `tasks`.
    pub fn incoming(
        self,
        tasks: &TaskTracker,
        cancel: CancellationToken,
    ) -> impl Incoming<Item = io::Result<Connection>> + Send + use<> {
        let (tx, mut rx) = mpsc::channel(READY);
        let handshakes = tasks.clone();
        tasks.spawn(
            async move {
                tokio::select! {
                    () = cancel.cancelled() => {}
                    () = tx.closed() => {}
                    () = accept_all(self, &handshakes, &tx) => {}
                }
            }
            .instrument(info_span!("listener")),
        );
        stream::poll_fn(move |cx| rx.poll_recv(cx))
    }
}

async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        let abandoned = meta.file_type().is_socket() && tokio::net::UnixStream::connect(path).await.is_err();
        if !abandoned {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    Ok(listener)
}

async fn accept_all(listener: Listener, tasks: &TaskTracker, tx: &mpsc::Sender<io::Result<Connection>>) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
        let (io, remote): (Stream, _) = match listener.socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (tls, tx) = (listener.tls.clone(), tx.clone());
        tasks.spawn(
            async move {
                match timeout(HANDSHAKE_TIMEOUT, handshake(io, tls, remote)).await {
                    Ok(Ok(connection)) => {
                        let _server_gone = tx.send(Ok(connection)).await;
                    }
                    Ok(Err(error)) => debug!(?remote, %error, "handshake failed"),
                    Err(_) => debug!(?remote, "handshake timed out"),
                }
                drop(slot);
            }
            .instrument(info_span!("handshake")),
        );
    }
}

impl Socket {
    async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(tcp) => {
                let (stream, remote) = tcp.accept().await?;
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%remote, %error, "no TCP_NODELAY");
                }
                Ok((Stream::new(stream), Some(remote)))
            }
            Self::Unix(unix) => Ok((Stream::new(unix.accept().await?.0), None)),
        }
    }
}

async fn handshake(
    io: impl Duplex + 'static,
    tls: Option<TlsFiles>,
    remote: Option<SocketAddr>,
) -> io::Result<Connection> {
    let Some(files) = tls else {
        return Ok(Connection { stream: Stream::new(io), peer: Peer { common_name: None, remote } });
    };
    let config = tombolo_certs::server_config(&files).map_err(io::Error::other)?;
    let mut tls = TlsAcceptor::from(Arc::new(config)).accept(io).await?;
    // Tickets are off and nothing else is sent, so this flush only pushes out the end of the handshake.
    poll_fn(|cx| Pin::new(&mut tls).poll_flush(cx)).await?;
    let certificate = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let common_name = certificate.and_then(tombolo_certs::common_name);
    Ok(Connection { stream: Stream::new(tls), peer: Peer { common_name, remote } })
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl std::fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for ListenAddr {
    type Err = BadListenAddr;

    fn from_str(text: &str) -> Result<Self, BadListenAddr> {
        if let Some(path) = text.strip_prefix("unix:").filter(|p| p.starts_with('/')) {
            return Ok(Self::Unix(path.into()));
        }
        text.parse().map(Self::Tcp).map_err(|_| BadListenAddr(text.into()))
    }
}
