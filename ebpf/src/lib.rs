//! The kernel side of a node: loads the programs, attaches them to a cgroup, and executes plans on their maps.
//!
//! An [`Executor`] carries plans out and makes no choices. [`Datapath`] is the kernel's, [`MemoryDatapath`] an equal
//! one in memory for a node without eBPF; the tests run the same plans on both. This is the only crate that knows aya.
//!
//! Programs and maps outlive the process: they are pinned in a bpffs, the next [`Datapath`] adopts them, and
//! [`uninstall`] removes them. docs/design/agent-life.md tells that story.

mod attach;
mod census;
mod cgroups;
mod convert;
mod datapath;
mod error;
mod executor;
mod flows;
mod foreign;
mod grace;
mod hooks;
mod life;
mod lock;
mod mapped;
mod maps;
mod memory;
mod object;
mod pins;
mod probe;
mod requirements;
mod runs;
mod sets;
mod sockets;
mod sys;
mod tables;
mod uninstall;

pub use attach::Place;
pub use census::Census;
pub use cgroups::{cgroup_path, cgroup2_mount};
pub use datapath::Datapath;
pub use error::DatapathError;
pub use executor::{Executor, Faults};
pub use flows::{FlowEvent, FlowReader};
pub use foreign::{AfterOthers, Foreign, Relation};
pub use grace::grace_period;
pub use life::DatapathConfig;
pub use memory::MemoryDatapath;
pub use probe::{Check, Need, Probe, State, probe};
pub use requirements::{Missing, requirements};
pub use runs::{RunStats, Runs};
pub use sockets::{Destroyed, Sockets};
pub use tombolo_core::tables::Limits;
pub use tombolo_ebpf_layout::FlowKind;
pub use uninstall::{Uninstalled, uninstall};
