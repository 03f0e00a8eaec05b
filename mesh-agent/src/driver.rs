//! The one task that owns the mesh and the tables: drains what is queued, applies it, and carries out the difference.
//!
//! No debounce: an event that comes alone goes straight through, and under load batches form because everything that
//! is queued is applied before the next plan. It never waits for a grace period; a task of its own does, and reports.

mod answers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tombolo_core::id::{Millis, ServiceKey};
use tombolo_core::mesh::Mesh;
use tombolo_core::plan::{Full, Tables};
use tombolo_core::tables::{Desired, Plan, Ticket};
use tombolo_ebpf::{DatapathError, Executor};
use tombolo_store::SessionEvent;

use crate::accounts::Accounts;
use crate::clock::{self, Clock};
use crate::config::DatapathKind;
use crate::feed::Feed;
use crate::health::{Metrics, Readiness};
use crate::reaper::{Leavers, Pairs};
use crate::snapshot::{Entry, Save, Saver};

pub use self::answers::Question;

/// How many session events are applied before a plan is made, at most.
const BATCH: usize = 1_024;

/// How long the own store may take before empty tables are filled from a snapshot.
const STORE_WAIT_MS: u64 = 3_000;

/// Why the driver ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// A plan was not carried out, so what the maps hold is unknown. The next life reads them back and goes on.
    #[error("the datapath failed; the next start compares the maps with what they should hold")]
    Datapath(#[from] DatapathError),
    /// Nothing more will be heard of the mesh.
    #[error("the session with the own store ended by itself, which is a defect")]
    Session,
}

/// How far the tables are this life's own.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// They are as they were found. These repairs wait for the first complete plan.
    Found(Plan),
    /// They were filled from a snapshot, since the store did not answer.
    FromSnapshot,
    /// The first complete plan was carried out.
    Complete,
}

/// Whether the tables were this life's own before it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    Before,
    /// Only now, or not yet: there is nothing more to plan.
    Now,
}

/// Everything that can happen to the driver.
enum Event {
    Session(SessionEvent),
    /// A grace period is over for this ticket and those before it.
    Grace(Ticket),
    Question(Question),
    /// Cgroups to leave alone came, went, or were made anew.
    Skips,
    /// A deadline has come.
    Tick,
    /// The session ended, which it never does by itself.
    SessionEnded,
    Stop,
}

/// Where the driver's events come from, and where its tickets go.
pub struct Channels {
    /// The session with the own store.
    pub session: mpsc::Receiver<SessionEvent>,
    /// Tickets whose grace period is over.
    pub grace_over: mpsc::Receiver<Ticket>,
    /// Tickets whose grace period begins.
    pub retired: mpsc::Sender<Ticket>,
    /// Readers.
    pub questions: mpsc::Receiver<Question>,
    /// Says when cgroups to leave alone have changed.
    pub skips: mpsc::Receiver<()>,
    /// Who ends the sockets of backends that left.
    pub reap: mpsc::Sender<Pairs>,
    /// Who writes snapshots.
    pub save: mpsc::Sender<Save>,
}

/// What an earlier life held, and what it is good for.
pub struct Before {
    /// The records.
    pub entries: Vec<Entry>,
    /// When the store was last heard, in unix milliseconds.
    pub unix_ms: u64,
    /// What it may do.
    pub good_for: GoodFor,
}

/// What a snapshot may do before the store answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoodFor {
    /// Answer questions: it is old, or of another boot.
    Answers,
    /// Fill empty tables too.
    Tables,
}

/// What a driver begins with.
pub struct Begin {
    /// The mesh, of which nothing is known.
    pub mesh: Mesh,
    /// What an earlier life knew.
    pub before: Option<Before>,
    /// What the maps hold, once the repairs are done.
    pub tables: Tables,
    /// What makes the maps consistent.
    pub repairs: Plan,
    /// Who carries plans out.
    pub datapath: Box<dyn Executor>,
    /// Which one that is.
    pub kind: DatapathKind,
    /// How long TCP connections to a backend that left go on; for ever when absent.
    pub close_tcp_after: Option<Duration>,
    /// What a person should know of this life.
    pub remarks: Vec<String>,
    /// What the kernel counted.
    pub accounts: Accounts,
}

/// The mesh, the tables, and who carries plans out.
pub struct Driver {
    mesh: Mesh,
    tables: Tables,
    feed: Feed,
    datapath: Box<dyn Executor>,
    kind: DatapathKind,
    clock: Clock,
    dirty: BTreeSet<ServiceKey>,
    /// Services that found a map full; they are tried again when something is freed.
    full: BTreeMap<ServiceKey, Full>,
    stage: Stage,
    /// When empty tables are filled from the snapshot, if the store has not answered until then.
    fill_at: Option<Millis>,
    saver: Saver,
    /// Until the store has answered: how old is what we know, in unix milliseconds.
    restored: Option<u64>,
    leavers: Leavers,
    remarks: Vec<String>,
    plans: u64,
    /// The youngest ticket that the grace task could not take yet.
    waiting_ticket: Option<Ticket>,
    readiness: Arc<ArcSwap<Readiness>>,
    metrics: Metrics,
    accounts: Accounts,
}

