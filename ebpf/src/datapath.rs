//! The kernel's datapath: how plans are carried out on its maps. `life` tells how it begins and goes on.

use std::mem::discriminant;
use std::sync::atomic::Ordering;

use tombolo_core::id::ClusterId;
use tombolo_core::model::{BackendKey, Frontend};
use tombolo_core::tables::{
    BackendId, BackendIndex, Contents, Limits, Plan, ServiceEntry, ServiceIndex, SlotBase, SwitchEntry,
};
use tombolo_ebpf_layout::{Control, Fault};

use crate::executor::{self, Executor, Faults};
use crate::life::Life;
use crate::maps::Maps;
use crate::{DatapathError, convert};

/// The programs on a cgroup, and their maps. They are pinned, and go on when this value is dropped; [`crate::uninstall`]
/// ends them.
#[derive(Debug)]
pub struct Datapath {
    pub(crate) maps: Maps,
    pub(crate) limits: Limits,
    pub(crate) life: Life,
}

impl Executor for Datapath {
    fn execute(&mut self, plan: &Plan) -> Result<(), DatapathError> {
        executor::check(plan, &self.limits)?;
        plan.ops.chunk_by(|a, b| discriminant(a) == discriminant(b)).try_for_each(|run| self.maps.write(run))
    }

    fn contents(&self) -> Result<Contents, DatapathError> {
        self.maps.tables.contents()
    }

    fn commit(&mut self) -> Result<(), DatapathError> {
        self.maps.leave_alone(&self.life.skipped())?;
        self.life.commit()
    }

