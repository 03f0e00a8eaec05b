//! What the kernel's maps hold, bit by bit, and how a connect reads them.
//!
//! The programs (`ebpf/prog`) and the loader (`tombolo-ebpf`) share this crate, so neither can mean something else than
//! the other; [`LAYOUT_HASH`] says so for a compiled object too. [`decide`] is the programs' whole decision over the
//! small trait [`Maps`], so that it runs, and is tested, on any host. Left out: maps, helpers and system calls.
#![no_std]

mod address;
mod decide;
mod mark;
mod packed;
mod value;

pub use address::Address;
pub use decide::{Maps, Verdict, decide};
pub use mark::{LAYOUT_HASH, LAYOUT_MARK, MARK_MAGIC};
pub use packed::{MAX_SERVICES, MAX_SLOTS_PER_TABLE, ServiceValue, SwitchValue};
pub use value::{Backend, FrontendKey, Reverse};

/// `IPPROTO_TCP`, the one protocol the programs translate.
pub const TCP: u8 = 6;

/// Positions of the `faults` array: what a correct plan and a large enough map never let happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Fault {
    /// A connect was refused because its table led outside the maps, or to a backend of the other family.
    BrokenTable = 0,
    /// `reverse` was full: the connect was translated, but `getpeername` shows the backend.
    ReverseFull = 1,
}

/// How many kinds of fault there are.
pub const FAULTS: u32 = 2;
