//! The rules of a Tombolo mesh, and nothing that waits.
//!
//! Every decision the mesh takes is a function here, from values to values: whether a peer's record is admitted
//! ([`admit`]), what silence and restarts may take away ([`hold`]), which endpoints stand behind a service ([`merge`]),
//! which of them serve ([`select`]), and in which order the kernel's maps change ([`plan`]). Time is a parameter, order
//! is a `BTreeMap`, and a result carries its reasons, so that `explain`, status and tests read the same thing.
//!
//! Left out on purpose: std, async, clocks, locks, logs, and every byte format (those are `tombolo-wire`'s).
#![no_std]

extern crate alloc;

pub mod admit;
pub mod explain;
pub mod export;
pub mod flows;
pub mod hold;
pub mod id;
pub mod identity;
pub mod ledger;
pub mod merge;
pub mod mesh;
pub mod model;
pub mod object;
pub mod own;
pub mod plan;
pub mod policy;
pub mod record;
pub mod report;
pub mod select;
pub mod tables;
