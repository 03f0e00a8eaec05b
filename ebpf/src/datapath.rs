//! The kernel's datapath: attached while this value lives.

use std::fs::File;
use std::mem::discriminant;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Ebpf, EbpfLoader};
use tombolo_core::model::{BackendKey, Frontend};
use tombolo_core::tables::{
    BackendId, BackendIndex, Contents, Limits, Plan, ServiceEntry, ServiceIndex, SlotBase, SwitchEntry,
};
use tombolo_ebpf_layout::{Control, Fault};

use crate::attach::{self, Place};
use crate::executor::{self, Executor, Faults};
use crate::maps::Maps;
use crate::requirements::requirements;
use crate::sys::CgroupLink;
use crate::{DatapathError, convert, object};

/// Bytes of the ring buffer: about 9,000 flows.
const EVENTS: u32 = 1 << 20;

/// Where to attach, and how large the maps are.
#[derive(Clone, Debug)]
pub struct DatapathConfig {
    /// The cgroup v2 directory whose processes, and those below it, are translated.
    pub cgroup: PathBuf,
    /// Whether `cgroup` may be the root, which is every process of the machine. A node wants it; a test never does.
    pub allow_root: bool,
    /// Where a bpffs is mounted. Nothing is pinned there yet.
    pub bpffs: PathBuf,
    /// Sizes of the tables.
    pub limits: Limits,
    /// How many connected sockets can be open at once and still be told what they dialled; about 100 bytes each, taken
    /// at once.
    pub connections: u32,
    /// How many pairs of a UDP socket without a peer and a backend are remembered, the latest ones, so that answers show
    /// what was sent to; about 120 bytes each, taken at once.
    pub unconnected: u32,
    /// How many pairs of a sticky client and a service are remembered, the latest ones; about 100 bytes each, taken at
    /// once.
    pub affinities: u32,
    /// Another compiled object than the committed one.
    pub object: Option<PathBuf>,
}

impl DatapathConfig {
    /// The default sizes, and the committed object, on a cgroup that is not the root.
    pub fn new(cgroup: PathBuf, bpffs: PathBuf) -> Self {
        Self {
            cgroup,
            allow_root: false,
            bpffs,
            limits: Limits::default(),
            connections: 262_144,
            unconnected: 65_536,
            affinities: 65_536,
            object: None,
        }
    }
}

/// The programs on a cgroup, and their maps. Dropping it detaches the programs and frees the maps.
#[derive(Debug)]
pub struct Datapath {
    maps: Maps,
    limits: Limits,
    place: Place,
    /// Each keeps one program attached, and the program keeps its maps.
    links: Vec<CgroupLink>,
}

impl Datapath {
    /// Loads the programs with empty maps, and attaches them.
    pub fn attach(config: &DatapathConfig) -> Result<Self, DatapathError> {
        let missing = requirements(config);
        if !missing.is_empty() {
            return Err(DatapathError::Missing(missing));
        }
        let cgroup = File::open(&config.cgroup)
            .map_err(|source| DatapathError::Cgroup { path: config.cgroup.clone(), source })?;
        let (mut ebpf, maps) = load(config)?;
        let (links, place) = attach::attach(&mut ebpf, cgroup.as_fd())?;
        if let Place::Last { others } = place {
            tracing::warn!(others, "attached after other programs: this kernel cannot attach before them");
        }
        tracing::info!(cgroup = %config.cgroup.display(), "datapath attached");
        Ok(Self { maps, limits: config.limits, place, links })
    }

    /// Where the programs run among others on the cgroup.
    pub fn place(&self) -> Place {
        self.place
    }

    /// How many sockets are translated and not yet closed, as far as `reverse` had room for them. Looks at each.
    pub fn remembered(&self) -> Result<usize, DatapathError> {
        self.maps.remembered()
    }

    /// Leaves processes in and below these cgroups alone, and no others. Each is given by its level below the root of the
    /// hierarchy, which is 0, and its id, which is the inode of its directory.
    pub fn leave_alone(&mut self, cgroups: &[(u32, u64)]) -> Result<(), DatapathError> {
        self.maps.leave_alone(cgroups)
    }

    /// Detaches the programs and frees the maps, as dropping does.
    pub fn detach(self) {
        tracing::info!(programs = self.links.len(), "datapath detached");
    }
}

