//! Whole systems on one machine: clusters as network namespaces, a real etcd and apiserver in each, agents with real
//! kernel maps on every node, and clients that dial a service.
//!
//! The demo, the end-to-end tests and the propagation bench are three users of the same mesh: [`topology`] makes the
//! machine's part of it, [`cluster`] what an operator would do, [`mesh`] puts them together, [`load`] asks.
//! Everything that is made is named after the [`run`], so that it can be found and undone by anybody, at any time.

pub mod answers;
pub mod cases;
pub mod clock;
pub mod cluster;
pub mod dns;
pub mod etcd;
pub mod kube;
pub mod load;
pub mod manifest;
pub mod mesh;
pub mod needs;
pub mod netns;
pub mod observe;
pub mod operator;
pub mod process;
pub mod programs;
pub mod recorder;
pub mod run;
pub mod scenario;
pub mod story;
pub mod topology;
