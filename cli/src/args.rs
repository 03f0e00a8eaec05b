//! The command line. What `--help` prints is this file, and `kube` for what works on Kubernetes clusters.

mod kube;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tombolo_certs::{AuthMode, DEFAULT_CA_NAME, DEFAULT_NAMESPACE};
use tombolo_core::id::{ClusterName, ServiceKey};

pub(crate) use self::kube::{
    ConnectContexts, ConnectionMode, DisableArgs, DisconnectContexts, EnableArgs, Profile, ServiceType, StatusContexts,
};

/// Join clusters into a mesh, and see what it does.
///
/// A Kubernetes cluster is a context of the kubeconfig; `tombolo enable` installs Tombolo there. A cluster without
/// Kubernetes is a directory: cluster.yaml (name, id, store, admin, nodes), source/, tls/, peers/ and store.yaml; `tombolo
/// init` lays one out.
///
/// Exit status: 0 when all is well, 1 when it is not (or a command failed), 2 for a wrong command line.
#[derive(Debug, Parser)]
#[command(name = "tombolo", version, propagate_version = true)]
pub struct Cli {
    /// How to print the result.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Format,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON document.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Install Tombolo in a Kubernetes cluster, or change how it is installed.
    ///
    /// Puts definitions, namespaces, certificates and the profile's manifests there, by server-side apply. Doing it again
    /// changes nothing; what was said before is kept unless it is said anew. Certificates are issued again when they end
    /// soon, or have another authority or other names than they should.
    Enable(Box<EnableArgs>),
    /// Remove Tombolo from a Kubernetes cluster, and from its nodes.
    Disable(DisableArgs),
    /// Lay out a cluster's directory, with leaf certificates.
    Init(InitArgs),
    /// Connect a cluster with others, pairwise and in both directions.
    ///
    /// Checks first, writes then: names, ids and ranges of addresses must differ, and each side must accept the other's
    /// certificates. In Kubernetes a MeshPeer and a Secret are written on both sides; in directories peers/<name>, in
    /// Cilium's format. Running apiservers pick them up by themselves. Doing it again changes nothing.
    Connect(ConnectArgs),
    /// Take a connection back, on both sides.
    Disconnect(DisconnectArgs),
    /// Show whether the clusters are connected, and what is in the way.
    ///
    /// Of directories it asks every apiserver and every agent; with --context it reads the workloads, the MeshPeers and the
    /// certificates. What does not answer is reported. Exit status 1 when not all of them are connected.
    Status(StatusArgs),
    /// List the global services with their kernel tables, per node.
    Services(NodesArgs),
    /// Tell why a service's backends were chosen or not.
    Explain(ExplainArgs),
    /// Show what connections meet: the service, the backend, the process.
    ///
    /// An agent keeps its last 1,024 flows. On a busy node they are a sample: "1 in N" then stands behind each. With -o
    /// json a flow is one line.
    Flows(FlowsArgs),
    /// Make, import, show and verify certificates.
    #[command(subcommand)]
    Certs(CertsCommand),
}

/// Which clusters to ask.
#[derive(Debug, Args)]
pub struct Clusters {
    /// A cluster's directory; may be repeated.
    #[arg(long = "cluster", value_name = "DIR", env = "TOMBOLO_CLUSTER", value_delimiter = ':', default_value = ".")]
    pub clusters: Vec<PathBuf>,
}

/// `init`
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The directory to make.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The cluster's name: 1 to 32 of a-z, 0-9 and '-'.
    #[arg(long, value_parser = cluster_name)]
    pub name: ClusterName,
    /// The cluster's id, unique in the mesh: 1 to 255, or to 511 with --max-connected-clusters 511.
    #[arg(long)]
    pub id: u32,
    /// The size of the mesh, the same in all its clusters: 255 or 511.
    #[arg(long, default_value_t = 255)]
    pub max_connected_clusters: u32,
    /// The authority's directory, made by `tombolo certs init`.
    #[arg(long, value_name = "CA_DIR")]
    pub ca: PathBuf,
    /// Where the store is reached, by peers too: https://HOST:PORT[,…].
    #[arg(long, value_name = "URL")]
    pub store: String,
    /// Where the apiserver's admin service is: unix:PATH or https://HOST:PORT; a relative path is in DIR.
    #[arg(long, value_name = "URL", default_value = "unix:run/apiserver.sock")]
    pub admin: String,
    /// A node and its agent's admin socket; a relative path is in DIR. May be repeated.
    #[arg(long = "node", value_name = "NAME=SOCKET", value_parser = node)]
    pub nodes: Vec<(String, String)>,
    /// What stands in the certificates.
    #[command(flatten)]
    pub leaves: LeafArgs,
}

