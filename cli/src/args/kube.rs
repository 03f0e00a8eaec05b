//! Flags of the commands that work on Kubernetes clusters.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use tombolo_core::id::ClusterName;

use super::{AuthModeArg, cluster_name, duration};

/// `enable`
#[derive(Debug, Default, Args)]
pub struct EnableArgs {
    /// The cluster's context in the kubeconfig; the current one by default.
    #[arg(long, value_name = "CONTEXT")]
    pub context: Option<String>,
    /// The kubeconfig; as kubectl finds it by default.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The cluster's name: 1 to 32 of a-z, 0-9 and '-'. Needed the first time; so is the id.
    #[arg(long, value_name = "NAME", value_parser = cluster_name)]
    pub cluster_name: Option<ClusterName>,
    /// The cluster's id, unique in the mesh: 1 to 255, or to 511 with --max-connected-clusters 511.
    #[arg(long, value_name = "ID")]
    pub cluster_id: Option<u32>,
    /// The size of the mesh, the same in all its clusters: 255 or 511. Default: 255.
    #[arg(long, value_name = "N")]
    pub max_connected_clusters: Option<u32>,
    /// What is installed. Default: aks or eks where the nodes are theirs, else dev.
    #[arg(long, value_enum)]
    pub profile: Option<Profile>,
    /// How peers reach the store, when not as the profile has it.
    #[arg(long, value_enum)]
    pub service_type: Option<ServiceType>,
    /// Whether a load balancer's address is inside the cluster's network only (Azure, AWS and Google).
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub internal: Option<bool>,
    /// The image of all containers, when not the profile's.
    #[arg(long)]
    pub image: Option<String>,
    /// The authority's directory; it is made there when there is none.
    #[arg(long, value_name = "CA_DIR", conflicts_with = "ca_from")]
    pub ca: Option<PathBuf>,
    /// Another cluster of the mesh, by its context: its authority is shared.
    ///
    /// Without --ca and --ca-from the cluster's own authority stays, and is made the first time.
    #[arg(long, value_name = "CONTEXT")]
    pub ca_from: Option<String>,
    /// A range of this cluster's Services, in which no peer may have backends. Default: its ServiceCIDR objects.
    #[arg(long = "service-cidr", value_name = "CIDR", value_delimiter = ',')]
    pub service_cidrs: Vec<IpNet>,
    /// A range of this cluster's Pods, beside those that its Nodes name.
    #[arg(long = "pod-cidr", value_name = "CIDR", value_delimiter = ',')]
    pub pod_cidrs: Vec<IpNet>,
    /// Whether a Namespace without the annotation clustermesh.cilium.io/global is global. Default: true.
    #[arg(long, value_name = "BOOL")]
    pub default_global_namespace: Option<bool>,
    /// A further host name of the server certificate; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub dns: Vec<String>,
    /// A further address of the server certificate; may be repeated.
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Vec<IpAddr>,
    /// The user that peers see: `remote` (legacy, migration) or `remote-<cluster>` (cluster). Default: as it is, or
    /// migration.
    #[arg(long, value_enum)]
    pub auth_mode: Option<AuthModeArg>,
    /// How long leaves are valid. One with less than 30 days left is issued again.
    #[arg(long, default_value_t = 365)]
    pub days: u32,
}

/// What is installed: a rendering of the chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// One replica behind a port of the nodes.
    Dev,
    /// Two replicas behind a load balancer.
    Ha,
    /// Azure: two replicas behind an internal load balancer.
    Aks,
    /// AWS: two replicas behind an internal load balancer.
    Eks,
}

/// How peers reach the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ServiceType {
    /// By a load balancer.
    #[value(name = "LoadBalancer")]
    LoadBalancer,
    /// By a port of every node.
    #[value(name = "NodePort")]
    NodePort,
    /// Not from outside, unless by ways of yours: say them with --source-endpoint and --destination-endpoint.
    #[value(name = "ClusterIP")]
    ClusterIp,
}

impl ServiceType {
    /// As Kubernetes writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::LoadBalancer => "LoadBalancer",
            Self::NodePort => "NodePort",
            Self::ClusterIp => "ClusterIP",
        }
    }
}

/// `disable`
#[derive(Debug, Args)]
pub struct DisableArgs {
    /// The cluster's context in the kubeconfig; the current one by default.
    #[arg(long, value_name = "CONTEXT")]
    pub context: Option<String>,
    /// The kubeconfig; as kubectl finds it by default.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Also when the cluster has peers. They keep what they had of it until they are disconnected too.
    #[arg(long)]
    pub force: bool,
    /// Leave the agents' programs and maps on the nodes, where they go on without agents.
    #[arg(long)]
    pub keep_nodes: bool,
    /// How long each step may take, such as 90s or 5m.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub within: Duration,
}

/// The Kubernetes side of `connect`.
#[derive(Debug, Args)]
pub struct ConnectContexts {
    /// This cluster, by its context in the kubeconfig.
    #[arg(long, value_name = "CONTEXT", requires = "destinations")]
    pub context: Option<String>,
    /// The other cluster, by its context; may be repeated.
    #[arg(
        id = "destinations",
        long = "destination-context",
        value_name = "CONTEXT",
        requires = "context",
        value_delimiter = ','
    )]
    pub destinations: Vec<String>,
    /// The kubeconfig; as kubectl finds it by default.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Which pairs of contexts are connected.
    #[arg(long, value_enum, default_value_t)]
    pub connection_mode: ConnectionMode,
    /// Where peers reach this cluster's store, HOST:PORT, when not as its Service says; may be repeated.
    #[arg(long = "source-endpoint", value_name = "HOST:PORT", requires = "context")]
    pub source_endpoints: Vec<String>,
    /// Where the other cluster's store is reached; may be repeated. For one --destination-context.
    #[arg(long = "destination-endpoint", value_name = "HOST:PORT", requires = "context")]
    pub destination_endpoints: Vec<String>,
    /// Look at everything and write nothing.
    #[arg(long, requires = "context")]
    pub dry_run: bool,
}

/// Which pairs are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ConnectionMode {
    /// This cluster with each of the others.
    #[default]
    Bidirectional,
    /// Each cluster with each.
    Mesh,
}

/// The Kubernetes side of `disconnect`.
#[derive(Debug, Args)]
pub struct DisconnectContexts {
    /// This cluster, by its context in the kubeconfig.
    #[arg(long, value_name = "CONTEXT")]
    pub context: Option<String>,
    /// The other cluster, by its context; may be repeated.
    #[arg(long = "destination-context", value_name = "CONTEXT", requires = "context", value_delimiter = ',')]
    pub destination_contexts: Vec<String>,
    /// The kubeconfig; as kubectl finds it by default.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// The Kubernetes side of `status`.
#[derive(Debug, Args)]
pub struct StatusContexts {
    /// A cluster by its context in the kubeconfig, instead of directories; may be repeated.
    #[arg(long = "context", value_name = "CONTEXT", value_delimiter = ',')]
    pub contexts: Vec<String>,
    /// The kubeconfig; as kubectl finds it by default.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}
