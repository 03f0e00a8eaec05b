//! Real Kubernetes clusters on one machine: API server, controllers and kube-proxy as processes in a site's namespaces,
//! and a kubelet of our own that starts Pods as processes.
//!
//! All of it comes from one binary, `kubekit` (see `kubekit/main.go`). Nothing here is a double of Kubernetes but the
//! kubelet: no container engine is needed for what a Pod is to the mesh, an address and a process that answers.

mod api;
mod cluster;
mod kit;
mod kubelet;
mod proxy;
mod state;

pub use self::api::Api;
pub use self::cluster::{KubeCluster, NOBODY, PORT};
pub use self::kit::locate;
pub use self::kubelet::Kubelet;
pub use self::proxy::{Mode, Proxy};
pub use self::state::Saved;
