//! The command line, validated as a whole: every mistake is reported at once, with the flag that has it.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;
use ipnet::IpNet;
use tombolo_core::export::DefaultNamespace;
use tombolo_core::id::{ClusterId, ClusterName, MaxClusters};
use tombolo_kube::mirroring::Mode;
use tombolo_kube::source::Target;
use tombolo_store::listen::ListenAddr;
use tombolo_store::{StoreConfig, TlsFiles};

/// Exports this cluster's global Services to its peers, and mirrors theirs for the agents of this cluster.
#[derive(Clone, Debug, Parser)]
#[command(name = "tombolo-apiserver", version)]
pub struct Args {
    /// This cluster's name: 1 to 32 of a-z, 0-9 and '-'.
    #[arg(long, env = "TOMBOLO_CLUSTER_NAME")]
    pub cluster_name: String,
    /// This cluster's id: 1 to 255, or to 511. No two clusters of a mesh may share one.
    #[arg(long, env = "TOMBOLO_CLUSTER_ID")]
    pub cluster_id: String,
    /// How many clusters the mesh may have, 255 or 511; the same in all of them.
    #[arg(long, env = "TOMBOLO_MAX_CONNECTED_CLUSTERS", default_value = "255")]
    pub max_connected_clusters: String,
    /// Where local objects are read: dir:PATH, a directory of Kubernetes manifests; kubernetes, the cluster this program runs
    /// in; or kubernetes:KUBECONFIG[#CONTEXT].
    #[arg(long, env = "TOMBOLO_SOURCE")]
    pub source: String,
    /// The own store: https:// URLs of one etcd, separated by commas.
    #[arg(long, env = "TOMBOLO_STORE")]
    pub store: String,
    /// Directory with ca.crt, server.{crt,key} and admin.{crt,key}.
    #[arg(long, env = "TOMBOLO_TLS_DIR")]
    pub tls_dir: PathBuf,
    /// Directory with one etcd client file per peer, named like the peer.
    #[arg(long, env = "TOMBOLO_PEERS_DIR")]
    pub peers_dir: PathBuf,
    /// Directory where the numbers of identities are kept, so that they survive an emptied store; without it the own
    /// store alone keeps them.
    #[arg(long, env = "TOMBOLO_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// With a Kubernetes source: the namespace of the Secrets that MeshPeers name.
    #[arg(long, env = "TOMBOLO_PEERS_NAMESPACE", default_value = "tombolo-peers")]
    pub peers_namespace: String,
    /// With a Kubernetes source: of which global Services peers' endpoints become EndpointSlices here: off, headless or all.
    #[arg(long, env = "TOMBOLO_MIRROR_ENDPOINT_SLICES", default_value = "headless")]
    pub mirror_endpoint_slices: String,
    /// Where the CLI connects, mTLS for admin-<cluster> alone: IP:PORT or unix:/path.
    #[arg(long, env = "TOMBOLO_ADMIN_LISTEN")]
    pub admin_listen: Option<String>,
    /// Where /livez, /readyz and /metrics are served in plain HTTP: IP:PORT.
    #[arg(long, env = "TOMBOLO_HEALTH_LISTEN")]
    pub health_listen: Option<String>,
    /// CIDRs in which no peer may have backends, separated by commas; may be repeated.
    #[arg(long, env = "TOMBOLO_DENY_CIDR", value_delimiter = ',')]
    pub deny_cidr: Vec<String>,
    /// This cluster's service ranges, in which no peer may have backends.
    #[arg(long, env = "TOMBOLO_SERVICE_CIDR", value_delimiter = ',')]
    pub service_cidr: Vec<String>,
    /// This cluster's pod ranges, beside those its Nodes name.
    #[arg(long, env = "TOMBOLO_POD_CIDR", value_delimiter = ',')]
    pub pod_cidr: Vec<String>,
    /// Whether a Namespace without the annotation clustermesh.cilium.io/global is global: true or false.
    #[arg(long, env = "TOMBOLO_DEFAULT_GLOBAL_NAMESPACE", default_value = "true")]
    pub default_global_namespace: String,
    /// Advanced: how long this program's keys outlive it in the store, 5s to 24h.
    #[arg(long, env = "TOMBOLO_LEASE_TTL", default_value = "15m")]
    pub lease_ttl: String,
    /// What is logged, as a tracing filter: info, or tombolo_store=debug,info.
    #[arg(long, env = "TOMBOLO_LOG", default_value = "info")]
    pub log: String,
}

