//! What the kernel and this process can, and what it means where they cannot. Nothing is attached to find out.

use std::io;
use std::path::Path;

use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported};
use rustix::system::uname;
use serde::Serialize;

use crate::foreign::{Foreign, foreign};
use crate::hooks::HOOKS;
use crate::requirements::{self, Missing};
use crate::sockets::can_destroy;
use crate::{DatapathConfig, cgroups, sys};

/// All that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// The kernel's release, as `uname -r`.
    pub kernel: String,
    /// Everything, in an order for reading.
    pub checks: Vec<Check>,
    /// Programs on the hooks of the cgroup, of those above and of those below. Those of an agent that runs are among
    /// them.
    pub programs: Vec<Foreign>,
}

/// One thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name, as `hook connect4`.
    pub name: String,
    /// Whether it is there.
    pub state: State,
    /// Whether it has to be.
    pub need: Need,
    /// What was found, or the error; may be empty.
    pub found: String,
    /// What it means when it is absent, or what to do about it.
    pub without: String,
}

/// Whether something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is.
    Present,
    /// It is not.
    Absent,
    /// It could not be found out.
    Unknown,
}

/// Whether something has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// The datapath does not run without it.
    Required,
    /// Something is less good without it.
    Optional,
}

impl Probe {
    /// Whether a datapath can run here.
    pub fn is_usable(&self) -> bool {
        self.checks.iter().all(|check| check.need == Need::Optional || check.state != State::Absent)
    }
}

/// Looks at everything a datapath of this configuration uses.
pub fn probe(config: &DatapathConfig) -> Probe {
    let mut checks = machine(config);
    checks.extend(HOOKS.map(|hook| {
        let kind = if hook.name == "sock_release" { sys::CGROUP_SOCK } else { sys::CGROUP_SOCK_ADDR };
        required(format!("hook {}", hook.name), sys::load_nothing(kind, hook.attach_type), "boot Linux 5.10 or newer")
    }));
    checks.extend(HELPERS.map(|(name, id, need, without)| helper(name, id, need, without)));
    let ring = is_map_supported(aya::maps::MapType::RingBuf).map_err(io::Error::other);
    checks.push(required("ring buffer", yes(ring), "boot Linux 5.10 or newer"));
    checks.extend(calls());
    checks.push(cgroup_by_id(&config.cgroup));
    Probe {
        kernel: uname().release().to_string_lossy().into_owned(),
        checks,
        programs: foreign(&config.cgroup, &[].into()),
    }
}

/// What [`requirements::requirements`] asks for, by name.
fn machine(config: &DatapathConfig) -> Vec<Check> {
    let all = requirements::by_name(config).into_iter();
    let check = |(name, missing): (&str, Option<Missing>)| {
        let state = if missing.is_some() { State::Absent } else { State::Present };
        let Missing { what, how_to_get } = missing.unwrap_or_default();
        Check { name: name.to_owned(), state, need: Need::Required, found: what, without: how_to_get }
    };
    all.map(check).collect()
}

/// The helpers that the programs call.
const HELPERS: [(&str, BpfHelper, Need, &str); 9] = [
    ("get_socket_cookie", BpfHelper::BPF_FUNC_get_socket_cookie, Need::Required, OLD),
    ("get_netns_cookie", BpfHelper::BPF_FUNC_get_netns_cookie, Need::Required, OLD),
    ("get_prandom_u32", BpfHelper::BPF_FUNC_get_prandom_u32, Need::Required, OLD),
    ("ktime_get_ns", BpfHelper::BPF_FUNC_ktime_get_ns, Need::Required, OLD),
    ("get_current_cgroup_id", BpfHelper::BPF_FUNC_get_current_cgroup_id, Need::Required, OLD),
    ("get_current_ancestor_cgroup_id", BpfHelper::BPF_FUNC_get_current_ancestor_cgroup_id, Need::Required, OLD),
    ("get_current_comm", BpfHelper::BPF_FUNC_get_current_comm, Need::Required, OLD),
    (
        "set_retval",
        BpfHelper::BPF_FUNC_set_retval,
        Need::Optional,
        "a refused connect reads EPERM and not ECONNREFUSED (Linux 5.18)",
    ),
    (
        "skc_to_mptcp_sock",
        BpfHelper::BPF_FUNC_skc_to_mptcp_sock,
        Need::Optional,
        "MPTCP sockets that are translated may fill the map of sockets (Linux 5.19)",
    ),
];
const OLD: &str = "boot Linux 5.10 or newer";

