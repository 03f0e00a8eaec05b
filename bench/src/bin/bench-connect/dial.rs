//! One connect, one datagram, and who answers.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with, sockopt};

/// The one backend of every service. Clients have another address, so that no rule takes them for the backend itself.
pub(crate) const BACKEND: &str = "10.200.0.1";
/// Its address when a client is asked for by routing.
pub(crate) const CLIENT: &str = "10.200.0.2";
/// Its port, TCP and UDP.
const PORT: u16 = 8080;

/// Connections that wait to be accepted: a round's, since nobody accepts while it runs.
const BACKLOG: i32 = 4096;

/// Where the backend is.
pub(crate) fn backend() -> Result<SocketAddr> {
    Ok(SocketAddr::new(BACKEND.parse().context("the backend's address")?, PORT))
}

/// The backend, in the namespace and the cgroup of whoever starts it.
pub(crate) struct Server {
    tcp: TcpListener,
    udp: UdpSocket,
}

impl Server {
    /// Listens.
    pub(crate) fn start() -> Result<Self> {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &backend()?).context("the backend's port")?;
        listen(&socket, BACKLOG)?;
        let (tcp, udp) = (TcpListener::from(socket), UdpSocket::bind(backend()?)?);
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        Ok(Self { tcp, udp })
    }

    /// Accepts and closes all that wait, and forgets all datagrams. Not a part of what is measured.
    pub(crate) fn drain(&self) -> Result<()> {
        until_nothing(|| self.tcp.accept().map(drop))?;
        until_nothing(|| self.udp.recv_from(&mut [0; 64]).map(drop))
    }

    /// Sends all datagrams back.
    pub(crate) fn echo(&self) -> Result<()> {
        let mut text = [0; 64];
        until_nothing(|| {
            let (length, from) = self.udp.recv_from(&mut text)?;
            self.udp.send_to(&text[..length], from).map(drop)
        })
    }
}

fn until_nothing(mut take: impl FnMut() -> std::io::Result<()>) -> Result<()> {
    loop {
        match take() {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // A client that reset its connection before it was accepted.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error).context("the backend"),
        }
    }
}

/// A TCP connection, made and reset: no TIME_WAIT, which would use up the ports.
pub(crate) fn tcp(to: SocketAddr) -> Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &to).with_context(|| format!("connect to {to}"))?;
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    Ok(())
}

/// A UDP socket.
pub(crate) fn udp() -> Result<UdpSocket> {
    UdpSocket::bind("0.0.0.0:0").context("a UDP socket")
}
