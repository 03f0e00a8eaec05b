//! Questions in one datagram: text from connected sockets, DNS queries from unconnected ones as resolvers send them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::net::UdpSocket;
use tokio::sync::Mutex;
use tombolo_e2e::dns;
use tombolo_e2e::load::Sockets;

use crate::{Base, expect_source};

/// The largest answer that is read.
const ANSWER: usize = 2048;

/// Whether sockets are connected, and so what they ask.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `connect` and `send`: the request's number as text.
    Connected,
    /// `sendto`: a DNS query.
    Unconnected,
}

pub(crate) struct Client {
    kind: Kind,
    sockets: Sockets,
    kept: Mutex<Kept>,
}

/// The kept socket, and how many there were before it.
#[derive(Default)]
struct Kept {
    socket: Option<Arc<UdpSocket>>,
    before: u64,
}

impl Client {
    pub(crate) fn new(kind: Kind, sockets: Sockets) -> Self {
        Self { kind, sockets, kept: Mutex::default() }
    }

    pub(crate) async fn ask(&self, n: u64, target: SocketAddr) -> Result<(Base, u64)> {
        match self.sockets {
            Sockets::Fresh => Ok((self.exchange(&self.open(target).await?, n, target).await?, n)),
            Sockets::Kept => self.ask_kept(n, target).await,
        }
    }

    /// One request at a time, so that each reads its own answer.
    async fn ask_kept(&self, n: u64, target: SocketAddr) -> Result<(Base, u64)> {
        let mut kept = self.kept.lock().await;
        if let Some(socket) = kept.socket.clone() {
            match self.exchange(&socket, n, target).await {
                Ok(base) => return Ok((base, kept.before)),
                // A connected socket that is broken is what tells a resolver to open another.
                Err(_) if self.kind == Kind::Connected => {}
                Err(error) => return Err(error),
            }
            kept.before += 1;
        }
        let socket = Arc::new(self.open(target).await?);
        kept.socket = Some(Arc::clone(&socket));
        Ok((self.exchange(&socket, n, target).await?, kept.before))
    }

    async fn open(&self, target: SocketAddr) -> Result<UdpSocket> {
        let any = if target.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).await.context("open a socket")?;
        if self.kind == Kind::Connected {
            socket.connect(target).await.context("connect")?;
        }
        Ok(socket)
    }

    async fn exchange(&self, socket: &UdpSocket, n: u64, target: SocketAddr) -> Result<Base> {
        let mut buffer = [0; ANSWER];
        match self.kind {
            Kind::Connected => {
                let asked = n.to_string();
                socket.send(asked.as_bytes()).await.context("send")?;
                loop {
                    let length = socket.recv(&mut buffer).await.context("receive")?;
                    let base = Base::read(&String::from_utf8_lossy(&buffer[..length]))?;
                    // An answer to an earlier question, too late for it.
                    if base.asked.as_deref() == Some(&asked) {
                        expect_source(socket.peer_addr().context("ask for the peer's address")?, target)?;
                        return Ok(base);
                    }
                }
            }
            Kind::Unconnected => {
                let id = u16::try_from(n & 0xffff).expect("16 bits fit");
                socket.send_to(&dns::query(id), target).await.context("send")?;
                loop {
                    let (length, source) = socket.recv_from(&mut buffer).await.context("receive")?;
                    if let Some(text) = dns::text_of(id, &buffer[..length]) {
                        expect_source(source, target)?;
                        return Base::read(text);
                    }
                }
            }
        }
    }
}
