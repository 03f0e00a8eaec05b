//! What a machine must have to run a mesh, and how to get what is missing.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::{etcd, programs};

/// One thing that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What.
    pub what: String,
    /// How to get it.
    pub how: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} - {}", self.what, self.how)
    }
}

/// The workspace's programs that a mesh consists of.
pub const PROGRAMS: [&str; 5] = ["tombolo", "tombolo-apiserver", "tombolo-agent", "rebel-base", "x-wing"];

/// Everything that is missing; empty when a mesh can run.
pub fn missing() -> Vec<Missing> {
    let mut all = missing_here();
    for name in PROGRAMS {
        all.extend(
            programs::program(name)
                .err()
                .map(|error| Missing { what: format!("the program {name} was not built"), how: format!("{error:#}") }),
        );
    }
    all
}

/// What this machine lacks, our own programs aside.
pub fn missing_here() -> Vec<Missing> {
    let mut all = Vec::new();
    all.extend(missing_capabilities());
    all.extend(cgroup2().err().map(|_| {
        Missing {
            what: "no cgroup v2 hierarchy is mounted".into(),
            how: "boot with systemd.unified_cgroup_hierarchy=1, or: mkdir -p /sys/fs/cgroup/unified && \
              mount -t cgroup2 none /sys/fs/cgroup/unified"
                .into(),
        }
    }));
    all.extend(missing_kernel());
    for (program, package) in [("ip", "iproute2"), ("nsenter", "util-linux"), ("mount", "mount"), ("sh", "dash")] {
        if programs::on_path(program).is_none() {
            all.push(Missing {
                what: format!("`{program}` is not on PATH"),
                how: format!("install the package {package}, or put /usr/sbin on PATH"),
            });
        }
    }
    all.extend(etcd::locate().err().map(|error| {
        Missing {
            what: format!("{error:#}"),
            how:
                "run `cargo xtask setup --all` (needs Go), or point TOMBOLO_ETCD at an etcd 3.6.16, or install etcd-server"
                    .into(),
        }
    }));
    all
}

/// Where the cgroup v2 hierarchy is mounted, as this process sees it.
///
/// # Errors
/// It is not.
pub fn cgroup2() -> Result<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    cgroup2_of(&table).context("no cgroup v2 hierarchy is mounted")
}

/// A line is `id parent dev root mount-point options [optional…] - type source options`.
fn cgroup2_of(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        filesystem.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4).map(PathBuf::from)).flatten()
    })
}

/// Numbers from linux/capability.h.
const CAPABILITIES: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN"), (39, "CAP_BPF")];

fn missing_capabilities() -> Option<Missing> {
    if !rustix::process::geteuid().is_root() {
        return Some(Missing { what: "not root".into(), how: "run it with sudo -E, or as root".into() });
    }
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?.trim();
    let effective = u64::from_str_radix(hex, 16).ok()?;
    let lacking: Vec<_> =
        CAPABILITIES.iter().filter(|(bit, _)| effective & (1 << bit) == 0).map(|(_, name)| *name).collect();
    (!lacking.is_empty()).then(|| Missing {
        what: format!("root, but without {}", lacking.join(", ")),
        how: "give the container these capabilities (docker run --privileged)".into(),
    })
}

fn missing_kernel() -> Vec<Missing> {
    let mut all = Vec::new();
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.lines().any(|line| line.ends_with("\tbpf")) {
        all.push(Missing {
            what: "the kernel has no BPF file system".into(),
            how: "use a kernel with CONFIG_BPF_SYSCALL=y and CONFIG_CGROUP_BPF=y (every distribution's has them)"
                .into(),
        });
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if version(&release) < (5, 14) {
        all.push(Missing {
            what: format!("Linux {} is too old for a mesh on one machine", release.trim()),
            how: "use Linux 5.14 or later (cgroup.kill); a node alone needs 5.10".into(),
        });
    }
    if !Path::new("/proc/self/ns/net").exists() {
        all.push(Missing {
            what: "the kernel has no network namespaces".into(),
            how: "use a kernel with CONFIG_NET_NS=y".into(),
        });
    }
    all
}

/// Major and minor of a version text; what cannot be read counts as 0.
pub fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.trim().split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_in_a_hybrid_and_in_a_unified_hierarchy() {
        let check = |line: &str| cgroup2_of(line).map(|p| p.display().to_string());
        let hybrid = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        assert_eq!(check(hybrid).as_deref(), Some("/sys/fs/cgroup/unified"));
        assert_eq!(
            check("30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw").as_deref(),
            Some("/sys/fs/cgroup")
        );
        assert_eq!(check("32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"), None);
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(version("6.18.44-fc-v657"), (6, 18));
        assert_eq!(version("5.9\n"), (5, 9));
        assert!(version("5.9") < version("5.10"));
    }
}
