//! The programs' links to a cgroup: made, or given new programs, one hook after the other.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use aya::Ebpf;
use aya::programs::{CgroupSock, CgroupSockAddr, Program, ProgramError};

use crate::foreign::{self, AfterOthers, Foreign, Relation};
use crate::hooks::{HOOKS, Hook};
use crate::pins::{Live, Pins};
use crate::sys::ProgramInfo;
use crate::{DatapathConfig, DatapathError, cgroups, sys};

/// Where the programs run among others on the same cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before all others.
    First,
    /// After others: a program that runs first and translates the same address wins.
    Last {
        /// The most programs that run before one of ours that translates.
        others: u32,
    },
}

/// A program in the kernel, attached or not.
#[derive(Debug)]
pub(crate) struct Loaded {
    hook: Hook,
    fd: OwnedFd,
    info: ProgramInfo,
}

/// Loads all programs of an object.
pub(crate) fn load(ebpf: &mut Ebpf) -> Result<Vec<Loaded>, DatapathError> {
    HOOKS.into_iter().map(|hook| load_one(ebpf, hook)).collect()
}

fn load_one(ebpf: &mut Ebpf, hook: Hook) -> Result<Loaded, DatapathError> {
    let failed = |source: ProgramError| DatapathError::Program { program: hook.name, source: Box::new(source) };
    let call = |call| move |source| DatapathError::Call { call, object: hook.name, source };
    let program = ebpf.program_mut(hook.name).ok_or(DatapathError::Absent(hook.name))?;
    match program {
        Program::CgroupSockAddr(program) => CgroupSockAddr::load(program).map_err(failed)?,
        Program::CgroupSock(program) => CgroupSock::load(program).map_err(failed)?,
        _ => return Err(DatapathError::Absent(hook.name)),
    }
    let fd = program.fd().map_err(failed)?.as_fd().try_clone_to_owned().map_err(call("dup"))?;
    let info = sys::program_info(fd.as_fd()).map_err(call("BPF_OBJ_GET_INFO_BY_FD"))?;
    Ok(Loaded { hook, fd, info })
}

/// A cgroup that programs are attached to.
#[derive(Debug)]
pub(crate) struct Target {
    path: PathBuf,
    folder: File,
    id: u64,
    after_others: AfterOthers,
}

impl Target {
    pub(crate) fn open(config: &DatapathConfig) -> Result<Self, DatapathError> {
        let failed = |source| DatapathError::Cgroup { path: config.cgroup.clone(), source };
        let folder = File::open(&config.cgroup).map_err(failed)?;
        let id = cgroups::cgroup_id(&config.cgroup).map_err(failed)?;
        Ok(Self { path: config.cgroup.clone(), folder, id, after_others: config.after_others })
    }

    /// Whether a link runs on this cgroup, or on another that is still there. Of a removed one the kernel lets go of its
    /// links a little later.
    pub(crate) fn is_run_by(&self, live: &Live) -> bool {
        live.info.cgroup == self.id || cgroups::cgroup_path(live.info.cgroup).is_some()
    }

    /// Has every hook run our program: by its link where it has one on this cgroup, else by a new one. What answers is
    /// there before what translates, and a hook that runs the same program on the same maps is left as it is.
    pub(crate) fn commit(&self, pins: &Pins, programs: &[Loaded]) -> Result<(), DatapathError> {
        let links = pins.links()?;
        let of = |hook: Hook| links.iter().find(|live| live.hook == hook && live.info.cgroup == self.id);
        let missing: Vec<_> = programs.iter().filter(|program| of(program.hook).is_none()).collect();
        let flags = self.order(&missing, &links)?;
        for program in programs {
            match of(program.hook) {
                Some(live) => swap(live, program)?,
                None => self.attach(program, flags, pins)?,
            }
        }
        self.retire(&links, pins, programs)
    }

    /// Detaches links from other cgroups, whose names are taken by now, and those of hooks that we have no program for.
    fn retire(&self, links: &[Live], pins: &Pins, programs: &[Loaded]) -> Result<(), DatapathError> {
        for live in links {
            let is_ours = programs.iter().any(|program| program.hook == live.hook);
            if is_ours && live.info.cgroup == self.id {
                continue;
            }
            // Without its name a link would go too, but a little later. One whose cgroup is being removed may be gone.
            if let Err(error) = sys::detach(live.link.as_fd()) {
                tracing::debug!(hook = live.hook.name, %error, "a link could not be detached");
            }
            if !is_ours {
                pins.drop_link(live.hook)?;
            }
        }
        Ok(())
    }

