//! A table that is switched a thousand times a second while clients connect.
//!
//! Each table's backends are nobody else's, and their addresses name the table. A connect must land in a table that was in
//! use at some moment between its begin and its end, and in a backend that this table has. Ranges and indexes are freed and
//! used again after a grace period, as the agent does it.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::net::sockopt::set_socket_linger;
use tombolo_bench::clock::until;
use tombolo_bench::figures::{Figure, percentile};
use tombolo_bench::ground::{Ground, join};
use tombolo_bench::tables::{service, vip};
use tombolo_core::model::Protocol;
use tombolo_core::plan::Tables;
use tombolo_core::tables::{BackendId, Plan, Ticket};
use tombolo_ebpf::{Datapath, Executor as _, Faults, grace_period};

/// Between two switches.
const EVERY: Duration = Duration::from_millis(1);

/// Switches a second, of the design.
const PER_SECOND: f64 = 1000.0;

/// Threads that connect.
const CLIENTS: usize = 4;

/// The port of all backends. One listener hears for all their addresses, which are the loopback's.
const PORT: u16 = 8080;

/// How far the switches are. A table is in use from somewhere between `begun` and `done` of its number, until somewhere
/// between those of the next.
#[derive(Default)]
struct Progress {
    begun: AtomicU32,
    done: AtomicU32,
    /// The clients may end.
    over: AtomicBool,
    /// And then the servers.
    served: AtomicBool,
}

/// What the clients saw.
#[derive(Default)]
struct Seen {
    connects: u64,
    /// Connects during which the table was switched.
    across: u64,
    /// Connects that landed in no table of their time.
    torn: Vec<String>,
}

/// What the switches took.
struct Switched {
    rate: f64,
    micros: Vec<f64>,
}

/// Switches so many times under load.
pub(crate) fn measure(ground: &mut Ground, switches: u32) -> Result<Vec<Figure>> {
    let (cgroup, mut datapath) = ground.translated("switches")?;
    let mut tables = Tables::new(ground.datapath(&cgroup).limits, BackendId(1));
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    let progress = Progress::default();
    datapath.execute(&table(&mut tables, 0)?)?;
    datapath.commit()?;
    join(&cgroup)?;
    let (mut switched, seen) = std::thread::scope(|scope| {
        let servers: Vec<_> = (0..2).map(|_| scope.spawn(|| serve(&listener, &progress))).collect();
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| dial(&progress))).collect();
        let switched = switch(scope, &mut datapath, &mut tables, switches, &progress);
        progress.over.store(true, Ordering::SeqCst);
        let seen: Vec<_> = clients.into_iter().map(|client| joined(client.join())).collect();
        // The servers wait in accept; one more connection each lets them see that it is over.
        progress.served.store(true, Ordering::SeqCst);
        for _ in &servers {
            drop(TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)));
        }
        for server in servers {
            joined(server.join())?;
        }
        let mut all = Seen::default();
        for one in seen {
            let one = one?;
            all.connects += one.connects;
            all.across += one.across;
            all.torn.extend(one.torn);
        }
        anyhow::Ok((switched?, all))
    })?;
    ensure!(datapath.faults() == Faults::default(), "{:?}", datapath.faults());
    ensure!(seen.connects > 0, "nobody connected");
    if let Some(torn) = seen.torn.first() {
        bail!("{} of {} connects were torn, the first: {torn}", seen.torn.len(), seen.connects);
    }
    Ok(figures(switches, &mut switched, &seen))
}

fn joined<T>(ended: std::thread::Result<Result<T>>) -> Result<T> {
    ended.unwrap_or_else(|_| bail!("a thread panicked"))
}

fn figures(switches: u32, switched: &mut Switched, seen: &Seen) -> Vec<Figure> {
    let conditions = format!(
        "switches: {switches} of one service, one due each millisecond, each to other backends (1 to 13), planned and executed \
         as the agent does it, with reclaiming after grace periods; {CLIENTS} threads connect meanwhile"
    );
    let (p50, p99) = (percentile(&mut switched.micros, 50), percentile(&mut switched.micros, 99));
    vec![
        Figure::new("switches a second", switched.rate, "/s", &conditions).at_least(PER_SECOND * 0.99),
        Figure::new("one switch planned and executed, p50", p50, "µs", &conditions),
        Figure::new("one switch planned and executed, p99", p99, "µs", &conditions),
        Figure::new("connects meanwhile", seen.connects as f64, "", &conditions),
        Figure::new("of those, while the table was switched", seen.across as f64, "", &conditions),
        Figure::new("connects in a table of another time", seen.torn.len() as f64, "", &conditions).at_most(0.0),
    ]
}

