//! An agent that plans, on the model of the maps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tombolo_core::id::ServiceKey;
use tombolo_core::model::{BackendKey, Frontend};
use tombolo_core::plan::{Full, Tables};
use tombolo_core::tables::{BackendId, Desired, FrontendTable, Installed, Limits, Op, Plan, Ticket};
use tombolo_testkit::kernel::Kernel;

/// An agent with its tables, the maps, and what it wanted.
pub(crate) struct Agent {
    pub(crate) tables: Tables,
    pub(crate) kernel: Kernel,
    wanted: BTreeMap<Frontend, (ServiceKey, FrontendTable)>,
    pub(crate) tickets: VecDeque<(Ticket, u64)>,
    /// The machine's clock, as it were.
    first_id: u64,
}

impl Agent {
    pub(crate) fn new(limits: Limits) -> Self {
        let first_id = 1_000;
        let tables = Tables::new(limits, BackendId(first_id));
        Self { tables, kernel: Kernel::default(), wanted: BTreeMap::new(), tickets: VecDeque::new(), first_id }
    }

    pub(crate) fn plan(&mut self, desired: &[Desired]) -> Result<Vec<Op>, Full> {
        let before = self.pairs();
        let plan = self.tables.plan(desired)?;
        self.want(desired);
        Ok(self.carry_out(plan, &before))
    }

    /// The first plan of an agent that adopted these maps.
    pub(crate) fn plan_all(&mut self, desired: &[Desired]) -> Result<Vec<Op>, Full> {
        let before = self.pairs();
        let plan = self.tables.plan_all(desired)?;
        self.wanted.clear();
        self.want(desired);
        Ok(self.carry_out(plan, &before))
    }

    /// Another agent takes over, a grace period after this one ended; what it would repair.
    pub(crate) fn adopt(&mut self, limits: Limits) -> Plan {
        self.kernel.grace(self.kernel.now() + 1);
        self.tickets.clear();
        self.first_id += 1_000;
        let (tables, repairs) = Tables::adopt(limits, &self.kernel.contents(), BackendId(self.first_id));
        self.tables = tables;
        assert_eq!(self.tables.limits(), limits);
        repairs
    }

    /// Executes what adoption repairs.
    pub(crate) fn repair(&mut self, repairs: Plan) {
        let before = self.pairs();
        self.carry_out(repairs, &before);
    }

    fn want(&mut self, desired: &[Desired]) {
        let last: BTreeMap<_, _> = desired.iter().map(|d| (&d.service, d)).collect();
        self.wanted.retain(|_, (owner, _)| !last.contains_key(owner));
        for (service, desired) in last.into_iter().rev() {
            for (frontend, table) in &desired.frontends {
                self.wanted.insert(*frontend, (service.clone(), table.clone()));
            }
        }
    }

    pub(crate) fn carry_out(&mut self, plan: Plan, before: &BTreeSet<(Frontend, BackendKey)>) -> Vec<Op> {
        self.kernel.execute(&plan.ops);
        self.tickets.extend(plan.retired.map(|ticket| (ticket, self.kernel.now())));
        let left: BTreeSet<_> = plan.left.iter().copied().collect();
        assert_eq!(left, before.difference(&self.pairs()).copied().collect(), "who left is said");
        plan.ops
    }

    /// Which frontend leads to which backends.
    pub(crate) fn pairs(&self) -> BTreeSet<(Frontend, BackendKey)> {
        let pairs =
            |(f, i): (&Frontend, Installed<'_>)| i.table.backends.iter().map(|(key, _)| (*f, *key)).collect::<Vec<_>>();
        self.tables.frontends().flat_map(pairs).collect()
    }

    pub(crate) fn reclaim(&mut self) {
        if let Some((ticket, began)) = self.tickets.pop_front() {
            self.kernel.grace(began);
            self.kernel.execute(&self.tables.reclaim(ticket).ops);
        }
    }

    pub(crate) fn check(&self) {
        let expected = self.wanted.iter().map(|(frontend, (_, table))| {
            let slots = table.backends.iter().flat_map(|(key, n)| std::iter::repeat_n(*key, *n as usize)).collect();
            (*frontend, (slots, table.no_backend, table.affinity_seconds))
        });
        assert_eq!(self.kernel.found(), expected.collect());
        let installed =
            self.tables.frontends().map(|(f, i)| (*f, (i.service.expect("it has an owner").clone(), i.table.clone())));
        assert_eq!(installed.collect::<BTreeMap<_, _>>(), self.wanted);
        let members = |(f, (_, table)): (&Frontend, &(ServiceKey, FrontendTable))| {
            let index = self.kernel.services[f].index;
            table.members().iter().map(|(key, _)| (index, *key)).collect::<Vec<_>>()
        };
        let in_kernel =
            self.kernel.members.iter().map(|((service, _), index)| (*service, self.kernel.backends[index].1));
        assert_eq!(in_kernel.collect::<BTreeSet<_>>(), self.wanted.iter().flat_map(members).collect());
        let places: BTreeMap<_, _> = self.kernel.backends.iter().map(|(index, (_, key))| (*key, *index)).collect();
        assert_eq!(self.tables.backends().map(|(key, index)| (*key, index)).collect::<BTreeMap<_, _>>(), places);
        assert!(places.iter().all(|(key, index)| self.tables.backend_index(key) == Some(*index)));
        let counts = self.tables.counts();
        assert_eq!(counts.backends as usize, self.kernel.backends.len());
        assert_eq!(counts.members as usize, self.kernel.members.len());
        let limits = self.tables.limits();
        assert!(counts.members <= limits.members && counts.slots <= limits.slots);
        assert!(counts.backends <= limits.backends && counts.frontends <= limits.services);
    }

    /// Once everything is reclaimed, only what is wanted is in use.
    pub(crate) fn check_idle(&mut self) {
        while !self.tickets.is_empty() {
            self.reclaim();
        }
        self.check();
        let tables: Vec<&FrontendTable> = self.wanted.values().map(|(_, table)| table).collect();
        let backends: BTreeSet<_> = tables.iter().flat_map(|t| &t.backends).map(|(key, _)| *key).collect();
        let counts = self.tables.counts();
        assert_eq!(counts.frontends as usize, tables.len());
        assert_eq!(counts.slots, tables.iter().flat_map(|t| &t.backends).map(|(_, n)| n).sum::<u32>());
        assert_eq!(self.kernel.backends.values().map(|b| b.1).collect::<BTreeSet<_>>(), backends);
    }
}
