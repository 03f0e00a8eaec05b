//! HTTP requests, over a new connection each or over one that is kept.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tombolo_e2e::load::Sockets;

use crate::{Base, expect_source};

/// The largest answer that is read.
const ANSWER: usize = 64 * 1024;

pub(crate) struct Client {
    sockets: Sockets,
    kept: Mutex<Kept>,
}

/// The kept connection, taken out while a request is under way, and how many there were before it.
#[derive(Default)]
struct Kept {
    stream: Option<TcpStream>,
    before: u64,
}

impl Client {
    pub(crate) fn new(sockets: Sockets) -> Self {
        Self { sockets, kept: Mutex::default() }
    }

    pub(crate) async fn ask(&self, n: u64, target: SocketAddr) -> Result<(Base, u64)> {
        match self.sockets {
            Sockets::Fresh => {
                let mut stream = TcpStream::connect(target).await.context("connect")?;
                Ok((exchange(&mut stream, target, "connection: close\r\n").await?, n))
            }
            Sockets::Kept => self.ask_kept(target).await,
        }
    }

    async fn ask_kept(&self, target: SocketAddr) -> Result<(Base, u64)> {
        let mut kept = self.kept.lock().await;
        if let Some(mut stream) = kept.stream.take() {
            if let Ok(base) = exchange(&mut stream, target, "").await {
                kept.stream = Some(stream);
                return Ok((base, kept.before));
            }
            kept.before += 1;
        }
        let mut stream = TcpStream::connect(target).await.context("connect")?;
        let base = exchange(&mut stream, target, "").await?;
        kept.stream = Some(stream);
        Ok((base, kept.before))
    }
}

async fn exchange(stream: &mut TcpStream, target: SocketAddr, header: &str) -> Result<Base> {
    let request = format!("GET / HTTP/1.1\r\nhost: {target}\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await.context("send")?;
    let mut answer = Vec::with_capacity(512);
    let body = loop {
        if let Some(body) = body_of(&answer)? {
            break body;
        }
        if answer.len() > ANSWER || stream.read_buf(&mut answer).await.context("receive")? == 0 {
            bail!("the answer ends after {} bytes", answer.len());
        }
    };
    expect_source(stream.peer_addr().context("ask for the peer's address")?, target)?;
    Base::read(body)
}

/// The body of a whole answer; `None` when more has to come.
fn body_of(answer: &[u8]) -> Result<Option<&str>> {
    let text = std::str::from_utf8(answer).context("the answer is no HTTP")?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("the answer is {status:?}");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.and_then(|text| text.parse().ok()).context("the answer has no length")?;
    Ok(body.get(..length))
}
