//! `x-wing`: a client that asks at a constant rate, whatever the answers do.
//!
//! Open loop: the n-th request is due at start + n / rate, and its time counts from then, so neither a slow answer nor
//! a busy machine hides a late one. Each request has a connection of its own and is never repeated.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};
use tombolo_e2e::answers::{Answer, Tally};
use tombolo_e2e::clock::monotonic_us;

/// The largest answer that is read.
const ANSWER: u64 = 64 * 1024;

/// Sends HTTP requests at a constant rate, a new connection each, without retries.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// What to ask: a frontend's address and port.
    #[arg(long)]
    target: SocketAddr,
    /// Requests per second.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// How many requests to make; without it, until SIGTERM or SIGINT.
    #[arg(long)]
    count: Option<u64>,
    /// An answer later than this, in milliseconds, counts as failed.
    #[arg(long, default_value_t = 1000)]
    timeout_ms: u64,
    /// Print sums at the end, not a line for each request.
    #[arg(long)]
    summary: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if args.rate == 0 || args.timeout_ms == 0 {
        bail!("--rate and --timeout-ms must be at least 1");
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(fly(args))
}

async fn fly(args: Args) -> Result<()> {
    let mut term = signal(SignalKind::terminate()).context("handle SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("handle SIGINT")?;
    let mut printer = Printer { summary: args.summary.then(Tally::default) };
    // Bounded by the schedule itself: a request lives for at most one timeout.
    let mut requests = JoinSet::new();
    let (start, start_us) = (Instant::now(), monotonic_us());
    let mut n = 0;
    while args.count.is_none_or(|count| n < count) {
        let offset = Duration::from_micros(n * 1_000_000 / u64::from(args.rate));
        tokio::select! {
            biased;
            _ = term.recv() => break,
            _ = int.recv() => break,
            () = sleep_until((start + offset).into()) => {
                requests.spawn(request(args.clone(), n, start + offset, start_us));
                n += 1;
            }
            Some(answer) = requests.join_next(), if !requests.is_empty() => printer.take(&answer?)?,
        }
    }
    while let Some(answer) = requests.join_next().await {
        printer.take(&answer?)?;
    }
    printer.finish()
}

async fn request(args: Args, n: u64, due: Instant, start_us: u64) -> Answer {
    let offset_us = n * 1_000_000 / u64::from(args.rate);
    let deadline = due + Duration::from_millis(args.timeout_ms);
    let asked = timeout_at(deadline.into(), ask(args.target)).await;
    let took = due.elapsed();
    let result = match asked {
        Ok(result) if took <= Duration::from_millis(args.timeout_ms) => result.map_err(|error| format!("{error:#}")),
        _ => Err(format!("no answer within {} ms", args.timeout_ms)),
    };
    let (cluster, error) = match result {
        Ok(cluster) => (Some(cluster), None),
        Err(error) => (None, Some(error)),
    };
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    Answer { n, at_us: start_us + offset_us, took_us, cluster, error }
}

/// The part of `rebel-base`'s answer that counts.
#[derive(Deserialize)]
struct Base {
    #[serde(rename = "Cluster")]
    cluster: String,
}

async fn ask(target: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(target).await.context("connect")?;
    let request = format!("GET / HTTP/1.1\r\nhost: {target}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("send")?;
    let mut answer = String::new();
    stream.take(ANSWER).read_to_string(&mut answer).await.context("receive")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is no HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("the answer is {status:?}");
    }
    Ok(serde_json::from_str::<Base>(body).context("the answer names no cluster")?.cluster)
}

/// Lines, or sums at the end.
struct Printer {
    summary: Option<Tally>,
}

impl Printer {
    fn take(&mut self, answer: &Answer) -> Result<()> {
        match &mut self.summary {
            Some(tally) => tally.add(Tally::of([answer])),
            None => writeln!(io::stdout().lock(), "{}", serde_json::to_string(answer)?)?,
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        if let Some(tally) = self.summary {
            writeln!(io::stdout().lock(), "{}", serde_json::to_string(&tally)?)?;
        }
        Ok(())
    }
}
