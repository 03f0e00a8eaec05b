//! What the driver tells readers: status, services, explanations, names of flows, figures for `/metrics`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::oneshot;
use tombolo_core::explain;
use tombolo_core::flows::Sampling;
use tombolo_core::id::ServiceKey;
use tombolo_core::report::{AgentStatus, Explanation, ServiceView};
use tombolo_core::tables::{BackendIndex, Installed, SlotBase, SwitchEntry};

use super::{Driver, Stage};
use crate::accounts;
use crate::clock;
use crate::config::DatapathKind;
use crate::flows::{Names, Unnamed};
use crate::metrics::Scraped;

/// A question of a reader, answered between two batches.
pub enum Question {
    /// `tombolo status`.
    Status(oneshot::Sender<AgentStatus>),
    /// `tombolo services`.
    Services(oneshot::Sender<Vec<ServiceView>>),
    /// `tombolo explain`.
    Explain(ServiceKey, oneshot::Sender<Option<Explanation>>),
    /// The names of flows.
    Names(BTreeSet<Unnamed>, oneshot::Sender<BTreeMap<Unnamed, Names>>),
    /// Sets the flows' sampling, and tells how many were lost so far.
    Sample(Sampling, oneshot::Sender<u64>),
    /// `/metrics`.
    Scrape(oneshot::Sender<Scraped>),
}

impl Driver {
    /// A reader that went away is no concern of ours.
    pub(super) fn answer(&mut self, question: Question) {
        match question {
            Question::Status(reply) => drop(reply.send(self.status())),
            Question::Services(reply) => drop(reply.send(self.services())),
            Question::Explain(service, reply) => drop(reply.send(self.explain(&service))),
            Question::Names(flows, reply) => drop(reply.send(self.names(flows))),
            Question::Sample(sampling, reply) => {
                self.datapath.set_sampling(sampling.0);
                let _ = reply.send(self.datapath.faults().events_lost);
            }
            Question::Scrape(reply) => drop(reply.send(self.scrape())),
        }
    }

    pub(super) fn status(&self) -> AgentStatus {
        let now = self.clock.now();
        let counts = self.tables.counts();
        AgentStatus {
            node: self.mesh.node().clone(),
            cluster: self.mesh.cluster().clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: now.0 / 1_000,
            datapath: self.kind.as_str().into(),
            store_connected: self.feed.is_connected(),
            heartbeat_age_ms: self.feed.heartbeat_age_ms(now),
            synced: self.stage == Stage::Complete,
            blockers: self.blockers(),
            remarks: self.remarks(),
            peers: self.mesh.peers().map(|(name, state)| (name.clone(), state.clone())).collect(),
            frontends: counts.frontends,
            backends: counts.backends,
            plans: self.plans,
        }
    }

    fn remarks(&self) -> Vec<String> {
        let restored = self.restored.filter(|_| self.stage != Stage::Complete);
        let restored = restored.map(|unix_ms| {
            let age = Duration::from_secs(clock::unix_ms().saturating_sub(unix_ms) / 1_000);
            let what = if self.stage == Stage::FromSnapshot { "tables and answers are" } else { "answers are" };
            format!(
                "{what} from a snapshot {} old: the own store has not said all yet",
                humantime::format_duration(age)
            )
        });
        restored.into_iter().chain(self.remarks.iter().cloned()).collect()
    }

    pub(super) fn services(&self) -> Vec<ServiceView> {
        let mut views = explain::services(&self.mesh, &self.tables);
        for view in views.iter_mut().flat_map(|view| &mut view.frontends) {
            let installed = self.tables.installed(&view.frontend).filter(|_| self.kind == DatapathKind::Ebpf);
            view.connects = installed.as_ref().map(|i| self.datapath.service_connects(i.entry.index));
            view.refused = installed.map(|installed| self.datapath.refused(installed.entry.index));
        }
        for slot in views.iter_mut().flat_map(|view| &mut view.frontends).flat_map(|frontend| &mut frontend.backends) {
            let index = self.tables.backend_index(&slot.backend).filter(|_| self.kind == DatapathKind::Ebpf);
            slot.connects = index.map(|index| self.datapath.connects(index));
        }
        views
    }

    fn names(&self, flows: BTreeSet<Unnamed>) -> BTreeMap<Unnamed, Names> {
        let named = |(frontend, backend): Unnamed| {
            let service = self.tables.installed(&frontend).and_then(|installed| installed.service.cloned());
            let cluster = backend.and_then(|backend| self.mesh.cluster_name(backend.cluster).cloned());
            let node = service.as_ref().zip(backend).and_then(|(service, b)| self.mesh.node_of(service, &b).cloned());
            ((frontend, backend), Names { service, cluster, node })
        };
        flows.into_iter().map(named).collect()
    }

    fn scrape(&mut self) -> Scraped {
        let datapath = &*self.datapath;
        Scraped {
            who: [
                ("node", self.mesh.node().clone()),
                ("cluster", self.mesh.cluster().as_str().into()),
                ("datapath", self.kind.as_str().into()),
            ],
            ready: self.readiness.load().blockers.is_empty(),
            connected: self.feed.is_connected(),
            heartbeat_age_ms: self.feed.heartbeat_age_ms(self.clock.now()),
            services: self.accounts.services(&self.mesh, &self.tables, datapath),
            service_count: self.mesh.services().count(),
            clusters: accounts::clusters(&self.mesh, &self.tables, datapath),
            faults: datapath.faults(),
            peers: self.mesh.peers().map(|(name, state)| (name.clone(), state.clone())).collect(),
            used: self.tables.counts(),
            limits: self.tables.limits(),
        }
    }

    /// The core says what the tables should hold; the maps are read back to say whether they do.
    pub(super) fn explain(&self, service: &ServiceKey) -> Option<Explanation> {
        let mut explanation = explain::explain(&self.mesh, &self.tables, service, self.clock.now())?;
        for frontend in &mut explanation.frontends {
            let intact = self.tables.installed(&frontend.frontend).is_none_or(|installed| self.is_intact(&installed));
            frontend.installed &= intact;
        }
        Some(explanation)
    }

    fn is_intact(&self, installed: &Installed<'_>) -> bool {
        let SwitchEntry { base, count, .. } = installed.switch;
        if self.datapath.read_switch(installed.entry.index) != installed.switch {
            return false;
        }
        let mut wanted: BTreeMap<BackendIndex, u32> = BTreeMap::new();
        for (backend, slots) in &installed.table.backends {
            if let Some(index) = self.tables.backend_index(backend) {
                *wanted.entry(index).or_default() += slots;
            }
        }
        let mut held: BTreeMap<BackendIndex, u32> = BTreeMap::new();
        for index in self.datapath.read_slots(SlotBase(base), count) {
            *held.entry(index).or_default() += 1;
        }
        wanted == held
    }

    /// What keeps it from being ready.
    pub(super) fn blockers(&self) -> Vec<String> {
        let complete = self.stage == Stage::Complete;
        let waiting = if complete { Vec::new() } else { self.feed.blockers(self.clock.now()) };
        let full = self.full.iter().map(|(service, full)| format!("{service}: {full}"));
        let unreadable = self.feed.unreadable().iter().map(|(key, problem)| format!("{key}: {problem}"));
        waiting.into_iter().chain(full).chain(unreadable).collect()
    }
}
