//! What the kernel counted, by service and by cluster: read when somebody asks, and where a plan ends a counter.

use std::collections::{BTreeMap, BTreeSet};

use tombolo_core::id::{ClusterId, ClusterName, MaxClusters, ServiceKey};
use tombolo_core::ledger::{Counts, Ledger};
use tombolo_core::mesh::Mesh;
use tombolo_core::plan::Tables;
use tombolo_core::select::Selection;
use tombolo_core::tables::{Desired, Op, Plan, ServiceIndex};
use tombolo_ebpf::Executor;

/// The accounts of one agent.
pub struct Accounts {
    ledger: Ledger,
    /// How far the selection had to go, for services where that is not the first round.
    rounds: BTreeMap<ServiceKey, u32>,
}

/// What was counted for a service, and how far its selection had to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceCounts {
    /// The counters.
    pub counts: Counts,
    /// See [`tombolo_core::select::Selection::round`].
    pub round: u32,
}

/// The services as they are counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// Those with a name.
    pub named: Vec<(ServiceKey, ServiceCounts)>,
    /// All others together, with their worst round.
    pub others: ServiceCounts,
}

impl Accounts {
    /// Accounts that name at most so many services.
    pub fn new(most: usize) -> Self {
        Self { ledger: Ledger::new(most), rounds: BTreeMap::new() }
    }

    /// What the tables should hold for a service; its round is kept.
    pub fn desired(&mut self, mesh: &Mesh, service: &ServiceKey) -> Desired {
        let selection = mesh.select(service);
        match selection.as_ref().map_or(0, Selection::round) {
            0 => self.rounds.remove(service),
            round => self.rounds.insert(service.clone(), round),
        };
        let frontends = selection.map(|selection| selection.tables()).unwrap_or_default();
        Desired { service: service.clone(), frontends }
    }

    /// Reads the counters of services whose tables a plan may change.
    pub fn before<'a>(
        &mut self,
        services: impl IntoIterator<Item = &'a ServiceKey>,
        tables: &Tables,
        datapath: &dyn Executor,
    ) {
        for (frontend, installed) in services.into_iter().flat_map(|service| tables.frontends_of(service)) {
            let index = installed.entry.index;
            if let Some(owner) = installed.service {
                self.ledger.read(*frontend, index, owner, counts(datapath, index));
            }
        }
    }

    /// Opens and closes accounts as a plan did that was carried out.
    pub fn after(&mut self, plan: &Plan, tables: &Tables, datapath: &dyn Executor) {
        for op in &plan.ops {
            match op {
                Op::PutService { frontend, entry } => {
                    if let Some(owner) = tables.installed(frontend).and_then(|installed| installed.service) {
                        self.ledger.begin(*frontend, entry.index, owner, counts(datapath, entry.index));
                    }
                }
                Op::DeleteService { frontend } => {
                    if let Some(index) = self.ledger.index(frontend) {
                        self.ledger.end(frontend, counts(datapath, index));
                    }
                }
                _ => {}
            }
        }
    }

    /// All services, now.
    pub fn services(&mut self, mesh: &Mesh, tables: &Tables, datapath: &dyn Executor) -> Services {
        let here: BTreeSet<&ServiceKey> = mesh.services().map(|spec| &spec.key).collect();
        self.ledger.retain(&here);
        self.before(here.iter().copied(), tables, datapath);
        let round = |service: &ServiceKey| self.rounds.get(service).copied().unwrap_or(0);
        let line = |(service, counts): (&ServiceKey, Counts)| {
            (service.clone(), ServiceCounts { counts, round: round(service) })
        };
        let named: Vec<_> = self.ledger.named().map(line).collect();
        let is_named = |service: &ServiceKey| named.binary_search_by(|(other, _)| other.cmp(service)).is_ok();
        let unnamed = self.rounds.iter().filter(|(service, _)| here.contains(service) && !is_named(service));
        let worst = unnamed.map(|(_, round)| *round).max().unwrap_or(0);
        Services { others: ServiceCounts { counts: self.ledger.others(), round: worst }, named }
    }
}

/// What was sent to each cluster that has a name: to its backends there are, and to those that were.
pub fn clusters(mesh: &Mesh, tables: &Tables, datapath: &dyn Executor) -> Vec<(ClusterName, u64)> {
    let ids = (1..=u32::from(MaxClusters::C511.largest())).filter_map(|id| ClusterId::new(id, MaxClusters::C511).ok());
    let mut sums: BTreeMap<ClusterId, u64> = ids.map(|id| (id, datapath.erased_connects(id))).collect();
    for (backend, index) in tables.backends() {
        *sums.entry(backend.cluster).or_default() += datapath.connects(index);
    }
    let mut named: BTreeMap<&ClusterName, u64> = BTreeMap::new();
    for (name, sum) in sums.iter().filter_map(|(id, sum)| Some((mesh.cluster_name(*id)?, sum))) {
        *named.entry(name).or_default() += sum;
    }
    named.into_iter().map(|(name, sum)| (name.clone(), sum)).collect()
}

fn counts(datapath: &dyn Executor, index: ServiceIndex) -> Counts {
    Counts { connects: datapath.service_connects(index), refused: datapath.refused(index) }
}