/// How many backends a table has; neighbours differ.
fn size(number: u32) -> u32 {
    1 + number * 5 % 13
}

/// The plan that switches to a table. Its backends are 127.a.b.c: a and b its number, c which one.
fn table(tables: &mut Tables, number: u32) -> Result<Plan> {
    let [.., high, low] = (number + 256).to_be_bytes();
    let at = |last: u32| SocketAddr::from((Ipv4Addr::new(127, high, low, last as u8), PORT));
    let backends: Vec<_> = (1..=size(number)).map(at).collect();
    Ok(tables.plan(&[service(0, &[Protocol::Tcp], &backends)?])?)
}

fn switch<'scope>(
    scope: &'scope Scope<'scope, '_>,
    datapath: &mut Datapath,
    tables: &mut Tables,
    switches: u32,
    progress: &'scope Progress,
) -> Result<Switched> {
    let (retire, retired) = sync_channel::<Ticket>(4096);
    let (free, freed) = sync_channel::<Ticket>(4096);
    scope.spawn(move || reclaim(&retired, &free));
    let begun = Instant::now();
    let mut micros = Vec::with_capacity(switches as usize);
    for number in 1..=switches {
        until(begun + EVERY * (number - 1));
        let start = Instant::now();
        let plan = table(tables, number)?;
        progress.begun.store(number, Ordering::SeqCst);
        datapath.execute(&plan)?;
        progress.done.store(number, Ordering::SeqCst);
        micros.push(start.elapsed().as_secs_f64() * 1e6);
        if let Some(ticket) = plan.retired {
            retire.try_send(ticket).context("grace periods are too slow")?;
        }
        if let Some(ticket) = freed.try_iter().last() {
            datapath.execute(&tables.reclaim(ticket))?;
        }
    }
    Ok(Switched { rate: f64::from(switches) / begun.elapsed().as_secs_f64(), micros })
}

/// Waits for a grace period for all that is retired, again and again.
fn reclaim(retired: &Receiver<Ticket>, free: &SyncSender<Ticket>) {
    while let Ok(first) = retired.recv() {
        let last = retired.try_iter().last().unwrap_or(first);
        if grace_period().is_err() || free.send(last).is_err() {
            return;
        }
    }
}

/// Tells every connection at which address it arrived.
fn serve(listener: &TcpListener, progress: &Progress) -> Result<()> {
    loop {
        let (mut stream, _) = listener.accept()?;
        if progress.served.load(Ordering::SeqCst) {
            return Ok(());
        }
        if let SocketAddr::V4(at) = stream.local_addr()? {
            // The client may be gone already.
            let _ = stream.write_all(&at.ip().octets());
        }
    }
}

fn dial(progress: &Progress) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut at = [0; 4];
    while !progress.over.load(Ordering::SeqCst) {
        let oldest = progress.done.load(Ordering::SeqCst);
        let stream = TcpStream::connect(vip(0));
        let newest = progress.begun.load(Ordering::SeqCst);
        let mut stream = stream.context("a connect while the table was switched")?;
        stream.read_exact(&mut at).context("the backend's answer")?;
        set_socket_linger(&stream, Some(Duration::ZERO))?;
        seen.connects += 1;
        seen.across += u64::from(newest > oldest);
        if !(oldest..=newest).any(|number| has(number, at)) {
            seen.torn.push(format!("{} when tables {oldest} to {newest} were in use", Ipv4Addr::from(at)));
        }
    }
    Ok(seen)
}

/// Whether a table has a backend of this address.
fn has(number: u32, [_, high, low, last]: [u8; 4]) -> bool {
    let [.., expected_high, expected_low] = (number + 256).to_be_bytes();
    [high, low] == [expected_high, expected_low] && (1..=size(number)).contains(&last.into())
}

#[cfg(test)]
mod tests {
    use super::{has, size};

    #[test]
    fn a_backend_belongs_to_one_table() {
        assert!(has(0, [127, 1, 0, 1]) && has(7, [127, 1, 7, 10]));
        assert_eq!((size(0), size(7)), (1, 10));
        assert!(!has(0, [127, 1, 0, 2]), "more than the table has");
        assert!(!has(7, [127, 1, 8, 1]) && !has(7, [127, 2, 7, 1]), "another table's");
    }
}
