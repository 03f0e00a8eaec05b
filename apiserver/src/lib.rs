//! One cluster's side of the mesh: exports the own global Services to peers, and mirrors theirs for the own agents.
//!
//! [`export`] and [`mirror`] decide and wait for nothing; [`driver`] is the one task that owns both and feeds them.

pub mod config;
pub mod export;
pub mod mirror;
pub mod scopes;
pub mod writes;

mod clock;
