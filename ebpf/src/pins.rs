//! What outlives a process: names in a bpffs.
//!
//! `<pins>/tombolo/links/<hook>` are the links, `tables-<hash>/<map>` and `sockets-<hash>/<map>` the maps. A name is only
//! where to look: what runs is told by the ids of the links' programs and of their maps.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::hooks::{HOOKS, Hook};
use crate::lock::Lock;
use crate::sets::{MapShape, Set};
use crate::sys::{LinkInfo, MapInfo, ProgramInfo};
use crate::{DatapathConfig, DatapathError, sys};

/// The folder below the one that the operator names.
pub(crate) const FOLDER: &str = "tombolo";
/// The folder of the links.
pub(crate) const LINKS: &str = "links";
/// What the name of a link begins with before it replaces another.
const NEW: &str = "new-";

/// A locked folder of pins.
#[derive(Debug)]
pub(crate) struct Pins {
    folder: PathBuf,
    #[expect(dead_code, reason = "held as long as the pins are ours")]
    lock: Lock,
}

/// A pinned link that is attached.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) hook: Hook,
    pub(crate) link: OwnedFd,
    pub(crate) info: LinkInfo,
    pub(crate) program: ProgramInfo,
}

/// Whether a set of maps was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// All of its maps, of the right shapes.
    Whole,
    /// Nothing, or half of it, which is removed: its maps could not be told apart from those of another life.
    Nothing,
}

impl Pins {
    /// Makes the folder where it is absent, and locks it.
    pub(crate) fn open(pins: &Path) -> Result<Self, DatapathError> {
        let made = |path: &Path| fs::create_dir_all(path).map_err(failed("mkdir", path));
        made(pins)?;
        let lock = Lock::take(pins)?;
        let folder = pins.join(FOLDER);
        made(&folder.join(LINKS))?;
        Ok(Self { folder, lock })
    }

    /// The links that run; the others' names are removed. A link whose cgroup is gone runs nothing.
    pub(crate) fn links(&self) -> Result<Vec<Live>, DatapathError> {
        let mut links = Vec::new();
        for (name, path) in entries(&self.folder.join(LINKS))? {
            let live = HOOKS.into_iter().find(|hook| hook.name == name).map(|hook| live(hook, &path)).transpose()?;
            match live.flatten() {
                Some(live) => links.push(live),
                None => fs::remove_file(&path).map_err(failed("unlink", &path))?,
            }
        }
        Ok(links)
    }

