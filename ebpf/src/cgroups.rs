//! The hierarchy of cgroups: where it is mounted, who is above and below whom, and paths for ids.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::sys;

/// The id of the hierarchy's root (the kernel's `fs/kernfs/dir.c`).
const ROOT_ID: u64 = 1;

/// Where cgroup v2 is mounted: /sys/fs/cgroup on most machines, /sys/fs/cgroup/unified beside v1.
pub fn cgroup2_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(cgroup2_of)
}

/// The mount point in a line of mountinfo, proc_pid_mountinfo(5), when it is a whole cgroup v2 hierarchy.
fn cgroup2_of(line: &str) -> Option<PathBuf> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    (filesystem.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(point))
}

/// The folder of a cgroup by its id, as a flow event has it; `None` when the cgroup is gone or cgroup v2 not mounted.
///
/// The path is absolute and begins with [`cgroup2_mount`]. It takes one look-up where the process may open files by
/// handle (CAP_DAC_READ_SEARCH), else a walk over all cgroups.
pub fn cgroup_path(id: u64) -> Option<PathBuf> {
    let mount = cgroup2_mount()?;
    match by_handle(id) {
        Ok(path) => path,
        Err(_) => std::iter::once(mount.clone()).chain(below(&mount)).find(|path| cgroup_id(path).ok() == Some(id)),
    }
}

/// The folder of a cgroup by its id, by a look-up; `None` when there is none.
pub(crate) fn by_handle(id: u64) -> io::Result<Option<PathBuf>> {
    let mount = File::open(cgroup2_mount().ok_or(io::ErrorKind::NotFound)?)?;
    let Some(folder) = sys::open_cgroup(&mount, id)? else { return Ok(None) };
    let path = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&folder)))?;
    // A cgroup that was removed while it was looked up.
    Ok((!path.as_os_str().as_encoded_bytes().ends_with(b" (deleted)")).then_some(path))
}

/// The id by which the kernel and its programs call a cgroup.
pub(crate) fn cgroup_id(cgroup: &Path) -> io::Result<u64> {
    fs::metadata(cgroup).map(|meta| meta.ino())
}

/// How far a cgroup is below the hierarchy's root, which is level 0; `None` when that root cannot be seen from here.
pub(crate) fn level(cgroup: &Path) -> Option<u32> {
    let here = fs::canonicalize(cgroup).ok()?;
    let ids = here.ancestors().map_while(|path| cgroup_id(path).ok());
    ids.take(256).position(|id| id == ROOT_ID).and_then(|level| level.try_into().ok())
}

/// The cgroups above one, the nearest first, as far as they can be seen.
pub(crate) fn above(cgroup: &Path) -> Vec<PathBuf> {
    let is_cgroup = |path: &Path| path.join("cgroup.controllers").exists();
    cgroup.ancestors().skip(1).take_while(|path| is_cgroup(path)).map(Path::to_owned).collect()
}

/// The cgroups below one.
pub(crate) fn below(cgroup: &Path) -> Vec<PathBuf> {
    let (mut found, mut next) = (Vec::new(), vec![cgroup.to_owned()]);
    while let Some(folder) = next.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            next.push(entry.path());
            found.push(entry.path());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{above, cgroup_id, cgroup_path, cgroup2_mount, cgroup2_of};

    #[test]
    fn the_mount_is_found_in_both_arrangements() {
        let hybrid = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        assert_eq!(cgroup2_of(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        let unified = "29 22 0:25 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(cgroup2_of(unified), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(cgroup2_of("40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd"), None);
        assert_eq!(cgroup2_of("41 31 0:38 /a/b /mnt rw - cgroup2 cgroup2 rw"), None);
    }

    #[test]
    fn the_mount_is_the_root_of_all() {
        let Some(mount) = cgroup2_mount() else { return };
        assert_eq!(above(&mount), Vec::<PathBuf>::new());
        assert_eq!(cgroup_path(cgroup_id(&mount).unwrap()), Some(mount));
        assert_eq!(cgroup_path(u64::MAX), None);
    }
}
