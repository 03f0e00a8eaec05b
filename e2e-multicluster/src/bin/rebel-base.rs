//! `rebel-base`: the service of the demo. It answers every HTTP request with the cluster it runs in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections served at a time; more wait in the listener's queue.
const CONNECTIONS: usize = 512;
/// How long a client may take over one request.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest request head.
const HEAD: usize = 8 * 1024;

/// Answers {"Galaxy":"…","Cluster":"…"} to every HTTP request, one a connection.
#[derive(Debug, Parser)]
struct Args {
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
    /// The cluster to name.
    #[arg(long)]
    cluster: String,
    /// The galaxy to name.
    #[arg(long, default_value = "Alderaan")]
    galaxy: String,
}

fn main() -> Result<()> {
    let args = Args::parse();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(args))
}

async fn serve(args: Args) -> Result<()> {
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("listen on {}", args.listen))?;
    let response = Arc::<[u8]>::from(response(&args.galaxy, &args.cluster).into_bytes());
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.context("the semaphore is never closed")?;
        let (stream, _) = listener.accept().await.context("accept")?;
        while connections.try_join_next().is_some() {}
        let response = Arc::clone(&response);
        connections.spawn(async move {
            // A client that goes away concerns nobody else.
            let _ = timeout(PATIENCE, answer(stream, &response)).await;
            drop(slot);
        });
    }
}

async fn answer(mut stream: TcpStream, response: &[u8]) -> std::io::Result<()> {
    let mut head = Vec::with_capacity(256);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() >= HEAD || stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(response).await?;
    stream.shutdown().await
}

fn response(galaxy: &str, cluster: &str) -> String {
    let body = serde_json::json!({ "Galaxy": galaxy, "Cluster": cluster });
    let body = format!("{{\"Galaxy\":{},\"Cluster\":{}}}\n", body["Galaxy"], body["Cluster"]);
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_names_galaxy_and_cluster_in_that_order() {
        let text = response("Alderaan", "ne");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "{\"Galaxy\":\"Alderaan\",\"Cluster\":\"ne\"}\n");
        assert!(head.contains(&format!("content-length: {}", body.len())));
    }
}