    fn attach(&self, program: &Loaded, flags: u32, pins: &Pins) -> Result<(), DatapathError> {
        let link = self.link(program, flags).map_err(|source| self.refused(program.hook, source))?;
        pins.put_link(program.hook, &link)
    }

    fn link(&self, program: &Loaded, flags: u32) -> io::Result<OwnedFd> {
        sys::link_create(program.fd.as_fd(), self.folder.as_fd(), program.hook.attach_type, flags)
    }

    /// Who else is on the cgroup forbids us: EPERM is what a program that was attached for itself alone answers.
    fn refused(&self, hook: Hook, source: io::Error) -> DatapathError {
        let foreign = foreign::foreign(&self.path, &BTreeSet::new());
        let there: Vec<_> =
            foreign.into_iter().filter(|f| f.hook == hook.name && f.relation != Relation::Below).collect();
        match source.raw_os_error() {
            Some(libc::EPERM) if !there.is_empty() => DatapathError::Exclusive(there),
            _ => DatapathError::Call { call: "BPF_LINK_CREATE", object: hook.name, source },
        }
    }

    /// The flags by which new links come before others; refused where the kernel cannot, others translate, and the
    /// operator has not allowed it.
    fn order(&self, missing: &[&Loaded], links: &[Live]) -> Result<u32, DatapathError> {
        match sys::has_before() {
            Ok(()) => return Ok(sys::BPF_F_BEFORE),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
            Err(source) => {
                return Err(DatapathError::Call { call: "BPF_LINK_CREATE", object: "BPF_F_BEFORE", source });
            }
        }
        let ours = links.iter().map(|live| live.program.id).collect();
        let before: Vec<_> = translating(foreign::on(&self.path, Relation::Same, &ours))
            .filter(|f| missing.iter().any(|program| program.hook.name == f.hook))
            .collect();
        match self.after_others {
            AfterOthers::Refused if !before.is_empty() => Err(DatapathError::AfterOthers(before)),
            _ => Ok(0),
        }
    }

    /// Where the attached programs run, by the kernel's list.
    pub(crate) fn place(&self, links: &[Live]) -> Place {
        let before = |live: &Live| {
            let ids = sys::attached(self.folder.as_fd(), live.hook.attach_type).unwrap_or_default();
            ids.iter().position(|id| *id == live.program.id).and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
        };
        match links.iter().filter(|live| live.hook.translates()).map(before).max().unwrap_or(0) {
            0 => Place::First,
            others => Place::Last { others },
        }
    }

    /// Programs of others on the cgroup, above and below it.
    pub(crate) fn foreign(&self, links: &[Live]) -> Vec<Foreign> {
        foreign::foreign(&self.path, &links.iter().map(|live| live.program.id).collect())
    }
}

fn translating(foreign: Vec<Foreign>) -> impl Iterator<Item = Foreign> {
    let translates = |f: &Foreign| HOOKS.iter().any(|hook| hook.name == f.hook && hook.translates());
    foreign.into_iter().filter(translates)
}

/// Exchanges a link's program, unless it is the same on the same maps.
fn swap(live: &Live, program: &Loaded) -> Result<(), DatapathError> {
    let call = |call| move |source| DatapathError::Call { call, object: live.hook.name, source };
    if live.program.id == program.info.id || same(&live.program, &program.info).map_err(call("BPF_MAP_LOOKUP_ELEM"))? {
        return Ok(());
    }
    sys::link_update(live.link.as_fd(), program.fd.as_fd()).map_err(call("BPF_LINK_UPDATE"))
}

/// Whether two programs are the same instructions on the same maps. Each has its own map of constants, of which the
/// contents count.
fn same(a: &ProgramInfo, b: &ProgramInfo) -> io::Result<bool> {
    let parts = |program: &ProgramInfo| {
        let of = |id: &u32| sys::by_id(sys::Kind::Map, *id)?.map(|map| part(map.as_fd())).transpose();
        program.maps.iter().map(of).collect::<io::Result<BTreeSet<_>>>()
    };
    Ok(a.tag == b.tag && parts(a)? == parts(b)?)
}

/// What makes a map the same for a program: its identity, or the contents when it is one of constants.
fn part(map: BorrowedFd<'_>) -> io::Result<(u32, Vec<u8>)> {
    let info = sys::map_info(map)?;
    match info.flags & sys::BPF_F_RDONLY_PROG {
        0 => Ok((info.id, Vec::new())),
        _ => sys::array_value(map, info.value_size as usize).map(|value| (0, value)),
    }
}
