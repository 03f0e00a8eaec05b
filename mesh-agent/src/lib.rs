//! `tombolo-agent`: merges what the mesh says into this node's maps.
//!
//! One driver task owns the [`tombolo_core::mesh::Mesh`] and a `match` over a closed enum of events; it decides nothing
//! itself. Everything it knows comes over one watch on one prefix of the own store, so it holds no Kubernetes
//! credentials and knows no format of Cilium's. When everything above is gone, it keeps answering from what it has.
#![expect(unreachable_pub, reason = "modules are private; `pub` marks what crosses them")]

mod accounts;
mod admin;
pub mod app;
mod clock;
pub mod commands;
pub mod config;
mod datapath;
mod driver;
mod feed;
mod flows;
mod health;
mod metrics;
mod reaper;
mod snapshot;