/// `connect`
#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// This cluster's directory.
    #[arg(long, value_name = "DIR", required_unless_present = "context", conflicts_with = "context")]
    pub cluster: Option<PathBuf>,
    /// The other cluster's directory; may be repeated.
    #[arg(long = "destination", value_name = "DIR", requires = "cluster", required_unless_present = "context")]
    pub directories: Vec<PathBuf>,
    /// Or clusters in Kubernetes.
    #[command(flatten)]
    pub contexts: ConnectContexts,
}

/// `disconnect`
#[derive(Debug, Args)]
pub struct DisconnectArgs {
    /// This cluster's directory.
    #[arg(long, value_name = "DIR", required_unless_present = "context", conflicts_with = "context")]
    pub cluster: Option<PathBuf>,
    /// The other cluster's directory; may be repeated.
    #[arg(long = "destination", value_name = "DIR", requires = "cluster",
          required_unless_present_any = ["peers", "destination_contexts"])]
    pub directories: Vec<PathBuf>,
    /// The other cluster's name, when it is out of reach: only this side is changed. May be repeated.
    #[arg(long = "peer", value_name = "NAME", value_parser = cluster_name)]
    pub peers: Vec<ClusterName>,
    /// Or clusters in Kubernetes.
    #[command(flatten)]
    pub contexts: DisconnectContexts,
}

/// `status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Whom to ask.
    #[command(flatten)]
    pub clusters: Clusters,
    /// Or clusters in Kubernetes.
    #[command(flatten)]
    pub contexts: StatusContexts,
    /// Wait until all are connected, at most this long (such as 90s, 5m, 1h); without a value 15m.
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "15m",
          value_parser = duration)]
    pub wait: Option<Duration>,
}

/// `services`
#[derive(Debug, Args)]
pub struct NodesArgs {
    /// Whom to ask.
    #[command(flatten)]
    pub clusters: Clusters,
    /// Only this namespace.
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Only this node.
    #[arg(long)]
    pub node: Option<String>,
}

/// `flows`
#[derive(Debug, Args)]
pub struct FlowsArgs {
    /// Whom to ask.
    #[command(flatten)]
    pub clusters: Clusters,
    /// Only this node.
    #[arg(long)]
    pub node: Option<String>,
    /// Only this service's: NAMESPACE/NAME, or NAME in the namespace.
    #[arg(long, value_name = "SERVICE", value_parser = service)]
    pub service: Option<String>,
    /// The namespace of a service given by its name alone.
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Go on with the flows to come.
    #[arg(short, long)]
    pub follow: bool,
    /// At most so many of the flows that each node keeps, the youngest. All of them by default, or 10 with --follow.
    #[arg(long, value_name = "N")]
    pub last: Option<u32>,
}

/// `explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The service: NAMESPACE/NAME, or NAME in the namespace.
    #[arg(value_name = "SERVICE", value_parser = service)]
    pub service: String,
    /// The namespace of a service given by its name alone.
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Whom to ask.
    #[command(flatten)]
    pub clusters: Clusters,
    /// As this node sees it; without it, as the first node that answers in each cluster.
    #[arg(long)]
    pub node: Option<String>,
}

/// `certs`
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Make a certificate authority.
    Init {
        /// Its directory, outside any cluster's: ca.crt and ca.key are written there.
        #[arg(long, value_name = "CA_DIR")]
        dir: PathBuf,
        /// Its common name.
        #[arg(long, default_value = DEFAULT_CA_NAME)]
        name: String,
        /// How long it is valid.
        #[arg(long, default_value_t = 3650)]
        days: u32,
        /// Replace an existing authority. Every leaf it issued must then be issued again.
        #[arg(long)]
        force: bool,
    },
    /// Take over an existing authority, such as cilium-ca.
    ImportCa {
        /// Where to keep it: ca.crt and ca.key are written there.
        #[arg(long, value_name = "CA_DIR")]
        dir: PathBuf,
        /// Its certificate, PEM (ca.crt or tls.crt of the Secret).
        #[arg(long, value_name = "FILE", requires = "key", required_unless_present = "secret")]
        cert: Option<PathBuf>,
        /// Its key, PEM: PKCS#8, PKCS#1 or SEC1 (ca.key or tls.key of the Secret).
        #[arg(long, value_name = "FILE", requires = "cert")]
        key: Option<PathBuf>,
        /// Or the Secret as `kubectl get secret -n kube-system cilium-ca -o yaml` prints it.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["cert", "key"])]
        secret: Option<PathBuf>,
        /// Replace an existing authority.
        #[arg(long)]
        force: bool,
    },
    /// Issue, or renew, the four leaves of a cluster: server, admin, local and remote.
    Issue {
        /// The cluster's name.
        #[arg(long, value_name = "NAME", value_parser = cluster_name)]
        cluster_name: ClusterName,
        /// The authority's directory.
        #[arg(long, value_name = "CA_DIR")]
        ca: PathBuf,
        /// The cluster's tls directory.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// What stands in them.
        #[command(flatten)]
        leaves: LeafArgs,
        /// Replace existing leaves. Other authorities in ca.crt stay trusted.
        #[arg(long)]
        force: bool,
    },
    /// Trust a further authority, or stop trusting all others. Needed when the authority is replaced.
    Trust {
        /// The cluster's tls directory.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The authority's directory or certificate.
        #[arg(long, value_name = "CA")]
        ca: PathBuf,
        /// Trust this authority and no other.
        #[arg(long)]
        only: bool,
    },
    /// Show certificates.
    Show {
        /// Certificates, or directories of them.
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<PathBuf>,
    },
    /// Check the leaves of clusters, and that each cluster accepts the others'.
    ///
    /// Says for each problem which side and file it is, and what to do. Exit status 1 when connections would fail.
    Verify {
        /// Whose leaves.
        #[command(flatten)]
        clusters: Clusters,
    },
}

