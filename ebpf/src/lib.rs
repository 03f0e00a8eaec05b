//! The kernel side of a node: loads the programs, attaches them to a cgroup, and executes plans on their maps.
//!
//! An [`Executor`] carries plans out and makes no choices. [`Datapath`] is the kernel's, [`MemoryDatapath`] an equal
//! one in memory for a node without eBPF; the tests run the same plans on both. This is the only crate that knows aya.
//!
//! Nothing is pinned: programs, maps and links live as long as the [`Datapath`], and go with it. Connections that were
//! translated stay what they are; only new ones, and `getpeername`, are no longer changed.

mod attach;
mod convert;
mod datapath;
mod error;
mod executor;
mod grace;
mod hooks;
mod mapped;
mod maps;
mod memory;
mod object;
mod requirements;
mod runs;
mod sys;

pub use attach::Place;
pub use datapath::{Datapath, DatapathConfig};
pub use error::DatapathError;
pub use executor::{Executor, Faults};
pub use grace::grace_period;
pub use memory::MemoryDatapath;
pub use requirements::{Missing, cgroup2_mount, requirements};
pub use runs::{RunStats, Runs};
pub use tombolo_core::tables::Limits;
