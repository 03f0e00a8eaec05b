//! How a datapath begins: with what an earlier one left, or with nothing; and how it takes over.

use std::collections::BTreeSet;
use std::path::PathBuf;

use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Ebpf, EbpfLoader};
use tombolo_core::tables::{Contents, Limits};

use crate::attach::{self, Loaded, Place, Target};
use crate::maps::Maps;
use crate::pins::{self, Found, Live, Pins};
use crate::requirements::requirements;
use crate::sets::{MAPS, Set};
use crate::tables::{Tables, plan_of};
use crate::{AfterOthers, Datapath, DatapathError, Executor, Foreign, cgroups, grace_period, object, uninstall};

/// Where to attach, where to pin, and how large the maps are.
#[derive(Clone, Debug)]
pub struct DatapathConfig {
    /// The cgroup v2 directory whose processes, and those below it, are translated.
    pub cgroup: PathBuf,
    /// Whether `cgroup` may be the root, which is every process of the machine. A node wants it; a test never does.
    pub allow_root: bool,
    /// A folder in a bpffs, of one agent alone; made if absent.
    pub pins: PathBuf,
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
    /// Cgroups whose processes, and those below them, are left alone: pods that a sidecar redirects already. Those there
    /// are when the datapath begins.
    pub skip_cgroups: Vec<PathBuf>,
    /// What to do where the kernel cannot put our programs before those of others.
    pub after_others: AfterOthers,
    /// Another compiled object than the committed one.
    pub object: Option<PathBuf>,
}

impl DatapathConfig {
    /// The default sizes, and the committed object, on a cgroup that is not the root.
    pub fn new(cgroup: PathBuf, pins: PathBuf) -> Self {
        Self {
            cgroup,
            allow_root: false,
            pins,
            limits: Limits::default(),
            connections: 262_144,
            unconnected: 65_536,
            affinities: 65_536,
            skip_cgroups: Vec::new(),
            after_others: AfterOthers::default(),
            object: None,
        }
    }
}

/// What of a datapath outlives its process, and what it takes to hand it on.
#[derive(Debug)]
pub(crate) struct Life {
    config: DatapathConfig,
    pins: Pins,
    target: Target,
    programs: Vec<Loaded>,
    sockets: Kept,
}

impl Datapath {
    /// Loads the programs with the maps that an earlier datapath of the same layout and sizes has pinned, else with new
    /// ones, which begin with what the old ones hold.
    ///
    /// What runs is not changed: pinned links go on with their programs and maps until [`crate::Executor::commit`]. Only
    /// where no link is pinned and the tables are new, the programs are attached at once.
    pub fn open(config: &DatapathConfig) -> Result<Self, DatapathError> {
        let missing = requirements(config);
        if !missing.is_empty() {
            return Err(DatapathError::Missing(missing));
        }
        let (target, pins) = (Target::open(config)?, Pins::open(&config.pins)?);
        let mut links = pins.links()?;
        links.retain(|live| target.is_run_by(live));
        let nothing_runs = links.is_empty();
        let (tables, sockets) = prepare(&pins, config, &links)?;
        let (mut ebpf, maps) = load(config, Some(&pins))?;
        let programs = attach::load(&mut ebpf)?;
        let life = Life { config: config.clone(), pins, target, programs, sockets };
        let mut datapath = Self { maps, limits: config.limits, life };
        match tables {
            // What an earlier life left and nobody follows may be old: it is repaired first.
            Found::Whole => {}
            Found::Nothing if nothing_runs => {
                if let Err(error) = datapath.commit() {
                    drop(datapath);
                    if let Err(left) = uninstall(&config.pins) {
                        tracing::warn!(%left, "what could not be attached is still pinned");
                    }
                    return Err(error);
                }
            }
            Found::Nothing => datapath.take_over(&links)?,
        }
        tracing::info!(cgroup = %config.cgroup.display(), pins = %config.pins.display(), ?tables, nothing_runs, "datapath open");
        Ok(datapath)
    }

    /// Begins new tables with what those hold that programs follow, so that services keep their indexes and backends their
    /// identities: by these a sticky client is remembered. Tables that are written otherwise, or that do not fit, are not
    /// taken over.
    fn take_over(&mut self, links: &[Live]) -> Result<(), DatapathError> {
        let (live, mut found) = (followed(links), None);
        for folder in self.life.pins.readable(&self.life.config)? {
            found = found.or(Tables::pinned(&folder, &live)?);
        }
        let contents = found.map(|tables| tables.contents()).transpose()?;
        let Limits { services, members, .. } = self.limits;
        let fits = |c: &Contents| c.services.len() <= services as usize && c.members.len() <= members as usize;
        match contents.filter(fits).map(|contents| self.execute(&plan_of(&contents))) {
            Some(Ok(())) => tracing::info!("new tables, with what the old ones hold"),
            Some(Err(error @ (DatapathError::Outside { .. } | DatapathError::Unfit(_)))) => {
                tracing::warn!(%error, "new and empty tables: sticky clients may move once");
            }
            Some(Err(error)) => return Err(error),
            None => tracing::warn!("new and empty tables: the old ones cannot be read. Sticky clients may move once"),
        }
        Ok(())
    }

