//! Flags, and the configuration they mean once validated as a whole.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use smol_str::SmolStr;
use tombolo_core::id::{ClusterId, ClusterName, MaxClusters};
use tombolo_wire::etcd_config::{self, EtcdConfig};

/// Merges what the mesh says into this node's maps.
#[derive(Clone, Debug, Parser)]
#[command(name = "tombolo-agent", version)]
pub struct Flags {
    /// This cluster's name: 1–32 of a-z, 0-9 and '-'.
    #[arg(long, env = "TOMBOLO_CLUSTER_NAME")]
    pub cluster_name: String,
    /// This cluster's id, 1–255 (1–511 in a mesh of that size).
    #[arg(long, env = "TOMBOLO_CLUSTER_ID")]
    pub cluster_id: u32,
    /// This node's name, as its EndpointSlices say it.
    #[arg(long, env = "TOMBOLO_NODE_NAME")]
    pub node_name: String,
    /// The own store: an etcd client file as Cilium's (endpoints, trusted-ca-file, cert-file, key-file).
    #[arg(long, env = "TOMBOLO_STORE_CONFIG")]
    pub store_config: PathBuf,
    /// The cgroup v2 folder whose processes are translated.
    #[arg(long, env = "TOMBOLO_CGROUP")]
    pub cgroup: Option<PathBuf>,
    /// Lets --cgroup be the root: every process of the machine is translated, as on a real node.
    #[arg(long, env = "TOMBOLO_ALLOW_ROOT_CGROUP")]
    pub allow_root_cgroup: bool,
    /// Where a BPF file system is mounted.
    #[arg(long, env = "TOMBOLO_BPFFS", default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
    /// A folder for what outlives this process.
    #[arg(long, env = "TOMBOLO_STATE_DIR", default_value = "/var/lib/tombolo")]
    pub state_dir: PathBuf,
    /// The Unix socket that answers `tombolo status`, `services` and `explain` (mode 0600).
    #[arg(long, env = "TOMBOLO_ADMIN_SOCKET", default_value = "/run/tombolo/agent.sock")]
    pub admin_socket: PathBuf,
    /// Where /livez, /readyz and /metrics are answered; nowhere when absent.
    #[arg(long, env = "TOMBOLO_HEALTH_LISTEN")]
    pub health_listen: Option<SocketAddr>,
    /// `none` does all but touch the kernel.
    #[arg(long, env = "TOMBOLO_DATAPATH", default_value = "ebpf")]
    pub datapath: DatapathKind,
    /// How many backends the maps take.
    #[arg(long, env = "TOMBOLO_MAX_BACKENDS", default_value_t = 131_072)]
    pub max_backends: u32,
    /// What is logged: a tracing filter.
    #[arg(long, env = "TOMBOLO_LOG", default_value = "info")]
    pub log: String,
}

/// Which datapath executes the plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DatapathKind {
    /// The kernel's.
    Ebpf,
    /// Tables in memory only.
    None,
}

impl DatapathKind {
    /// Its name, as the flag has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::None => "none",
        }
    }
}

/// A validated configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// This cluster.
    pub cluster: ClusterName,
    /// Its id.
    pub id: ClusterId,
    /// This node.
    pub node: SmolStr,
    /// The own store.
    pub store: EtcdConfig,
    /// The cgroup to attach to; absent without a kernel datapath.
    pub cgroup: Option<PathBuf>,
    /// Whether that may be the root.
    pub allow_root_cgroup: bool,
    /// Where a BPF file system is mounted.
    pub bpffs: PathBuf,
    /// The admin socket.
    pub admin_socket: PathBuf,
    /// Where health is answered.
    pub health_listen: Option<SocketAddr>,
    /// Sizes of the maps.
    pub limits: tombolo_core::tables::Limits,
}

/// All mistakes of a configuration, one a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration has {} mistake(s):\n  {}", .0.len(), .0.join("\n  "))]
pub struct Mistakes(pub Vec<String>);

impl Flags {
    /// Checks everything and reports all mistakes together.
    pub fn validate(&self) -> Result<Config, Mistakes> {
        let mut mistakes = Vec::new();
        let cluster = ClusterName::new(&self.cluster_name).map_err(|e| mistakes.push(format!("--cluster-name: {e}")));
        // The apiserver knows the size of the mesh and refuses what does not fit; here any id of the larger mesh does.
        let id =
            ClusterId::new(self.cluster_id, MaxClusters::C511).map_err(|e| mistakes.push(format!("--cluster-id: {e}")));
        if self.node_name.is_empty() || self.node_name.contains('/') {
            mistakes.push("--node-name: a node's name is not empty and has no '/'".to_owned());
        }
        let store = self.read_store().map_err(|e| mistakes.push(format!("--store-config: {e}")));
        if self.datapath == DatapathKind::Ebpf && self.cgroup.is_none() {
            mistakes.push("--cgroup: the ebpf datapath needs the cgroup v2 folder to attach to".to_owned());
        }
        match (cluster, id, store) {
            (Ok(cluster), Ok(id), Ok(store)) if mistakes.is_empty() => Ok(Config {
                cluster,
                id,
                node: self.node_name.as_str().into(),
                store,
                cgroup: (self.datapath == DatapathKind::Ebpf).then(|| self.cgroup.clone()).flatten(),
                allow_root_cgroup: self.allow_root_cgroup,
                bpffs: self.bpffs.clone(),
                admin_socket: self.admin_socket.clone(),
                health_listen: self.health_listen,
                limits: limits(self.max_backends),
            }),
            _ => Err(Mistakes(mistakes)),
        }
    }

    fn read_store(&self) -> Result<EtcdConfig, String> {
        let path = self.store_config.display();
        let text = std::fs::read_to_string(&self.store_config).map_err(|e| format!("{path}: {e}"))?;
        match etcd_config::parse(&text) {
            Ok(Some(config)) => Ok(config),
            Ok(None) => Err(format!("{path}: no `endpoints:` in it")),
            Err(error) => Err(format!("{path}: {error}")),
        }
    }
}

/// Map sizes for a number of backends: twice the slots and members, since old ranges live until a grace period is over.
fn limits(backends: u32) -> tombolo_core::tables::Limits {
    tombolo_core::tables::Limits { services: 65_536, backends, slots: backends * 2, members: backends * 2 }
}