    /// Gives a link its hook's name, in place of what has it.
    pub(crate) fn put_link(&self, hook: Hook, link: &OwnedFd) -> Result<(), DatapathError> {
        let links = self.folder.join(LINKS);
        let (new, path) = (links.join(format!("{NEW}{}", hook.name)), links.join(hook.name));
        // What an earlier life left between the two steps.
        if let Err(error) = fs::remove_file(&new)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(failed("unlink", &new)(error));
        }
        sys::pin(link.as_fd(), &new).map_err(failed("BPF_OBJ_PIN", &new))?;
        fs::rename(&new, &path).map_err(failed("rename", &path))
    }

    /// Takes a hook's name away.
    pub(crate) fn drop_link(&self, hook: Hook) -> Result<(), DatapathError> {
        let path = self.folder.join(LINKS).join(hook.name);
        fs::remove_file(&path).map_err(failed("unlink", &path))
    }

    /// The folder of a set.
    pub(crate) fn set(&self, set: Set, config: &DatapathConfig) -> PathBuf {
        self.folder.join(set.folder(config))
    }

    /// Makes sure that a set's folder holds all of its maps or none.
    pub(crate) fn prepare(&self, set: Set, config: &DatapathConfig) -> Result<Found, DatapathError> {
        let folder = self.set(set, config);
        if folder.is_dir() {
            let found = set.maps().map(|map| fits(map, &folder, config)).collect::<Result<Vec<_>, _>>()?;
            if found.iter().all(|fits| *fits) {
                return Ok(Found::Whole);
            }
            if found.iter().any(|fits| *fits) {
                tracing::warn!(folder = %folder.display(), "half a set of pinned maps: made anew");
            }
        }
        self.renew(set, config)
    }

    /// Makes a set's folder, empty.
    pub(crate) fn renew(&self, set: Set, config: &DatapathConfig) -> Result<Found, DatapathError> {
        let folder = self.set(set, config);
        if folder.is_dir() {
            remove(&folder)?;
        }
        fs::create_dir(&folder).map_err(failed("mkdir", &folder))?;
        Ok(Found::Nothing)
    }

    /// Whether one of a set's maps is among these.
    pub(crate) fn is_followed(
        &self,
        set: Set,
        config: &DatapathConfig,
        maps: &BTreeSet<u32>,
    ) -> Result<bool, DatapathError> {
        for (_, path) in entries(&self.set(set, config))? {
            let Some(map) = sys::pinned(&path).map_err(failed("BPF_OBJ_GET", &path))? else { continue };
            let info = sys::map_info(map.as_fd()).map_err(failed("BPF_OBJ_GET_INFO_BY_FD", &path))?;
            if maps.contains(&info.id) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The folders of other tables than these whose contents this program can read.
    pub(crate) fn readable(&self, config: &DatapathConfig) -> Result<Vec<PathBuf>, DatapathError> {
        let (own, readable) = (Set::Tables.folder(config), Set::Tables.readable());
        let entries = entries(&self.folder)?.into_iter();
        Ok(entries.filter(|(name, _)| *name != own && name.starts_with(&readable)).map(|(_, path)| path).collect())
    }

    /// The folders of other layouts or sizes than these, of both sets.
    pub(crate) fn others(&self, config: &DatapathConfig) -> Result<Vec<(Set, PathBuf)>, DatapathError> {
        let mut others = Vec::new();
        for (name, path) in entries(&self.folder)? {
            let set = Set::ALL.into_iter().find(|set| name.starts_with(set.prefix()));
            others.extend(set.filter(|set| name != set.folder(config)).map(|set| (set, path)));
        }
        Ok(others)
    }
}

/// The link of a name when it is attached to this hook.
fn live(hook: Hook, path: &Path) -> Result<Option<Live>, DatapathError> {
    let Some(link) = sys::pinned(path).map_err(failed("BPF_OBJ_GET", path))? else { return Ok(None) };
    let found = sys::link_info(link.as_fd()).map_err(failed("BPF_OBJ_GET_INFO_BY_FD", path))?;
    let Some(info) = found.filter(|info| info.attach_type == hook.attach_type && info.cgroup != 0) else {
        return Ok(None);
    };
    let program = sys::by_id(sys::Kind::Program, info.program).map_err(failed("BPF_PROG_GET_FD_BY_ID", path))?;
    let Some(program) = program else { return Ok(None) };
    let program = sys::program_info(program.as_fd()).map_err(failed("BPF_OBJ_GET_INFO_BY_FD", path))?;
    Ok(Some(Live { hook, link, info, program }))
}

/// Whether a map of this shape is pinned in a folder.
fn fits(map: &MapShape, folder: &Path, config: &DatapathConfig) -> Result<bool, DatapathError> {
    let path = folder.join(map.name);
    let Some(pinned) = sys::pinned(&path).map_err(failed("BPF_OBJ_GET", &path))? else { return Ok(false) };
    let MapInfo { kind, key_size, value_size, max_entries, .. } =
        sys::map_info(pinned.as_fd()).map_err(failed("BPF_OBJ_GET_INFO_BY_FD", &path))?;
    let shape = (map.kind, map.key, map.value, map.entries.of(config));
    Ok(shape == (kind, key_size as usize, value_size as usize, max_entries))
}

/// The names in a folder, in their order; none when it is absent.
pub(crate) fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, DatapathError> {
    let read = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(failed("open", folder))?,
    };
    let mut entries = Vec::new();
    for entry in read {
        let entry = entry.map_err(failed("readdir", folder))?;
        entries.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    entries.sort();
    Ok(entries)
}

/// Takes a folder's names away, and the folder; what they name goes when nothing else uses it. The names.
pub(crate) fn remove(folder: &Path) -> Result<Vec<PathBuf>, DatapathError> {
    let mut removed = Vec::new();
    for (_, path) in entries(folder)? {
        if path.is_dir() {
            removed.extend(remove(&path)?);
        } else {
            fs::remove_file(&path).map_err(failed("unlink", &path))?;
            removed.push(path);
        }
    }
    fs::remove_dir(folder).map_err(failed("rmdir", folder))?;
    Ok(removed)
}

/// How a failure at a path is told.
pub(crate) fn failed(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DatapathError {
    let path = path.to_owned();
    move |source| DatapathError::Pin { call, path, source }
}
