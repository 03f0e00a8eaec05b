//! What the kernel's maps hold, bit by bit, and how a connect reads them.
//!
//! The programs (`ebpf/prog`) and the loader (`tombolo-ebpf`) share this crate, so neither can mean something else than
//! the other; [`TABLES_LAYOUT`] and [`SOCKETS_LAYOUT`] say so for a compiled object too. [`decide`] is the programs'
//! whole decision over the small traits [`Maps`] and [`Client`], so that it runs, and is tested, on any host. Left out:
//! maps, helpers and system calls.
#![no_std]

mod address;
mod decide;
mod event;
mod mark;
mod packed;
mod pick;
mod socket;
mod value;

pub use address::Address;
pub use decide::{Client, Maps, Stick, Verdict, decide, taken};
pub use event::{FlowEvent, FlowKind};
pub use mark::{LAYOUT_MARK, MARK_MAGIC, SOCKETS_LAYOUT, TABLES_LAYOUT};
pub use packed::{MAX_SERVICES, MAX_SLOTS_PER_TABLE, ServiceValue, SwitchValue};
pub use pick::socket_word;
pub use socket::{Affinity, AffinityKey, Reverse, UnconnectedKey};
pub use value::{Backend, FrontendKey, FrontendPlace, MemberKey};

/// `IPPROTO_TCP`.
pub const TCP: u8 = 6;

/// `IPPROTO_UDP`.
pub const UDP: u8 = 17;

/// Positions of the `faults` array: what a correct plan and large enough maps never let happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Fault {
    /// A connect was refused because its table led outside the maps, or to a backend of the other family.
    BrokenTable = 0,
    /// `reverse` was full: the connect was translated, but `getpeername` shows the backend.
    ReverseFull = 1,
    /// `unconnected` took no entry: the datagram was translated, but its answer shows the backend as source.
    UnconnectedFull = 2,
    /// `affinity` took no entry: the client's next connect may get another backend.
    AffinityFull = 3,
    /// `events` was full: a sampled flow is not told.
    EventLost = 4,
}

/// How many kinds of fault there are.
pub const FAULTS: u32 = 5;

/// How many words `erased` has: one for each cluster id of the largest mesh.
pub const CLUSTERS: u32 = 512;

/// Positions of the `control` array: what the loader tells the programs while they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Control {
    /// Which flows are told: those whose random 32-bit word is below this; 0 is none, `u32::MAX` all.
    Sampling = 0,
    /// On which levels of the cgroup hierarchy there are cgroups in `skip`: bit n for level n, the root being 0.
    SkipLevels = 1,
}

/// How many words `control` has; some are free.
pub const CONTROLS: u32 = 8;

/// How many counters `translated` has, a power of two: a socket's is that of its cookie's low bits.
pub const TRANSLATED: u32 = 1 << 16;

/// How many levels of the cgroup hierarchy `skip` can name, from the root.
pub const SKIP_LEVELS: u32 = 32;