fn helper(name: &str, id: BpfHelper, need: Need, without: &str) -> Check {
    let there = is_helper_supported(ProgramType::CgroupSockAddr, id).map_err(io::Error::other);
    Check { need, ..required(format!("helper {name}"), yes(there), without) }
}

/// System calls that only some kernels have.
fn calls() -> [Check; 5] {
    [
        required("link update", sys::has_link_update(), "boot Linux 5.10 or newer"),
        optional(
            "attach before others",
            sys::has_before(),
            "where another program is on the same cgroup first, the datapath refuses, or runs after it if allowed (Linux 6.17)",
        ),
        optional(
            "membarrier",
            sys::membarrier_global(),
            "what a table change leaves is freed a little later, by an update of a map of maps (nohz_full kernels)",
        ),
        optional(
            "end sockets",
            can_destroy(),
            "connected UDP sockets go on sending to a backend that left (CONFIG_INET_DIAG_DESTROY, module udp_diag)",
        ),
        optional(
            "run-time statistics",
            sys::enable_run_time().map(drop),
            "programs cannot be measured (CAP_SYS_ADMIN)",
        ),
    ]
}

fn cgroup_by_id(cgroup: &Path) -> Check {
    let found = cgroups::cgroup_id(cgroup).and_then(cgroups::by_handle);
    optional(
        "cgroup by id",
        found.map(drop),
        "a flow's cgroup is looked for by a walk over all of them (CAP_DAC_READ_SEARCH)",
    )
}

fn required(name: impl Into<String>, found: io::Result<()>, without: impl Into<String>) -> Check {
    let (state, found) = match found {
        Ok(()) => (State::Present, String::new()),
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => (State::Unknown, e.to_string()),
        Err(e) => (State::Absent, e.to_string()),
    };
    Check { name: name.into(), state, need: Need::Required, found, without: without.into() }
}

fn optional(name: &str, found: io::Result<()>, without: &str) -> Check {
    Check { need: Need::Optional, ..required(name, found, without) }
}

/// An answer that is no error, and may be no.
fn yes(answer: io::Result<bool>) -> io::Result<()> {
    answer.and_then(|yes| if yes { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) })
}

#[cfg(test)]
mod tests {
    use super::{Need, State, probe};
    use crate::{DatapathConfig, requirements};

    #[test]
    fn what_is_required_is_what_a_datapath_asks_for() {
        let config = DatapathConfig::new("/proc".into(), "/proc".into());
        let probe = probe(&config);
        assert!(!probe.is_usable(), "{probe:?}");
        let absent = |check: &&super::Check| check.need == Need::Required && check.state == State::Absent;
        let missing = requirements(&config);
        let named: Vec<_> = probe.checks.iter().filter(absent).map(|check| check.found.as_str()).collect();
        for missing in &missing {
            assert!(named.contains(&missing.what.as_str()), "{missing}: {named:?}");
        }
        let cgroup = probe.checks.iter().find(|check| check.name == "cgroup").unwrap();
        assert_eq!((cgroup.state, cgroup.found.as_str()), (State::Absent, "cgroup v2 at /proc"));
    }

    /// The kernel that runs the tests is known to have all of these, when the process may ask.
    #[test]
    fn every_hook_and_helper_is_found_where_it_is() {
        let config = DatapathConfig::new("/proc".into(), "/proc".into());
        if requirements(&config)
            .iter()
            .any(|missing| !["cgroup", "bpffs"].iter().any(|part| missing.what.contains(part)))
        {
            return; // the tests of traffic say SKIPPED
        }
        let lacking = probe(&config)
            .checks
            .into_iter()
            .filter(|check| check.need == Need::Required && !["cgroup", "bpffs"].contains(&check.name.as_str()));
        let lacking: Vec<_> = lacking.filter(|check| check.state != State::Present).collect();
        assert!(lacking.is_empty(), "{lacking:?}");
    }
}
