//! What the machine and the process must have, and how to get it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;
use rustix::system::uname;

use crate::datapath::DatapathConfig;
use crate::sys;

/// One thing that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What.
    pub what: String,
    /// What to do about it.
    pub how_to_get: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.how_to_get)
    }
}

/// The first kernel whose hooks and helpers are all there.
const KERNEL: (u32, u32) = (5, 10);

// include/uapi/linux/capability.h
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_BPF: u64 = 1 << 39;

/// include/uapi/linux/magic.h
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

/// All that a datapath would lack here; empty when it can be attached.
pub fn requirements(config: &DatapathConfig) -> Vec<Missing> {
    let found = [kernel(), rights(), bpf(), cgroup(config)];
    found.into_iter().flatten().collect()
}

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

fn missing(what: impl Into<String>, how_to_get: impl Into<String>) -> Option<Missing> {
    Some(Missing { what: what.into(), how_to_get: how_to_get.into() })
}

fn kernel() -> Option<Missing> {
    let uname = uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let version = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    if version >= KERNEL {
        return None;
    }
    missing(format!("Linux 5.10 or newer, this is {release}"), "boot a newer kernel")
}

fn rights() -> Option<Missing> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let held = u64::from_str_radix(line.trim(), 16).ok()?;
    if held & CAP_SYS_ADMIN != 0 || held & (CAP_BPF | CAP_NET_ADMIN) == CAP_BPF | CAP_NET_ADMIN {
        return None;
    }
    missing(
        "CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN",
        "run as root, or in a container with securityContext.capabilities.add: [BPF, NET_ADMIN]",
    )
}

fn bpf() -> Option<Missing> {
    let error = sys::create_array(1, sys::BPF_F_MMAPABLE).err()?;
    match error.raw_os_error() {
        Some(libc::EPERM) => missing(
            "the right to call bpf(2)",
            "run as root, and let no seccomp profile or kernel lockdown forbid bpf(2)",
        ),
        Some(libc::ENOSYS) => missing("bpf(2)", "boot a kernel with CONFIG_BPF_SYSCALL=y and CONFIG_CGROUP_BPF=y"),
        _ => missing(format!("mmapable eBPF arrays ({error})"), "boot Linux 5.10 or newer"),
    }
}

fn cgroup(config: &DatapathConfig) -> Option<Missing> {
    let path = config.cgroup.display();
    match statfs(&config.cgroup) {
        Err(error) => {
            return missing(format!("cgroup {path}: {error}"), "mkdir it below the mount point of cgroup2");
        }
        Ok(found) if found.f_type.cast_unsigned() != CGROUP2_SUPER_MAGIC => {
            return missing(format!("cgroup v2 at {path}"), where_cgroup2_is());
        }
        Ok(_) => {}
    }
    if !config.allow_root && is_root(&config.cgroup) {
        return missing(
            format!("a cgroup of its own: {path} is the root, which is every process of this machine"),
            "name a child cgroup, or allow the root",
        );
    }
    None
}

fn where_cgroup2_is() -> String {
    match cgroup2_mount() {
        Some(mount) => format!("it is mounted at {}", mount.display()),
        None => "mount it: mount -t cgroup2 none /sys/fs/cgroup".to_owned(),
    }
}

/// Only the hierarchy's root has no `cgroup.events` (the kernel's Documentation/admin-guide/cgroup-v2.rst).
fn is_root(cgroup: &Path) -> bool {
    !cgroup.join("cgroup.events").exists()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{cgroup2_mount, cgroup2_of, requirements};
    use crate::DatapathConfig;

    #[test]
    fn the_mount_is_found_in_both_arrangements() {
        let hybrid = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        assert_eq!(cgroup2_of(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        let unified = "29 22 0:25 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(cgroup2_of(unified), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(cgroup2_of("40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd"), None);
        assert_eq!(cgroup2_of("41 31 0:38 /a/b /mnt rw - cgroup2 cgroup2 rw"), None);
    }

    fn said(cgroup: PathBuf) -> String {
        let missing = requirements(&DatapathConfig::new(cgroup, "/sys/fs/bpf".into()));
        missing.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_no_cgroup_is_said() {
        assert!(said("/nowhere".into()).contains("cgroup /nowhere: No such file or directory"));
        assert!(said("/proc".into()).contains("cgroup v2 at /proc"));
    }

    #[test]
    fn the_root_is_refused_unless_allowed() {
        let Some(mount) = cgroup2_mount() else { return };
        let mut config = DatapathConfig::new(mount, "/sys/fs/bpf".into());
        let refused = |config: &DatapathConfig| requirements(config).iter().any(|m| m.what.contains("is the root"));
        assert!(refused(&config));
        config.allow_root = true;
        assert!(!refused(&config));
    }
}
