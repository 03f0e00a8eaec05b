//! `rebel-base`: the service of the demo. It answers every HTTP request, every DNS query for TXT and every other datagram
//! with the cluster and the pod it runs in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tombolo_e2e::{clock, dns};

/// Connections served at a time; more wait in the listener's queue.
const CONNECTIONS: usize = 512;
/// How long a client may take over one request, and how long an idle connection is kept.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest request head.
const HEAD: usize = 8 * 1024;
/// The largest datagram.
const DATAGRAM: usize = 512;

/// Answers {"Galaxy":"…","Cluster":"…","Pod":"…"} over TCP and UDP.
#[derive(Debug, Parser)]
struct Args {
    /// Where to listen, for TCP and UDP.
    #[arg(long, required = true)]
    listen: Vec<SocketAddr>,
    /// The cluster to name.
    #[arg(long)]
    cluster: String,
    /// The pod to name.
    #[arg(long, default_value = "")]
    pod: String,
    /// The galaxy to name.
    #[arg(long, default_value = "Alderaan")]
    galaxy: String,
}

/// What is answered, in this order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reply<'a> {
    galaxy: &'a str,
    cluster: &'a str,
    pod: &'a str,
    /// The text of the datagram that is answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<&'a str>,
}

impl Args {
    fn reply(&self, asked: Option<&str>) -> String {
        let reply = Reply { galaxy: &self.galaxy, cluster: &self.cluster, pod: &self.pod, asked };
        serde_json::to_string(&reply).expect("texts are JSON")
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    clock::go_first();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(Arc::new(args)))
}

async fn serve(args: Arc<Args>) -> Result<()> {
    let mut listeners = JoinSet::new();
    for listen in args.listen.clone() {
        let datagrams = UdpSocket::bind(listen).await.with_context(|| format!("listen on {listen}, UDP"))?;
        let connections = TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}, TCP"))?;
        listeners.spawn(serve_datagrams(datagrams, Arc::clone(&args)));
        listeners.spawn(serve_connections(connections, Arc::clone(&args)));
    }
    // None of them ends well.
    listeners.join_next().await.context("there is a listener")??
}

async fn serve_datagrams(socket: UdpSocket, args: Arc<Args>) -> Result<()> {
    let mut buffer = [0; DATAGRAM];
    loop {
        // What an earlier answer met, a port that was closed, is told here and concerns nobody else.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let asked = &buffer[..length];
        let reply = dns::answer(asked, &args.reply(None))
            .unwrap_or_else(|| args.reply(Some(&String::from_utf8_lossy(asked))).into_bytes());
        let _ = socket.send_to(&reply, client).await;
    }
}

async fn serve_connections(listener: TcpListener, args: Arc<Args>) -> Result<()> {
    let body = args.reply(None) + "\n";
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.context("the semaphore is never closed")?;
        let (stream, _) = listener.accept().await.context("accept")?;
        while connections.try_join_next().is_some() {}
        let body = body.clone();
        connections.spawn(async move {
            // A client that goes away concerns nobody else.
            let _ = answer(stream, &body).await;
            drop(slot);
        });
    }
}

/// Answers requests until the client wants no more.
async fn answer(mut stream: TcpStream, body: &str) -> std::io::Result<()> {
    while let Some(after) = timeout(PATIENCE, request(&mut stream)).await.ok().transpose()?.flatten() {
        let response = response(body, after);
        stream.write_all(response.as_bytes()).await?;
        if after == After::Close {
            break;
        }
    }
    stream.shutdown().await
}

/// What a client wants when it has its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Close,
    KeepAlive,
}

/// Reads one request; clients of one connection send the next when they have the answer.
async fn request(stream: &mut TcpStream) -> std::io::Result<Option<After>> {
    let mut head = Vec::with_capacity(256);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() >= HEAD || stream.read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(after(&String::from_utf8_lossy(&head))))
}

fn after(head: &str) -> After {
    let head = head.to_ascii_lowercase();
    let old = head.lines().next().is_some_and(|line| line.ends_with("http/1.0"));
    if old || head.contains("\r\nconnection: close\r\n") { After::Close } else { After::KeepAlive }
}

fn response(body: &str, after: After) -> String {
    let length = body.len();
    let connection = match after {
        After::Close => "connection: close\r\n",
        After::KeepAlive => "",
    };
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{connection}\r\n{body}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_names_galaxy_and_cluster_and_pod_in_that_order() {
        let args = Args::parse_from(["rebel-base", "--listen", "[::1]:80", "--cluster", "ne", "--pod", "ne-1-1"]);
        assert_eq!(args.reply(None), r#"{"Galaxy":"Alderaan","Cluster":"ne","Pod":"ne-1-1"}"#);
        let asked = args.reply(Some("7"));
        assert!(asked.ends_with(r#","Asked":"7"}"#), "{asked}");
        let (head, body) =
            response(&asked, After::Close).split_once("\r\n\r\n").map(|(h, b)| (h.to_owned(), b.len())).unwrap();
        assert!(head.contains(&format!("content-length: {body}")));
    }

    #[test]
    fn a_connection_is_kept_unless_the_client_wants_otherwise() {
        assert_eq!(after("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), After::KeepAlive);
        assert_eq!(after("GET / HTTP/1.1\r\nConnection: close\r\n\r\n"), After::Close);
        assert_eq!(after("GET / HTTP/1.0\r\nHost: x\r\n\r\n"), After::Close);
    }
}
