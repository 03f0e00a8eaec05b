//! What the machine and the process must have, and how to get it.

use std::fmt;
use std::fs;
use std::path::Path;

use rustix::fs::statfs;
use rustix::system::uname;

use crate::{DatapathConfig, cgroup2_mount, sys};

/// One thing that is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// All that a datapath would lack here; empty when it can be attached.
pub fn requirements(config: &DatapathConfig) -> Vec<Missing> {
    by_name(config).into_iter().filter_map(|(_, missing)| missing).collect()
}

/// The same, each by the name of what is looked at.
pub(crate) fn by_name(config: &DatapathConfig) -> [(&'static str, Option<Missing>); 5] {
    [
        ("kernel", kernel()),
        ("rights", rights()),
        ("bpf(2) and mmapable arrays", bpf()),
        ("cgroup", cgroup(config)),
        ("bpffs", pins(config)),
    ]
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

/// The folder of pins, or the nearest one above it that exists, is in a bpffs.
fn pins(config: &DatapathConfig) -> Option<Missing> {
    let pins = &config.pins;
    let there = pins.ancestors().find(|path| path.exists());
    let on_bpffs = there.and_then(|path| statfs(path).ok()).is_some_and(|fs| fs.f_type.cast_unsigned() == BPF_FS_MAGIC);
    if on_bpffs {
        return None;
    }
    missing(
        format!("a bpffs at {}: programs and maps are pinned there and outlive the agent", pins.display()),
        "mount -t bpf bpf /sys/fs/bpf, and name a folder in it",
    )
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

    use super::requirements;
    use crate::{DatapathConfig, cgroup2_mount};

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