impl Driver {
    /// A driver that has heard nothing yet, and knows what an earlier life knew.
    pub fn new(begin: Begin, clock: Clock, readiness: Arc<ArcSwap<Readiness>>, metrics: Metrics) -> Self {
        let Begin { mut mesh, before, tables, repairs, datapath, kind, close_tcp_after, remarks, accounts } = begin;
        let now = clock.now();
        let restored = before.as_ref().map(|before| before.unix_ms);
        let may_fill = before.as_ref().is_some_and(|before| before.good_for == GoodFor::Tables);
        let is_empty = tables.frontends().next().is_none();
        let entries = before.map(|before| before.entries).unwrap_or_default();
        let (feed, changes) = Feed::restore(mesh.cluster().clone(), entries, now);
        for change in changes {
            mesh.apply(change, now);
        }
        Self {
            feed,
            fill_at: (may_fill && is_empty).then(|| now.after(STORE_WAIT_MS)),
            saver: Saver::new(restored.unwrap_or(0)),
            restored,
            mesh,
            tables,
            datapath,
            kind,
            clock,
            dirty: BTreeSet::new(),
            full: BTreeMap::new(),
            stage: Stage::Found(repairs),
            leavers: Leavers::new(close_tcp_after),
            remarks,
            plans: 0,
            waiting_ticket: None,
            readiness,
            metrics,
            accounts,
        }
    }

    /// Runs until stopped; an error of the datapath ends it, since what the maps hold is then unknown.
    pub async fn run(&mut self, mut channels: Channels, stop: CancellationToken) -> Result<(), Ended> {
        loop {
            match self.next(&mut channels, &stop).await {
                Event::Stop => {
                    if let Some(last) = self.saver.last(&self.feed) {
                        // Whoever does not take it any more has said why.
                        let _taken = channels.save.send(last).await;
                    }
                    return Ok(());
                }
                Event::SessionEnded => return Err(Ended::Session),
                Event::Session(event) => {
                    self.take(event);
                    self.drain(&mut channels.session);
                }
                Event::Grace(ticket) => self.reclaim(ticket)?,
                Event::Question(question) => self.answer(question),
                Event::Skips => self.skip()?,
                Event::Tick => {
                    let now = self.clock.now();
                    let changes = self.feed.tick(now);
                    self.apply(changes, now);
                }
            }
            let began = self.clock.elapsed();
            let plans = self.plans;
            self.carry_out()?;
            if self.plans > plans {
                self.metrics.plan_seconds.observe((self.clock.elapsed() - began).as_secs_f64());
            }
            self.retire(&channels.retired);
            let now = self.clock.now();
            self.leavers.hand_over(now, &self.tables, &channels.reap);
            self.saver.save(&self.feed, now, &channels.save);
            self.publish();
        }
    }