/// What the command line says, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This cluster.
    pub cluster: ClusterName,
    /// Its id.
    pub id: ClusterId,
    /// The size of the mesh.
    pub max: MaxClusters,
    /// Where local objects are read.
    pub source: Source,
    /// The own store, dialled as `admin-<cluster>`.
    pub store: StoreConfig,
    /// The certificate that the admin listener shows.
    pub server_tls: TlsFiles,
    /// The peers' files.
    pub peers_dir: PathBuf,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
    /// The namespace of peers' Secrets.
    pub peers_namespace: String,
    /// `--mirror-endpoint-slices`.
    pub mirroring: Mode,
    /// The admin listener.
    pub admin_listen: Option<ListenAddr>,
    /// The health listener.
    pub health_listen: Option<SocketAddr>,
    /// `--deny-cidr`.
    pub deny: Vec<IpNet>,
    /// `--service-cidr`.
    pub service_cidrs: Vec<IpNet>,
    /// `--pod-cidr`.
    pub pod_cidrs: Vec<IpNet>,
    /// `--default-global-namespace`.
    pub namespaces: DefaultNamespace,
    /// `--lease-ttl`.
    pub lease_ttl: Duration,
}

/// Where local objects are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A directory of manifests.
    Directory(PathBuf),
    /// A cluster's API server.
    Kubernetes(Target),
}

/// Everything that is wrong with a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} wrong on the command line:", self.0.len())?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for ConfigErrors {}

/// Collects mistakes; what is wrong yields nothing.
#[derive(Default)]
struct Check(Vec<String>);

impl Check {
    fn take<T, E: fmt::Display>(&mut self, flag: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|e| self.0.push(format!("--{flag}: {e}"))).ok()
    }

    fn all<T: FromStr>(&mut self, flag: &str, what: &str, texts: &[String]) -> Vec<T> {
        let parse = |text: &String| text.parse().map_err(|_| format!("{text:?} is no {what}"));
        texts.iter().filter_map(|text| self.take(flag, parse(text))).collect()
    }

    fn file(&mut self, path: PathBuf) -> PathBuf {
        if !path.is_file() {
            self.0.push(format!("--tls-dir: there is no file {}", path.display()));
        }
        path
    }
}

impl Args {
    /// Checks everything that can be checked without a network.
    pub fn validate(&self) -> Result<Config, ConfigErrors> {
        let mut check = Check::default();
        let cluster = check.take("cluster-name", ClusterName::new(&self.cluster_name));
        let max = check.take(
            "max-connected-clusters",
            number(&self.max_connected_clusters).and_then(|n| MaxClusters::new(n).map_err(|e| e.to_string())),
        );
        let id = number(&self.cluster_id)
            .and_then(|n| ClusterId::new(n, max.unwrap_or(MaxClusters::C511)).map_err(|e| e.to_string()));
        let id = check.take("cluster-id", id);
        let source = check.take("source", source(&self.source));
        let endpoints = check.take("store", endpoints(&self.store)).unwrap_or_default();
        let server_tls = tls_files(&mut check, &self.tls_dir, "server");
        let admin_tls = tls_files(&mut check, &self.tls_dir, "admin");
        let admin_listen = self.admin_listen.as_ref().map(|text| text.parse::<ListenAddr>());
        let admin_listen = admin_listen.and_then(|parsed| check.take("admin-listen", parsed));
        let health = self
            .health_listen
            .as_ref()
            .map(|text| text.parse::<SocketAddr>().map_err(|_| format!("{text:?} is no IP:PORT")));
        let health_listen = health.and_then(|parsed| check.take("health-listen", parsed));
        let deny = check.all("deny-cidr", "CIDR", &self.deny_cidr);
        let service_cidrs = check.all("service-cidr", "CIDR", &self.service_cidr);
        let pod_cidrs = check.all("pod-cidr", "CIDR", &self.pod_cidr);
        let namespaces = check.take(
            "default-global-namespace",
            match self.default_global_namespace.as_str() {
                "true" => Ok(DefaultNamespace::Global),
                "false" => Ok(DefaultNamespace::Cluster),
                other => Err(format!("{other:?} is neither true nor false")),
            },
        );
        let mirroring = check.take("mirror-endpoint-slices", self.mirror_endpoint_slices.parse::<Mode>());
        let lease_ttl = check.take("lease-ttl", lease_ttl(&self.lease_ttl));
        let (
            Some(cluster),
            Some(max),
            Some(id),
            Some(source),
            Some(namespaces),
            Some(mirroring),
            Some(lease_ttl),
            true,
        ) = (cluster, max, id, source, namespaces, mirroring, lease_ttl, check.0.is_empty())
        else {
            return Err(ConfigErrors(check.0));
        };
        let store = StoreConfig { endpoints, tls: admin_tls, host_aliases: std::collections::BTreeMap::new() };
        let (peers_dir, state_dir) = (self.peers_dir.clone(), self.state_dir.clone());
        Ok(Config {
            cluster,
            id,
            max,
            source,
            store,
            server_tls,
            peers_dir,
            state_dir,
            peers_namespace: self.peers_namespace.clone(),
            mirroring,
            admin_listen,
            health_listen,
            deny,
            service_cidrs,
            pod_cidrs,
            namespaces,
            lease_ttl,
        })
    }
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

/// A number with `s`, `m` or `h` behind it. Heartbeats are written every 5 s and leases renewed at a third of their time.
fn lease_ttl(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no duration from 5s to 24h");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(bad)?;
    let unit = [("s", 1), ("m", 60), ("h", 3_600)].into_iter().find(|(name, _)| *name == unit);
    let seconds = number.parse::<u64>().ok().zip(unit).and_then(|(number, (_, unit))| number.checked_mul(unit));
    seconds.filter(|seconds| (5..=86_400).contains(seconds)).map(Duration::from_secs).ok_or_else(bad)
}

fn source(text: &str) -> Result<Source, String> {
    match text.split_once(':') {
        Some(("dir", path)) if !path.is_empty() => Ok(Source::Directory(path.into())),
        _ => text.parse().map(Source::Kubernetes).map_err(|_| {
            format!("{text:?} is no source: it must be dir:PATH, kubernetes, or kubernetes:KUBECONFIG[#CONTEXT]")
        }),
    }
}

fn endpoints(text: &str) -> Result<Vec<String>, String> {
    let urls: Vec<String> = text.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned).collect();
    match urls.iter().find(|url| !url.starts_with("https://")) {
        Some(url) => Err(format!("{url:?} is no https:// URL")),
        None if urls.is_empty() => Err("it names no URL".to_owned()),
        None => Ok(urls),
    }
}

