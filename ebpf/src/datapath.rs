//! The kernel's datapath: attached while this value lives.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use aya::EbpfLoader;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};
use tombolo_core::model::{BackendKey, Frontend};
use tombolo_core::tables::{
    BackendId, BackendIndex, Limits, Op, Plan, ServiceEntry, ServiceIndex, SlotBase, SwitchEntry,
};
use tombolo_ebpf_layout::Fault;

use crate::attach::{self, Place};
use crate::executor::{self, Executor, Faults};
use crate::maps::Maps;
use crate::requirements::requirements;
use crate::{DatapathError, convert, object};

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
    /// How many translated TCP sockets can be open at once and still be told what they dialled; about 100 bytes each,
    /// taken at once.
    pub connections: u32,
    /// Another compiled object than the committed one.
    pub object: Option<PathBuf>,
}

impl DatapathConfig {
    /// The default sizes, and the committed object, on a cgroup that is not the root.
    pub fn new(cgroup: PathBuf, bpffs: PathBuf) -> Self {
        Self { cgroup, allow_root: false, bpffs, limits: Limits::default(), connections: 262_144, object: None }
    }
}

/// The programs on a cgroup, and their maps. Dropping it detaches the programs and frees the maps.
#[derive(Debug)]
pub struct Datapath {
    maps: Maps,
    limits: Limits,
    place: Place,
    /// Each keeps one program attached, and the program keeps its maps.
    links: Vec<OwnedFd>,
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
        let object = object::load(config.object.as_deref())?;
        let Limits { services, backends, slots, .. } = config.limits;
        let refusal = u32::from(refuses_by_number());
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("services", services)
            .map_max_entries("switch", services)
            .map_max_entries("refused", services)
            .map_max_entries("backends", backends)
            .map_max_entries("stats", backends)
            .map_max_entries("slots", slots)
            .map_max_entries("reverse", config.connections)
            .override_global("HAS_SET_RETVAL", &refusal, true)
            .load(&object)
            .map_err(|source| DatapathError::Load(Box::new(source)))?;
        let maps = Maps::take(&mut ebpf, &config.limits)?;
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

    /// Detaches the programs and frees the maps, as dropping does.
    pub fn detach(self) {
        tracing::info!(programs = self.links.len(), "datapath detached");
    }
}

impl Executor for Datapath {
    fn execute(&mut self, plan: &Plan) -> Result<(), DatapathError> {
        executor::check(plan, &self.limits)?;
        let same = |a: &Op, b: &Op| matches!((a, b), (Op::PutService { .. }, Op::PutService { .. }));
        for run in plan.ops.chunk_by(same) {
            match run {
                [op] => self.maps.write(op)?,
                // Only services form longer runs, and only they cost a system call each.
                services => self.maps.put_services(&entries(services))?,
            }
        }
        Ok(())
    }

    fn connects(&self, backend: BackendIndex) -> u64 {
        self.maps.stats.get(backend.0 as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    fn refused(&self, service: ServiceIndex) -> u64 {
        self.maps.refused.get(service.0 as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    fn faults(&self) -> Faults {
        let of = |fault: Fault| self.maps.faults[fault as usize].load(Ordering::Relaxed);
        Faults { broken_tables: of(Fault::BrokenTable), reverse_full: of(Fault::ReverseFull) }
    }

    fn read_service(&self, frontend: &Frontend) -> Result<Option<ServiceEntry>, DatapathError> {
        Ok(self.maps.service(frontend)?.map(convert::service_entry))
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

fn entries(services: &[Op]) -> Vec<(Frontend, ServiceEntry)> {
    let entry = |op: &Op| if let Op::PutService { frontend, entry } = op { Some((*frontend, *entry)) } else { None };
    services.iter().filter_map(entry).collect()
}

/// Whether the kernel can refuse with ECONNREFUSED (5.18); before, a refusal reads EPERM.
fn refuses_by_number() -> bool {
    let supported = is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval).unwrap_or(false);
    if !supported {
        tracing::warn!("this kernel refuses connects with EPERM: ECONNREFUSED needs Linux 5.18");
    }
    supported
}
