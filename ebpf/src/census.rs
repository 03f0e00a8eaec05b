//! What the kernel holds on behalf of one cgroup, by id, so that whoever takes it away can see that it is gone.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::maps::{MapInfo, loaded_maps};
use aya::programs::{loaded_links, loaded_programs};

use crate::hooks::HOOKS;
use crate::pins::LINKS;
use crate::{DatapathError, sys};

/// Ids of objects in the kernel. The kernel counts them up and does not give one again soon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Links.
    pub links: BTreeSet<u32>,
    /// Programs.
    pub programs: BTreeSet<u32>,
    /// Maps.
    pub maps: BTreeSet<u32>,
}

impl Census {
    /// The programs on a cgroup's hooks with their links and maps, and the maps pinned in a folder or below it.
    pub fn of(cgroup: &Path, pins: &Path) -> Result<Self, DatapathError> {
        let folder = File::open(cgroup).map_err(|source| DatapathError::Cgroup { path: cgroup.to_owned(), source })?;
        let mut programs = BTreeSet::new();
        for hook in HOOKS {
            let ids = sys::attached(folder.as_fd(), hook.attach_type);
            let call = |source| DatapathError::Call { call: "BPF_PROG_QUERY", object: hook.name, source };
            programs.extend(ids.map_err(call)?);
        }
        let links = loaded_links().flatten().filter(|link| programs.contains(&link.program_id())).map(|link| link.id());
        let used = loaded_programs().flatten().filter(|program| programs.contains(&program.id()));
        let used = used.filter_map(|program| program.map_ids().ok().flatten()).flatten();
        let pinned = maps(pins).into_iter().filter_map(|path| MapInfo::from_pin(path).ok()).map(|map| map.id());
        let maps = used.chain(pinned).collect();
        Ok(Self { links: links.collect(), programs, maps })
    }

    /// What of it the kernel still knows.
    #[must_use]
    pub fn left(&self) -> Self {
        let of =
            |ids: &BTreeSet<u32>, known: &mut dyn Iterator<Item = u32>| known.filter(|id| ids.contains(id)).collect();
        Self {
            links: of(&self.links, &mut loaded_links().flatten().map(|link| link.id())),
            programs: of(&self.programs, &mut loaded_programs().flatten().map(|program| program.id())),
            maps: of(&self.maps, &mut loaded_maps().flatten().map(|map| map.id())),
        }
    }
}

/// The pinned maps in a folder and below it; none where it cannot be read. A pinned link would be read as a map.
fn maps(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let entries = entries.filter(|path| !path.ends_with(LINKS));
    entries.flat_map(|path| if path.is_dir() { maps(&path) } else { vec![path] }).collect()
}