fn tls_files(check: &mut Check, dir: &Path, leaf: &str) -> TlsFiles {
    TlsFiles {
        ca: dir.join("ca.crt"),
        cert: check.file(dir.join(format!("{leaf}.crt"))),
        key: check.file(dir.join(format!("{leaf}.key"))),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn args(extra: &[&str]) -> Args {
        let common = ["tombolo-apiserver", "--tls-dir", "/nonexistent", "--peers-dir", "/p"];
        Args::try_parse_from(common.iter().chain(extra)).unwrap()
    }

    #[test]
    fn all_mistakes_are_reported_together() {
        let wrong = args(&[
            "--cluster-name=We",
            "--cluster-id=300",
            "--max-connected-clusters=255",
            "--source=/etc",
            "--store=http://a:2379",
            "--admin-listen=here",
            "--health-listen=:80",
            "--deny-cidr=10.0.0.0/8,x",
            "--default-global-namespace=maybe",
            "--mirror-endpoint-slices=some",
            "--lease-ttl=4s",
        ]);
        expect![[r#"
            14 wrong on the command line:
              --cluster-name: "We" is no cluster name: 1 to 32 of a-z, 0-9 and '-', with a letter or digit at both ends
              --cluster-id: 300 is no cluster id: it must be 1 to 255
              --source: "/etc" is no source: it must be dir:PATH, kubernetes, or kubernetes:KUBECONFIG[#CONTEXT]
              --store: "http://a:2379" is no https:// URL
              --tls-dir: there is no file /nonexistent/server.crt
              --tls-dir: there is no file /nonexistent/server.key
              --tls-dir: there is no file /nonexistent/admin.crt
              --tls-dir: there is no file /nonexistent/admin.key
              --admin-listen: "here" is no address to listen on: it must be IP:PORT or unix:/path
              --health-listen: ":80" is no IP:PORT
              --deny-cidr: "x" is no CIDR
              --default-global-namespace: "maybe" is neither true nor false
              --mirror-endpoint-slices: "some" is none of off, headless and all
              --lease-ttl: "4s" is no duration from 5s to 24h"#]]
        .assert_eq(&wrong.validate().unwrap_err().to_string());
    }

    #[test]
    fn a_good_line_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["ca.crt", "server.crt", "server.key", "admin.crt", "admin.key"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        let mut good =
            args(&["--cluster-name=we", "--cluster-id=2", "--source=dir:s", "--store=https://a:1, https://b:2"]);
        good.tls_dir = dir.path().into();
        let config = good.validate().unwrap();
        assert_eq!(config.store.endpoints, ["https://a:1", "https://b:2"]);
        assert_eq!(config.store.tls.cert, dir.path().join("admin.crt"));
        assert_eq!(config.lease_ttl, tombolo_store::LEASE_TTL);
        assert_eq!((config.id.get(), config.namespaces), (2, DefaultNamespace::Global));
        assert_eq!(config.source, Source::Directory("s".into()));
    }

    #[test]
    fn sources() {
        assert_eq!(source("kubernetes"), Ok(Source::Kubernetes(Target::InCluster)));
        let file = Target::Kubeconfig { path: "/k".into(), context: Some("we".to_owned()) };
        assert_eq!(source("kubernetes:/k#we"), Ok(Source::Kubernetes(file)));
        for bad in ["dir:", "kubernetes:", "kubernetes:#we", "/k"] {
            assert!(source(bad).is_err(), "{bad}");
        }
    }
}
