//! One cluster's side of the mesh: exports the own global Services to peers, and mirrors theirs for the own agents.
//!
//! [`export`] and [`mirror`] decide and wait for nothing; [`driver`] is the one task that owns both and feeds them, and
//! [`app`] puts everything together. What Cilium's `clustermesh-apiserver` and `kvstoremesh` do is here in one program.

pub mod admin;
pub mod app;
pub mod config;
pub mod driver;
pub mod earlier;
pub mod export;
pub mod fatal;
pub mod health;
pub mod held;
pub mod kept;
pub mod kubernetes;
pub mod metrics;
pub mod mirror;
pub mod peer_objects;
pub mod peers_dir;
pub mod scopes;
pub mod view;
pub mod writes;

mod clock;