/// Loads the object: the maps with the sizes of `config`, empty, and the programs, not yet verified.
fn load(config: &DatapathConfig) -> Result<(Ebpf, Maps), DatapathError> {
    let object = object::load(config.object.as_deref())?;
    let Limits { services, backends, slots, members } = config.limits;
    let set_retval =
        u32::from(has(BpfHelper::BPF_FUNC_set_retval, "refusals read EPERM: ECONNREFUSED needs Linux 5.18"));
    let to_mptcp =
        u32::from(has(BpfHelper::BPF_FUNC_skc_to_mptcp_sock, "MPTCP sockets may fill `reverse`: needs Linux 5.19"));
    let ebpf = EbpfLoader::new()
        .map_max_entries("services", services)
        .map_max_entries("frontends", services)
        .map_max_entries("switch", services)
        .map_max_entries("service_stats", services)
        .map_max_entries("refused", services)
        .map_max_entries("backends", backends)
        .map_max_entries("stats", backends)
        .map_max_entries("slots", slots)
        .map_max_entries("members", members)
        .map_max_entries("events", EVENTS)
        .map_max_entries("reverse", config.connections)
        .map_max_entries("unconnected", config.unconnected)
        .map_max_entries("affinity", config.affinities)
        .override_global("HAS_SET_RETVAL", &set_retval, true)
        .override_global("HAS_SKC_TO_MPTCP", &to_mptcp, true)
        .load(&object)
        .map_err(|source| DatapathError::Load(Box::new(source)))?;
    let maps = Maps::of(&ebpf, &config.limits)?;
    Ok((ebpf, maps))
}

impl Executor for Datapath {
    fn execute(&mut self, plan: &Plan) -> Result<(), DatapathError> {
        executor::check(plan, &self.limits)?;
        plan.ops.chunk_by(|a, b| discriminant(a) == discriminant(b)).try_for_each(|run| self.maps.write(run))
    }

    fn contents(&self) -> Result<Contents, DatapathError> {
        let services = self.maps.services()?;
        let table = |(_, entry): &(Frontend, ServiceEntry)| {
            let switch = self.read_switch(entry.index);
            (entry.index, (switch, self.read_slots(SlotBase(switch.base), switch.count)))
        };
        let place = |(_, entry): &(Frontend, ServiceEntry)| Some((entry.index, self.read_frontend(entry.index)?));
        Ok(Contents {
            frontends: services.iter().filter_map(place).collect(),
            tables: services.iter().map(table).collect(),
            services,
            backends: self.maps.backends(),
            members: self.maps.members()?,
        })
    }

    fn connects(&self, backend: BackendIndex) -> u64 {
        self.maps.stats.get(backend.0 as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
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
        Ok(self.maps.service(frontend)?.map(convert::service_entry))
    }

    fn read_frontend(&self, service: ServiceIndex) -> Option<Frontend> {
        convert::frontend(&self.maps.frontend(service)?)
    }

    fn read_member(&self, service: ServiceIndex, id: BackendId) -> Result<Option<BackendIndex>, DatapathError> {
        self.maps.member(service, id)
    }

    fn read_switch(&self, service: ServiceIndex) -> SwitchEntry {
        self.maps.switch(service.0).map(convert::switch_entry).unwrap_or_default()
    }

    fn read_slots(&self, base: SlotBase, count: u32) -> Vec<BackendIndex> {
        let slots = self.maps.slots.iter().skip(base.0 as usize).take(count as usize);
        slots.map(|word| BackendIndex(word.load(Ordering::Relaxed) as u32)).collect()
    }

    fn read_backend(&self, backend: BackendIndex) -> Option<(BackendId, BackendKey)> {
        convert::backend_key(&self.maps.backend(backend.0)?)
    }
}

/// Whether the kernel has a helper, and what it means if not, which is said.
fn has(helper: BpfHelper, otherwise: &'static str) -> bool {
    let supported = is_helper_supported(ProgramType::CgroupSockAddr, helper).unwrap_or(false);
    if !supported {
        tracing::warn!(otherwise, "this kernel lacks a helper");
    }
    supported
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

    use super::*;
    use crate::MemoryDatapath;

    const LIMITS: Limits = Limits { services: 4, backends: 8, slots: 32, members: 5 };

    /// The kernel's tables without any program attached, or `None` where bpf(2) may not be called.
    fn kernel() -> Option<Datapath> {
        let mut config = DatapathConfig::new("/nowhere".into(), "/nowhere".into());
        (config.limits, config.connections, config.unconnected, config.affinities) = (LIMITS, 8, 8, 8);
        config.object = std::env::var_os("TOMBOLO_BPF_OBJECT").map(PathBuf::from);
        let lacking: Vec<_> = requirements(&config).into_iter().filter(|m| !m.what.contains("cgroup")).collect();
        if lacking.is_empty() {
            let (_, maps) = load(&config).unwrap();
            return Some(Datapath { maps, limits: LIMITS, place: Place::First, links: Vec::new() });
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
