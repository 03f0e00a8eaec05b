//! Flows: read from the kernel, named, kept, and handed to those who follow.
//!
//! A task of its own reads the events and asks the driver for names, a batch at a time. Once a second it compares what
//! was told with what is wanted, and has the driver set the sampling. It never waits for a follower.

mod log;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use smol_str::SmolStr;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tombolo_core::flows::{Sampling, Told};
use tombolo_core::id::{ClusterName, ServiceKey};
use tombolo_core::model::{BackendKey, Frontend};
use tombolo_core::report::{Flow, FlowBackend, FlowProcess, FlowVerdict};
use tombolo_ebpf::{FlowEvent, FlowKind, FlowReader};
use tombolo_wire::admin::Stopping;

use crate::clock;
use crate::driver::Question;

pub use log::{FlowLog, FlowStream};

/// How many flows a second are wanted while somebody follows.
const FOLLOWED_RATE: u32 = 5_000;

/// How many events are named at once.
const BATCH: usize = 256;

/// How often the sampling is judged.
const SECOND: Duration = Duration::from_secs(1);

/// How many cgroups' paths are kept.
const MOST_CGROUPS: usize = 4_096;

/// Whose names a flow wants: a frontend, and the backend it was sent to.
pub type Unnamed = (Frontend, Option<BackendKey>);

/// What the driver knows of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Whose table the frontend is.
    pub service: Option<ServiceKey>,
    /// The backend's cluster.
    pub cluster: Option<ClusterName>,
    /// The node it runs on.
    pub node: Option<SmolStr>,
}

/// What is counted of flows.
#[derive(Clone, Default)]
pub struct Metrics {
    told: Counter,
    missed: Counter,
    followers: Gauge,
    one_in: Gauge<f64, std::sync::atomic::AtomicU64>,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("flows_told", "Sampled flows that were read", metrics.told.clone());
        registry.register("flows_missed", "Flows that followers were too slow for", metrics.missed.clone());
        registry.register("flow_followers", "Who follows the flows", metrics.followers.clone());
        registry.register("flow_sampling", "Each told flow stands for this many", metrics.one_in.clone());
        metrics
    }
}

/// Tells flows until stopped; `rate` is how many a second are wanted while nobody follows.
pub struct Teller {
    events: AsyncFd<FlowReader>,
    ask: mpsc::Sender<Question>,
    log: FlowLog,
    rate: u32,
    metrics: Metrics,
    sampling: Sampling,
    /// Events read since the sampling was judged last.
    seen: u64,
    /// Events lost so far, at that time.
    lost: u64,
    cgroups: BTreeMap<u64, Option<String>>,
}

impl Teller {
    /// Fails where the runtime cannot wait for the events.
    pub fn new(
        reader: FlowReader,
        ask: mpsc::Sender<Question>,
        log: FlowLog,
        rate: u32,
        metrics: Metrics,
    ) -> std::io::Result<Self> {
        let sampling = if rate == 0 { Sampling::NONE } else { Sampling::FIRST };
        #[expect(deprecated, reason = "the reader keeps its descriptor; to vouch for that is unsafe code")]
        let events = AsyncFd::new(reader)?;
        Ok(Self { events, ask, log, rate, metrics, sampling, seen: 0, lost: 0, cgroups: BTreeMap::new() })
    }

