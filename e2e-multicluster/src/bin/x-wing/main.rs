//! `x-wing`: a client that asks at a constant rate, whatever the answers do.
//!
//! Open loop: the n-th request is due at start + n / rate, and its time counts from then, so neither a slow answer nor
//! a busy machine hides a late one. A request is never repeated, with one exception that every HTTP client and resolver
//! makes too: where a kept socket turns out to be dead, its request goes over a new one, in the time that is left.
//! An answer counts only if it comes from what was dialled, as the socket says it.

mod tcp;
mod udp;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Parser;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};
use tombolo_e2e::answers::{Answer, Tally};
use tombolo_e2e::clock::{go_first, monotonic_us};
use tombolo_e2e::load::{Sockets, Way};

/// Asks at a constant rate, without retries.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// What to ask: a frontend's address and port. Given several times, they are asked in turn.
    #[arg(long, required = true)]
    target: Vec<SocketAddr>,
    /// How to ask.
    #[arg(long, default_value = "http")]
    way: Way,
    /// A new socket for each request, or one for all.
    #[arg(long, default_value = "fresh")]
    sockets: Sockets,
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
    go_first();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(fly(args))
}

async fn fly(args: Args) -> Result<()> {
    let mut term = signal(SignalKind::terminate()).context("handle SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("handle SIGINT")?;
    let printer = Printer::start(args.summary)?;
    let asker = Arc::new(Asker::new(&args));
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
                let due = Due { n, at: start + offset, at_us: start_us + n * 1_000_000 / u64::from(args.rate) };
                let target = args.target[index(n, args.target.len())];
                requests.spawn(request(Arc::clone(&asker), due, target, args.timeout_ms));
                n += 1;
            }
            Some(answer) = requests.join_next(), if !requests.is_empty() => printer.take(answer?)?,
        }
    }
    while let Some(answer) = requests.join_next().await {
        printer.take(answer?)?;
    }
    printer.finish()
}

/// Which of `len` targets the n-th request goes to.
fn index(n: u64, len: usize) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX) % len
}

/// When a request is due.
struct Due {
    n: u64,
    at: Instant,
    at_us: u64,
}

async fn request(asker: Arc<Asker>, due: Due, target: SocketAddr, timeout_ms: u64) -> Answer {
    let deadline = due.at + Duration::from_millis(timeout_ms);
    let asked = timeout_at(deadline.into(), asker.ask(due.n, target)).await;
    let took = due.at.elapsed();
    let result = match asked {
        Ok(result) if took <= Duration::from_millis(timeout_ms) => result.map_err(|error| format!("{error:#}")),
        _ => Err(format!("no answer within {timeout_ms} ms")),
    };
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let answer = Answer { n: due.n, at_us: due.at_us, took_us, ..Answer::default() };
    match result {
        Ok((base, socket)) => Answer { cluster: Some(base.cluster), pod: Some(base.pod), socket, ..answer },
        Err(error) => Answer { error: Some(error), ..answer },
    }
}

/// The part of `rebel-base`'s answer that counts.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Base {
    cluster: String,
    #[serde(default)]
    pod: String,
    asked: Option<String>,
}

impl Base {
    fn read(text: &str) -> Result<Self> {
        serde_json::from_str(text).with_context(|| format!("the answer names no cluster: {text:?}"))
    }
}

/// Who asks, in one of the ways.
enum Asker {
    Tcp(tcp::Client),
    Udp(udp::Client),
}

impl Asker {
    fn new(args: &Args) -> Self {
        match args.way {
            Way::Http => Self::Tcp(tcp::Client::new(args.sockets)),
            Way::Datagram => Self::Udp(udp::Client::new(udp::Kind::Connected, args.sockets)),
            Way::Dns => Self::Udp(udp::Client::new(udp::Kind::Unconnected, args.sockets)),
        }
    }

    /// Gives the answer, and the number of the socket it came over.
    async fn ask(&self, n: u64, target: SocketAddr) -> Result<(Base, u64)> {
        match self {
            Self::Tcp(client) => client.ask(n, target).await,
            Self::Udp(client) => client.ask(n, target).await,
        }
    }
}

/// Fails unless an answer came from what was dialled.
fn expect_source(source: SocketAddr, target: SocketAddr) -> Result<()> {
    if source != target {
        bail!("dialled {target}, and the answer's source is {source}");
    }
    Ok(())
}

/// Answers that may wait for the disk: minutes of load.
const UNWRITTEN: usize = 65_536;

/// Lines, or sums at the end. A thread of its own writes them: a disk that keeps a write waiting must not keep requests.
struct Printer {
    answers: SyncSender<Answer>,
    thread: JoinHandle<Result<()>>,
}

impl Printer {
    fn start(summary: bool) -> Result<Self> {
        let (answers, queue) = sync_channel(UNWRITTEN);
        let print = move || if summary { sum_up(&queue) } else { list(&queue) };
        let thread = std::thread::Builder::new().name("printer".into()).spawn(print).context("start the printer")?;
        Ok(Self { answers, thread })
    }

    fn take(&self, answer: Answer) -> Result<()> {
        self.answers.send(answer).context("the printer ended")
    }

    fn finish(self) -> Result<()> {
        drop(self.answers);
        self.thread.join().map_err(|_| anyhow!("the printer panicked"))?
    }
}

fn list(queue: &Receiver<Answer>) -> Result<()> {
    for answer in queue {
        writeln!(io::stdout().lock(), "{}", serde_json::to_string(&answer)?)?;
    }
    Ok(())
}

fn sum_up(queue: &Receiver<Answer>) -> Result<()> {
    let mut tally = Tally::default();
    queue.iter().for_each(|answer| tally.add(Tally::of([&answer])));
    Ok(writeln!(io::stdout().lock(), "{}", serde_json::to_string(&tally)?)?)
}