    async fn next(&self, channels: &mut Channels, stop: &CancellationToken) -> Event {
        let fill_at = self.fill_at.filter(|_| matches!(self.stage, Stage::Found(_)));
        let feed = self.feed.deadline(self.clock.now());
        let deadline = [feed, fill_at, self.leavers.deadline(), self.saver.deadline()].into_iter().flatten().min();
        let tick = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(self.clock.instant(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The session last but one: a store that never rests must keep neither freed slots nor readers waiting.
            biased;
            () = stop.cancelled() => Event::Stop,
            Some(ticket) = channels.grace_over.recv() => Event::Grace(ticket),
            Some(question) = channels.questions.recv() => Event::Question(question),
            Some(()) = channels.skips.recv() => Event::Skips,
            event = channels.session.recv() => event.map_or(Event::SessionEnded, Event::Session),
            () = tick => Event::Tick,
        }
    }

    fn drain(&mut self, session: &mut mpsc::Receiver<SessionEvent>) {
        for _ in 1..BATCH {
            let Ok(event) = session.try_recv() else { return };
            self.take(event);
        }
    }

    fn take(&mut self, event: SessionEvent) {
        match &event {
            SessionEvent::Connected { epoch } => tracing::info!(epoch = epoch.0, "own store connected"),
            SessionEvent::Lost { reason } => tracing::warn!(%reason, "own store lost; everything is kept"),
            SessionEvent::Listed { .. } => tracing::info!("own store listed"),
            _ => {}
        }
        if !matches!(event, SessionEvent::Lost { .. }) {
            self.saver.heard(clock::unix_ms());
        }
        let now = self.clock.now();
        let changes = self.feed.on(event, now);
        self.apply(changes, now);
    }

    fn apply(&mut self, changes: Vec<tombolo_core::mesh::Change>, now: Millis) {
        if !changes.is_empty() {
            self.saver.changed();
        }
        for change in changes {
            self.dirty.extend(self.mesh.apply(change, now));
        }
    }

    /// Plans the dirty services and executes; before the first complete view it only collects.
    fn carry_out(&mut self) -> Result<(), DatapathError> {
        if self.stage != Stage::Complete && self.begin()? == Begun::Now {
            return Ok(());
        }
        if self.dirty.is_empty() {
            return Ok(());
        }
        let dirty = std::mem::take(&mut self.dirty);
        let desired: Vec<Desired> = dirty.iter().map(|service| self.accounts.desired(&self.mesh, service)).collect();
        self.accounts.before(&dirty, &self.tables, &*self.datapath);
        match self.tables.plan(&desired) {
            Ok(plan) => {
                self.full.retain(|service, _| !dirty.contains(service));
                self.execute(&plan)
            }
            Err(_) => self.one_by_one(&desired),
        }
    }

    /// Goes on to the next stage, if its time has come.
    fn begin(&mut self) -> Result<Begun, DatapathError> {
        let now = self.clock.now();
        let complete = self.feed.blockers(now).is_empty();
        let next = if complete { Stage::Complete } else { Stage::FromSnapshot };
        match &self.stage {
            Stage::Found(_) if !complete && self.fill_at.is_none_or(|at| now < at) => Ok(Begun::Now),
            Stage::Found(repairs) => {
                let repairs = repairs.clone();
                if !complete {
                    tracing::warn!("the own store does not answer: tables are filled from the snapshot");
                }
                self.fill(&repairs)?;
                self.stage = next;
                Ok(Begun::Now)
            }
            Stage::FromSnapshot | Stage::Complete => {
                if complete {
                    tracing::info!("first complete view of the mesh, on tables from the snapshot");
                }
                self.stage = next;
                Ok(Begun::Before)
            }
        }
    }

    /// The first plan of all: from what was found to what should be, then the programs follow these tables.
    fn fill(&mut self, repairs: &Plan) -> Result<(), DatapathError> {
        self.dirty.clear();
        let plans = self.plans;
        self.execute(repairs)?;
        let desired: Vec<Desired> =
            self.mesh.services().map(|spec| self.accounts.desired(&self.mesh, &spec.key)).collect();
        match self.tables.plan_all(&desired) {
            Ok(plan) => self.execute(&plan)?,
            Err(_) => {
                self.one_by_one(&desired)?;
                let rest = self.tables.settle(&desired);
                self.execute(&rest)?;
            }
        }
        self.datapath.commit()?;
        let (repairs, plans) = (repairs.ops.len(), self.plans - plans);
        tracing::info!(services = desired.len(), repairs, plans, "first plan of all services");
        Ok(())
    }

    /// Before the first plan it is left to that.
    fn skip(&mut self) -> Result<(), DatapathError> {
        if matches!(self.stage, Stage::Found(_)) { Ok(()) } else { self.datapath.commit() }
    }

    /// A map is full: whoever fits gets its tables all the same.
    fn one_by_one(&mut self, desired: &[Desired]) -> Result<(), DatapathError> {
        for one in desired {
            match self.tables.plan(std::slice::from_ref(one)) {
                Ok(plan) => {
                    self.full.remove(&one.service);
                    self.execute(&plan)?;
                }
                Err(full) => {
                    if self.full.insert(one.service.clone(), full).is_none() {
                        tracing::error!(service = %one.service, %full, "a service keeps its old table");
                    }
                }
            }
        }
        Ok(())
    }

    fn execute(&mut self, plan: &Plan) -> Result<(), DatapathError> {
        if plan.ops.is_empty() && plan.retired.is_none() {
            return Ok(());
        }
        self.datapath.execute(plan)?;
        self.accounts.after(plan, &self.tables, &*self.datapath);
        self.plans += 1;
        self.metrics.plans.inc();
        self.metrics.operations.inc_by(u64::try_from(plan.ops.len()).unwrap_or(u64::MAX));
        self.waiting_ticket = plan.retired.max(self.waiting_ticket);
        self.leavers.left(&plan.left, self.clock.now());
        tracing::debug!(operations = plan.ops.len(), "plan carried out");
        Ok(())
    }

    /// Hands the youngest ticket to the grace task; when that is busy, the next batch tries again.
    fn retire(&mut self, retired: &mpsc::Sender<Ticket>) {
        if let Some(ticket) = self.waiting_ticket
            && retired.try_send(ticket).is_ok()
        {
            self.waiting_ticket = None;
        }
    }

    fn reclaim(&mut self, ticket: Ticket) -> Result<(), DatapathError> {
        let plan = self.tables.reclaim(ticket);
        self.execute(&plan)?;
        self.dirty.extend(self.full.keys().cloned());
        Ok(())
    }

    fn publish(&self) {
        let now = Readiness { blockers: self.blockers() };
        if **self.readiness.load() != now {
            self.readiness.store(Arc::new(now));
        }
    }
}

#[cfg(test)]
mod tests;