    fn connects(&self, backend: BackendIndex) -> u64 {
        self.maps.stats.get(backend.0 as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    fn erased_connects(&self, cluster: ClusterId) -> u64 {
        self.maps.erased.get(usize::from(cluster.get())).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    fn service_connects(&self, service: ServiceIndex) -> u64 {
        self.maps.service_stats.get(service.0 as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    fn set_sampling(&mut self, threshold: u32) {
        self.maps.set(Control::Sampling, threshold.into());
    }

    fn refused(&self, service: ServiceIndex) -> u64 {
        self.maps.refused.get(service.0 as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    fn faults(&self) -> Faults {
        let of = |fault: Fault| self.maps.faults[fault as usize].load(Ordering::Relaxed);
        Faults {
            broken_tables: of(Fault::BrokenTable),
            reverse_full: of(Fault::ReverseFull),
            unconnected_full: of(Fault::UnconnectedFull),
            affinity_full: of(Fault::AffinityFull),
            events_lost: of(Fault::EventLost),
        }
    }

    fn read_service(&self, frontend: &Frontend) -> Result<Option<ServiceEntry>, DatapathError> {
        Ok(self.maps.tables.service(frontend)?.map(convert::service_entry))
    }

    fn read_frontend(&self, service: ServiceIndex) -> Option<Frontend> {
        convert::frontend(&self.maps.tables.frontend(service)?)
    }

    fn read_member(&self, service: ServiceIndex, id: BackendId) -> Result<Option<BackendIndex>, DatapathError> {
        self.maps.tables.member(service, id)
    }

    fn read_switch(&self, service: ServiceIndex) -> SwitchEntry {
        self.maps.tables.switch(service)
    }

    fn read_slots(&self, base: SlotBase, count: u32) -> Vec<BackendIndex> {
        self.maps.tables.slots(base, count)
    }

    fn read_backend(&self, backend: BackendIndex) -> Option<(BackendId, BackendKey)> {
        convert::backend_key(&self.maps.tables.backend(backend.0)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tombolo_core::id::{Addr, ClusterId, MaxClusters};
    use tombolo_core::model::{NoBackend, Protocol};
    use tombolo_core::tables::Op;
    use tombolo_ebpf_layout::{
        Affinity, AffinityKey, Backend, Client, FrontendKey, MemberKey, ServiceValue, SwitchValue, Verdict, decide,
    };

    use std::path::PathBuf;

    use super::*;
    use crate::life::load;
    use crate::{DatapathConfig, MemoryDatapath, requirements};

    const LIMITS: Limits = Limits { services: 4, backends: 8, slots: 32, members: 5 };

    /// The kernel's tables without any program attached, or `None` where bpf(2) may not be called.
    fn kernel() -> Option<Datapath> {
        let folder = tempfile::tempdir().unwrap();
        let mut config = DatapathConfig::new("/".into(), folder.path().into());
        (config.limits, config.connections, config.unconnected, config.affinities) = (LIMITS, 8, 8, 8);
        config.object = std::env::var_os("TOMBOLO_BPF_OBJECT").map(PathBuf::from);
        let lacking = requirements(&config);
        let lacking = lacking.into_iter().filter(|m| !m.what.contains("cgroup") && !m.what.contains("bpffs"));
        let lacking: Vec<_> = lacking.collect();
        if lacking.is_empty() {
            let (_, maps) = load(&config, None).unwrap();
            return Some(Datapath { maps, limits: LIMITS, life: Life::idle(&config).unwrap() });
        }
        assert!(std::env::var_os("TOMBOLO_FORBID_SKIPS").is_none_or(|v| v != "1"), "skips are forbidden: {lacking:?}");
        eprintln!("SKIPPED: {lacking:?}");
        None
    }

    fn frontend(n: u8) -> Frontend {
        let addr =
            if n.is_multiple_of(2) { Addr::from([n; 16]) } else { std::net::Ipv4Addr::from([10, 96, 0, n]).into() };
        Frontend { addr, port: 80 + u16::from(n), protocol: Protocol::Tcp }
    }

    fn backend(n: u8) -> BackendKey {
        let Frontend { addr, .. } = frontend(n % 7);
        let cluster = ClusterId::new(u32::from(n % 3) + 1, MaxClusters::C255).unwrap();
        BackendKey { addr, port: 8000 + u16::from(n), protocol: Protocol::Tcp, cluster }
    }

    /// Any operation inside the limits, and now and then one outside.
    fn op() -> impl Strategy<Value = Op> {
        let index = || (0..9_u32).prop_map(BackendIndex);
        let service = || (0..5_u32).prop_map(ServiceIndex);
        let no_backend = prop_oneof![Just(NoBackend::Refuse), Just(NoBackend::Pass)];
        prop_oneof![
            8 => (index(), 0..4_u64, any::<u8>())
                .prop_map(|(index, id, n)| Op::PutBackend { index, id: BackendId(id), backend: backend(n) }),
            8 => (0..28_u32, vec((0..8_u32).prop_map(BackendIndex), 0..8))
                .prop_map(|(base, slots)| Op::PutSlots { base: SlotBase(base), slots }),
            8 => (service(), 0..30_u32, 0..5_u32, 0..4096_u16).prop_map(|(service, base, count, generation)| {
                Op::Switch { service, entry: SwitchEntry { base, count, generation } }
            }),
            8 => (0..6_u8, service(), no_backend, 0..3_u32).prop_map(|(n, index, no_backend, affinity_seconds)| {
                Op::PutService { frontend: frontend(n), entry: ServiceEntry { index, no_backend, affinity_seconds } }
            }),
            2 => (0..6_u8).prop_map(|n| Op::DeleteService { frontend: frontend(n) }),
            2 => index().prop_map(|index| Op::DeleteBackend { index }),
            6 => (service(), 0..4_u64, index())
                .prop_map(|(service, id, index)| Op::PutMember { service, id: BackendId(id), index }),
            4 => (service(), 0..4_u64).prop_map(|(service, id)| Op::DeleteMember { service, id: BackendId(id) }),
        ]
    }

    /// An executor as the programs read it.
    struct View<'a>(&'a dyn Executor);

    impl tombolo_ebpf_layout::Maps for View<'_> {
        fn service(&self, key: &FrontendKey) -> Option<ServiceValue> {
            let frontend = Frontend {
                addr: Addr::from(key.addr().octets()),
                port: u16::from_be(key.port()),
                protocol: Protocol::Tcp,
            };
            self.0.read_service(&frontend).unwrap().map(|entry| convert::service_value(entry).unwrap())
        }
        fn is_frontend(&self, service: u32, key: &FrontendKey) -> bool {
            self.0.read_frontend(ServiceIndex(service)).is_some_and(|f| convert::frontend_key(&f) == *key)
        }
        fn affinity(&self, _: &AffinityKey) -> Option<Affinity> {
            Some(Affinity { id: 1, used: 0 })
        }
        fn member(&self, key: &MemberKey) -> Option<u32> {
            let (service, id) = (ServiceIndex(key.service()), BackendId(key.id()));
            self.0.read_member(service, id).unwrap().map(|index| index.0)
        }
        fn switch(&self, service: u32) -> Option<SwitchValue> {
            Some(convert::switch_value(self.0.read_switch(ServiceIndex(service))).unwrap())
        }
        fn slot(&self, position: u32) -> Option<u32> {
            self.0.read_slots(SlotBase(position), 1).first().map(|index| index.0)
        }
        fn backend(&self, index: u32) -> Option<Backend> {
            self.0.read_backend(BackendIndex(index)).map(|(id, key)| convert::backend(id, &key))
        }
    }

    /// A client that had backend 1 before, just now.
    struct Picks(u32);

    impl Client for Picks {
        fn skipped(&self) -> bool {
            false
        }
        fn word(&self, _: u32, _: u16) -> u32 {
            self.0
        }
        fn netns(&self) -> u64 {
            1
        }
        fn now(&self) -> u64 {
            1
        }
    }

    fn verdicts(executor: &dyn Executor) -> Vec<Verdict> {
        let view = View(executor);
        let keys = (0..6).map(|n| convert::frontend_key(&frontend(n)));
        keys.flat_map(|key| [0, u32::MAX / 3, u32::MAX].map(|random| decide(&view, &Picks(random), &key))).collect()
    }

    fn contents(executor: &dyn Executor) -> impl PartialEq + std::fmt::Debug {
        (
            (0..6).map(|n| executor.read_service(&frontend(n)).unwrap()).collect::<Vec<_>>(),
            (0..6).map(|n| executor.read_switch(ServiceIndex(n))).collect::<Vec<_>>(),
            executor.read_slots(SlotBase(0), 40),
            (0..10).map(|n| executor.read_backend(BackendIndex(n))).collect::<Vec<_>>(),
            (0..6).map(|n| executor.read_frontend(ServiceIndex(n))).collect::<Vec<_>>(),
            executor.contents().unwrap(),
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn kernel_and_memory_agree_on_every_plan(plans in vec(vec(op(), 0..12), 1..12)) {
            let Some(mut kernel) = kernel() else { return Ok(()) };
            let mut memory = MemoryDatapath::new(LIMITS);
            for ops in plans {
                let plan = Plan { ops, ..Plan::default() };
                let (done, expected) = (kernel.execute(&plan), memory.execute(&plan));
                prop_assert_eq!(done.map_err(|e| e.to_string()), expected.map_err(|e| e.to_string()));
                prop_assert_eq!(contents(&kernel), contents(&memory));
                prop_assert_eq!(verdicts(&kernel), verdicts(&memory));
            }
        }
    }

    #[test]
    fn what_a_backend_counted_stays_with_its_cluster() {
        let Some(mut kernel) = kernel() else { return };
        let cluster = |n| ClusterId::new(n, MaxClusters::C511).unwrap();
        let key = |n| BackendKey { cluster: cluster(n), ..backend(0) };
        let put = |n, id| Op::PutBackend { index: BackendIndex(3), id: BackendId(id), backend: key(n) };
        let mut run = |op, counted| {
            kernel.execute(&Plan { ops: vec![op], ..Plan::default() }).unwrap();
            kernel.maps.stats[3].fetch_add(counted, Ordering::Relaxed);
            [1, 511].map(|n| kernel.erased_connects(cluster(n)))
        };
        assert_eq!(run(put(1, 7), 5), [0, 0]);
        assert_eq!(run(Op::DeleteBackend { index: BackendIndex(3) }, 0), [5, 0]);
        assert_eq!(run(put(511, 8), 2), [5, 0]);
        assert_eq!(run(put(1, 9), 4), [5, 2], "a place that was not erased first");
        assert_eq!(run(Op::DeleteBackend { index: BackendIndex(3) }, 0), [9, 2]);
        assert_eq!(kernel.connects(BackendIndex(3)), 0);
    }

    #[test]
    fn a_plan_outside_the_maps_changes_nothing() {
        let Some(mut kernel) = kernel() else { return };
        let entry = SwitchEntry { base: 31, count: 2, generation: 0 };
        let ops = vec![
            Op::PutBackend { index: BackendIndex(0), id: BackendId(1), backend: backend(1) },
            Op::Switch { service: ServiceIndex(0), entry },
        ];
        let error = kernel.execute(&Plan { ops, ..Plan::default() }).unwrap_err();
        assert_eq!(error.to_string(), "the plan needs entry 32 of map slots, which has 32");
        assert_eq!(kernel.read_backend(BackendIndex(0)), None);
    }
}