/// What stands in leaves.
#[derive(Clone, Debug, Args)]
pub struct LeafArgs {
    /// A further host name of the server certificate; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub dns: Vec<String>,
    /// A further address of the server certificate; may be repeated.
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Vec<IpAddr>,
    /// The namespace in the server's name, clustermesh-apiserver.NAMESPACE.svc.
    #[arg(long, default_value = DEFAULT_NAMESPACE)]
    pub namespace: String,
    /// The user that peers see: `remote` (legacy, migration) or `remote-<cluster>` (cluster).
    #[arg(long, value_enum, default_value_t)]
    pub auth_mode: AuthModeArg,
    /// How long the leaves are valid.
    #[arg(long, default_value_t = 365)]
    pub days: u32,
}

/// Cilium's `clustermesh.apiserver.tls.authMode`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum AuthModeArg {
    /// One shared user.
    Legacy,
    /// Users per cluster exist, the shared one is still used.
    #[default]
    Migration,
    /// A user per cluster.
    Cluster,
}

impl From<AuthModeArg> for AuthMode {
    fn from(arg: AuthModeArg) -> Self {
        match arg {
            AuthModeArg::Legacy => Self::Legacy,
            AuthModeArg::Migration => Self::Migration,
            AuthModeArg::Cluster => Self::Cluster,
        }
    }
}

fn cluster_name(text: &str) -> Result<ClusterName, String> {
    ClusterName::new(text).map_err(|e| e.to_string())
}

/// Checks that a text can be a service; in which namespace is another flag's matter.
fn service(text: &str) -> Result<String, String> {
    let known = ServiceKey::parse(text).map(|_| text.to_owned());
    known.ok_or_else(|| "it must be NAMESPACE/NAME, or NAME in the namespace of -n".into())
}

/// The service of a text that was checked.
pub(crate) fn in_namespace(service: &str, namespace: &str) -> ServiceKey {
    let (namespace, name) = service.split_once('/').unwrap_or((namespace, service));
    ServiceKey::new(namespace, name)
}

fn node(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, socket)) if !name.is_empty() && !socket.is_empty() => Ok((name.into(), socket.into())),
        _ => Err("it must be NAME=SOCKET".into()),
    }
}

/// A number with `s`, `m` or `h` behind it.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || "it must be a number followed by s, m or h".to_string();
    let unit = text.chars().last().ok_or_else(bad)?;
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| bad())?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return Err(bad()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations() {
        let seconds = |text| duration(text).map(|d| d.as_secs());
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("15m"), Ok(900));
        assert_eq!(seconds("1h"), Ok(3600));
        for bad in ["", "5", "m", "-1s", "5d", "1é", "99999999999999999999h", "18446744073709551615h"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_namespace_is_for_names_alone() {
        let key = |service, namespace| in_namespace(service, namespace).to_string();
        assert_eq!([key("a", "kube-system"), key("web/a", "kube-system")], ["kube-system/a", "web/a"]);
        assert!(service("a/b/c").is_err() && service("").is_err());
    }

    #[test]
    fn wait_has_an_optional_value() {
        let wait = |args: &[&str]| match Cli::try_parse_from(args).unwrap().command {
            Command::Status(status) => status.wait.map(|d| d.as_secs()),
            other => panic!("{other:?}"),
        };
        assert_eq!(wait(&["tombolo", "status"]), None);
        assert_eq!(wait(&["tombolo", "status", "--wait"]), Some(900));
        assert_eq!(wait(&["tombolo", "status", "--wait=30s", "--cluster", "a", "--cluster", "b"]), Some(30));
    }
}
