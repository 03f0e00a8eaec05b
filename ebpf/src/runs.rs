//! How often and how long programs ran: the kernel's own count, for measurements.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use crate::hooks::HOOKS;
use crate::{DatapathError, sys};

/// The kernel counts runs and their time for every program of the machine while this value lives. Counting itself costs
/// each run some 50 ns, so it belongs in a measurement only.
#[derive(Debug)]
pub struct RunStats(#[expect(dead_code, reason = "the kernel counts until it is closed")] OwnedFd);

/// What one attached program has run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs {
    /// The hook, as connect4.
    pub hook: &'static str,
    /// The program's id.
    pub id: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// How often it ran while somebody had the kernel count.
    pub count: u64,
    /// How long all of that took.
    pub time: Duration,
}

impl RunStats {
    /// Has the kernel count from now on. Needs Linux 5.8 and CAP_SYS_ADMIN.
    pub fn enable() -> Result<Self, DatapathError> {
        sys::enable_run_time().map(Self).map_err(call("BPF_ENABLE_STATS", "run time"))
    }

    /// What each program on a cgroup's hooks has run since it was loaded, while counting was on. Differences of two
    /// readings are what a measurement wants.
    pub fn on(&self, cgroup: &Path) -> Result<Vec<Runs>, DatapathError> {
        let folder = File::open(cgroup).map_err(|source| DatapathError::Cgroup { path: cgroup.to_owned(), source })?;
        let mut runs = Vec::new();
        for hook in HOOKS {
            let ids = sys::attached(folder.as_fd(), hook.attach_type).map_err(call("BPF_PROG_QUERY", hook.name))?;
            for id in ids {
                let found = sys::by_id(sys::Kind::Program, id).map_err(call("BPF_PROG_GET_FD_BY_ID", hook.name))?;
                let Some(program) = found else { continue };
                let info = sys::program_info(program.as_fd()).map_err(call("BPF_OBJ_GET_INFO_BY_FD", hook.name))?;
                let (count, time) = (info.runs, Duration::from_nanos(info.run_time_ns));
                runs.push(Runs { hook: hook.name, id, name: info.name, count, time });
            }
        }
        Ok(runs)
    }
}

fn call(call: &'static str, object: &'static str) -> impl Fn(std::io::Error) -> DatapathError {
    move |source| DatapathError::Call { call, object, source }
}