    /// Whether what an earlier life remembered of sockets and sticky clients is kept: its layout and sizes are the same, or
    /// there was none.
    pub fn keeps_sockets(&self) -> bool {
        self.life.sockets == Kept::Yes
    }

    /// Where the programs run among others on the cgroup.
    pub fn place(&self) -> Result<Place, DatapathError> {
        Ok(self.life.target.place(&self.life.pins.links()?))
    }

    /// Programs of others on the same hooks of the cgroup, of those above and of those below.
    pub fn foreign(&self) -> Result<Vec<Foreign>, DatapathError> {
        Ok(self.life.target.foreign(&self.life.pins.links()?))
    }

    /// How many sockets are translated and not yet closed, as far as `reverse` had room for them. Looks at each.
    pub fn remembered(&self) -> Result<usize, DatapathError> {
        self.maps.remembered()
    }
}

impl Life {
    /// The cgroups to leave alone, by level and id.
    pub(crate) fn skipped(&self) -> Vec<(u32, u64)> {
        let found = |path: &PathBuf| {
            let found = cgroups::level(path).zip(cgroups::cgroup_id(path).ok());
            if found.is_none() {
                tracing::error!(cgroup = %path.display(), "no such cgroup, so its processes are not left alone");
            }
            found
        };
        self.config.skip_cgroups.iter().filter_map(found).collect()
    }

    /// Has the links run these programs on these maps, and forgets all others. Doing it again does nothing.
    pub(crate) fn commit(&mut self) -> Result<(), DatapathError> {
        self.target.commit(&self.pins, &self.programs)?;
        for (_, folder) in self.pins.others(&self.config)? {
            pins::remove(&folder)?;
            tracing::info!(folder = %folder.display(), "maps of an earlier datapath removed");
        }
        Ok(())
    }
}

/// The ids of the maps by which connects are decided.
fn followed(links: &[Live]) -> BTreeSet<u32> {
    links.iter().filter(|live| live.hook.translates()).flat_map(|live| &live.program.maps).copied().collect()
}

/// Makes sure that each set of maps can be adopted or made, and says what will not be carried over.
fn prepare(pins: &Pins, config: &DatapathConfig, links: &[Live]) -> Result<(Found, Kept), DatapathError> {
    let mut tables = pins.prepare(Set::Tables, config)?;
    let sockets = pins.prepare(Set::Sockets, config)?;
    if tables == Found::Whole && !links.is_empty() && !pins.is_followed(Set::Tables, config, &followed(links))? {
        // Left by a life that ended before it took over: it may have begun them with nothing.
        tables = pins.renew(Set::Tables, config)?;
    }
    if tables == Found::Whole {
        // A predecessor may have died just after a switch: what that led to before may still be read.
        grace_period()?;
    }
    if sockets == Found::Whole || links.is_empty() {
        return Ok((tables, Kept::Yes));
    }
    tracing::error!(
        "what is remembered of sockets has another layout or size: once the links are swapped, sticky clients may \
         move once, and open sockets are told their backend as peer"
    );
    Ok((tables, Kept::No))
}

/// Whether what an earlier life remembered of sockets is kept; it is where nothing was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Yes,
    No,
}

/// Loads the object: the maps that are pinned, others with the sizes of `config`, and the programs, not yet verified.
/// Without pins nothing is adopted, and nothing stays.
pub(crate) fn load(config: &DatapathConfig, pins: Option<&Pins>) -> Result<(Ebpf, Maps), DatapathError> {
    let object = object::load(config.object.as_deref())?;
    let set_retval =
        u32::from(has(BpfHelper::BPF_FUNC_set_retval, "refusals read EPERM: ECONNREFUSED needs Linux 5.18"));
    let to_mptcp =
        u32::from(has(BpfHelper::BPF_FUNC_skc_to_mptcp_sock, "MPTCP sockets may fill `reverse`: needs Linux 5.19"));
    let mut loader = EbpfLoader::new();
    for map in &MAPS {
        loader.map_max_entries(map.name, map.entries.of(config));
        if let Some(pins) = pins {
            loader.map_pin_path(map.name, pins.set(map.set, config).join(map.name));
        }
    }
    let ebpf = loader
        .override_global("HAS_SET_RETVAL", &set_retval, true)
        .override_global("HAS_SKC_TO_MPTCP", &to_mptcp, true)
        .load(&object)
        .map_err(|source| DatapathError::Load(Box::new(source)))?;
    let maps = Maps::of(&ebpf, &config.limits)?;
    Ok((ebpf, maps))
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
impl Life {
    /// The life of tables that no program reads: nothing is pinned or attached.
    pub(crate) fn idle(config: &DatapathConfig) -> Result<Self, DatapathError> {
        let (pins, target) = (Pins::open(&config.pins)?, Target::open(config)?);
        Ok(Self { config: config.clone(), pins, target, programs: Vec::new(), sockets: Kept::Yes })
    }
}