    /// Ends when the driver does.
    pub async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            Err(Stopping) = self.tell() => {}
        }
    }

    async fn tell(&mut self) -> Result<(), Stopping> {
        self.lost = self.sample().await?;
        let mut seconds = interval_at(Instant::now() + SECOND, SECOND);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let events = tokio::select! {
                biased;
                _ = seconds.tick() => {
                    self.judge().await?;
                    continue;
                }
                events = read(&mut self.events) => events.map_err(|error| {
                    tracing::error!(%error, "flows cannot be read any more");
                    Stopping
                })?,
            };
            self.seen += events.len() as u64;
            self.name(events).await?;
        }
    }

    /// What the last second says of the next one's sampling.
    async fn judge(&mut self) -> Result<(), Stopping> {
        let followers = self.log.followers();
        let wanted = if followers > 0 { self.rate.max(FOLLOWED_RATE) } else { self.rate };
        let lost = self.sample().await?;
        let told = Told { seen: std::mem::take(&mut self.seen), dropped: lost.saturating_sub(self.lost) };
        self.lost = lost;
        let next = self.sampling.next(told, wanted);
        if next != self.sampling {
            tracing::debug!(one_in = next.one_in(), wanted, "flow sampling");
            self.sampling = next;
            self.lost = self.sample().await?;
        }
        self.metrics.followers.set(i64::try_from(followers).unwrap_or(i64::MAX));
        self.metrics.missed.inc_by(self.log.take_missed());
        self.metrics.one_in.set(next.one_in());
        Ok(())
    }

    /// Has the sampling set, and learns how many events were lost so far.
    async fn sample(&self) -> Result<u64, Stopping> {
        let (reply, lost) = oneshot::channel();
        self.ask.send(Question::Sample(self.sampling, reply)).await.map_err(|_| Stopping)?;
        lost.await.map_err(|_| Stopping)
    }

    async fn name(&mut self, events: Vec<FlowEvent>) -> Result<(), Stopping> {
        let (reply, names) = oneshot::channel();
        self.ask.send(Question::Names(events.iter().map(unnamed).collect(), reply)).await.map_err(|_| Stopping)?;
        let names = names.await.map_err(|_| Stopping)?;
        self.find_cgroups(&events).await;
        let now = clock::unix_ms();
        self.metrics.told.inc_by(events.len() as u64);
        for event in events {
            let names = names.get(&unnamed(&event)).cloned().unwrap_or_default();
            let cgroup = self.cgroups.get(&event.cgroup).cloned().flatten();
            self.log.tell(flow(event, names, cgroup, self.sampling, now));
        }
        Ok(())
    }

    /// Looks up the paths that are not known: files are touched, so not on this task.
    async fn find_cgroups(&mut self, events: &[FlowEvent]) {
        let unknown: BTreeSet<u64> =
            events.iter().map(|event| event.cgroup).filter(|id| !self.cgroups.contains_key(id)).collect();
        if unknown.is_empty() {
            return;
        }
        if self.cgroups.len() + unknown.len() > MOST_CGROUPS {
            self.cgroups.clear();
        }
        let found = tokio::task::spawn_blocking(move || unknown.into_iter().map(|id| (id, cgroup(id))).collect());
        let found: BTreeMap<u64, Option<String>> = found.await.unwrap_or_default();
        self.cgroups.extend(found);
    }
}

/// Waits for events, and reads some.
async fn read(events: &mut AsyncFd<FlowReader>) -> std::io::Result<Vec<FlowEvent>> {
    loop {
        let mut ready = events.readable_mut().await?;
        let read: Vec<FlowEvent> = std::iter::from_fn(|| ready.get_inner_mut().next_event()).take(BATCH).collect();
        if read.len() < BATCH {
            ready.clear_ready();
        }
        if !read.is_empty() {
            return Ok(read);
        }
    }
}

/// A cgroup's path below the root of cgroup v2.
fn cgroup(id: u64) -> Option<String> {
    let path = tombolo_ebpf::cgroup_path(id)?;
    let below = path.strip_prefix(tombolo_ebpf::cgroup2_mount()?).ok()?;
    Some(format!("/{}", below.display()))
}

fn unnamed(event: &FlowEvent) -> Unnamed {
    (event.frontend, event.backend.map(|(_, backend)| backend))
}

fn flow(event: FlowEvent, names: Names, cgroup: Option<String>, sampling: Sampling, now: u64) -> Flow {
    let Names { service, cluster, node } = names;
    let age = u64::try_from(event.age().as_millis()).unwrap_or(u64::MAX);
    Flow {
        unix_ms: now.saturating_sub(age),
        verdict: match event.kind {
            FlowKind::Connected => FlowVerdict::Connected,
            FlowKind::Datagram => FlowVerdict::FirstDatagram,
            FlowKind::Refused => FlowVerdict::Refused,
            FlowKind::Passed => FlowVerdict::Passed,
            FlowKind::Broken => FlowVerdict::Broken,
        },
        service,
        frontend: event.frontend,
        backend: event.backend.map(|(_, backend)| FlowBackend { backend, cluster, node }),
        process: FlowProcess { pid: event.pid, command: event.command.into(), cgroup_id: event.cgroup, cgroup },
        sampling,
        missed: 0,
    }
}
