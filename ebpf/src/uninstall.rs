//! Takes away all that an agent leaves in the kernel.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::hooks::HOOKS;
use crate::lock::Lock;
use crate::pins::{FOLDER, LINKS, entries, failed, remove};
use crate::{DatapathError, sys};

/// What [`uninstall`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uninstalled {
    /// The links that were detached, by their names, in this order. The programs go with them.
    pub links: Vec<String>,
    /// The maps whose names were removed. They go when the last program that uses them has.
    pub maps: Vec<PathBuf>,
    /// Whether the folder of pins was removed too: it was empty, and no file system is mounted on it.
    pub folder: Option<PathBuf>,
}

/// Detaches and unpins everything below `<pins>/tombolo`, and removes the folders. Once more does nothing.
///
/// What translates is detached before what answers, so that no socket is translated that would not be told what it
/// dialled. Connections that were translated go on to their backends. An agent that runs is not disturbed: the folder is
/// its own, and [`DatapathError::Locked`] names it.
pub fn uninstall(pins: &Path) -> Result<Uninstalled, DatapathError> {
    let mut removed = Uninstalled::default();
    if !pins.exists() {
        return Ok(removed);
    }
    let lock = Lock::take(pins)?;
    let folder = pins.join(FOLDER);
    if folder.is_dir() {
        removed.links = links(&folder.join(LINKS))?;
        removed.maps = remove(&folder)?;
    }
    drop(lock);
    let is_mount =
        fs::metadata(pins).ok().zip(fs::metadata(pins.join("..")).ok()).is_none_or(|(a, b)| a.dev() != b.dev());
    // A folder with something in it is somebody else's too.
    if !is_mount && fs::remove_dir(pins).is_ok() {
        removed.folder = Some(pins.to_owned());
    }
    Ok(removed)
}

/// Detaches and unpins the links, what comes last in [`HOOKS`] first.
fn links(folder: &Path) -> Result<Vec<String>, DatapathError> {
    let mut links = entries(folder)?;
    let place = |name: &str| HOOKS.iter().position(|hook| hook.name == name);
    links.sort_by_key(|(name, _)| std::cmp::Reverse(place(name)));
    for (_, path) in &links {
        if let Some(link) = sys::pinned(path).map_err(failed("BPF_OBJ_GET", path))? {
            detach(&link, path)?;
        }
        fs::remove_file(path).map_err(failed("unlink", path))?;
    }
    Ok(links.into_iter().map(|(name, _)| name).collect())
}

/// Detaches a link whoever else holds it; one whose cgroup is gone is detached already.
fn detach(link: &std::os::fd::OwnedFd, path: &Path) -> Result<(), DatapathError> {
    let what = sys::link_info(link.as_fd()).map_err(failed("BPF_OBJ_GET_INFO_BY_FD", path))?;
    match what {
        Some(_) => sys::detach(link.as_fd()).map_err(failed("BPF_LINK_DETACH", path)),
        None => Err(failed("BPF_LINK_DETACH", path)(io::Error::other("not a link to a cgroup"))),
    }
}
