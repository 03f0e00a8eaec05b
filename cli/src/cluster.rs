//! A cluster as the command line knows it: a directory with `cluster.yaml`, `tls/`, `peers/` and the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tombolo_certs::{MESH_DOMAIN, Role, TlsFiles};
use tombolo_core::id::{ClusterId, ClusterName, IdError, MaxClusters};
use tombolo_wire::etcd_config::{EtcdConfig, TOMBSTONE};

use crate::output::in_words;

/// The file that makes a directory a cluster's.
pub(crate) const CLUSTER_FILE: &str = "cluster.yaml";

/// etcd's port, where a URL names none.
const STORE_PORT: u16 = 2379;

/// Why a directory is no cluster's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClusterError {
    /// The file cannot be read.
    #[error("cannot read {}: {}; is it a cluster's directory? `tombolo init` makes one", path.display(), in_words(*kind))]
    Read { path: PathBuf, kind: io::ErrorKind },
    /// The file is no YAML of the right shape.
    #[error("{}: {detail}", path.display())]
    Syntax { path: PathBuf, detail: String },
    /// The name, the id or the size of the mesh is wrong.
    #[error("{}", path.display())]
    Id { path: PathBuf, source: IdError },
    /// The store's URL is wrong.
    #[error("{}: store: {text:?} is no URL of a store: it must be https://HOST:PORT", path.display())]
    Store { path: PathBuf, text: String },
    /// The admin URL is wrong.
    #[error("{}: admin: {text:?} is no admin URL: it must be unix:PATH or https://HOST:PORT", path.display())]
    Admin { path: PathBuf, text: String },
}

/// A cluster's directory, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// The directory, absolute.
    pub root: PathBuf,
    /// Its name.
    pub name: ClusterName,
    /// Its id.
    pub id: ClusterId,
    /// The size of its mesh.
    pub max: MaxClusters,
    /// Where its store is.
    pub store: Vec<StoreUrl>,
    /// Where its apiserver's admin service is: `unix:/…` or `https://…`.
    pub admin: String,
    /// Addresses of names that no DNS server knows.
    pub host_aliases: BTreeMap<String, Vec<IpAddr>>,
    /// Nodes with their agents' sockets, `unix:/…`.
    pub nodes: BTreeMap<String, String>,
}

/// One endpoint of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreUrl {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    id: u32,
    max_connected_clusters: Option<u32>,
    store: String,
    admin: String,
    #[serde(default)]
    host_aliases: BTreeMap<String, Vec<IpAddr>>,
    #[serde(default)]
    nodes: BTreeMap<String, String>,
}

impl Cluster {
    /// Reads a cluster's directory.
    pub(crate) fn open(dir: &Path) -> Result<Self, ClusterError> {
        let path = dir.join(CLUSTER_FILE);
        let read = |e: io::Error| ClusterError::Read { path: path.clone(), kind: e.kind() };
        let text = fs::read_to_string(&path).map_err(read)?;
        let root = fs::canonicalize(dir).map_err(read)?;
        Self::parse(&root, &path, &text)
    }

    /// Parses the text of `cluster.yaml`; `path` is for errors.
    pub(crate) fn parse(root: &Path, path: &Path, text: &str) -> Result<Self, ClusterError> {
        let file: File = serde_saphyr::from_str(text).map_err(|e| syntax(path, &e))?;
        let id_error = |source| ClusterError::Id { path: path.into(), source };
        let max = file.max_connected_clusters.map_or(Ok(MaxClusters::default()), MaxClusters::new).map_err(id_error)?;
        let admin = endpoint(root, &file.admin)
            .filter(|url| url.starts_with("unix:") || url.starts_with("https://"))
            .ok_or_else(|| ClusterError::Admin { path: path.into(), text: file.admin.clone() })?;
        let store = file.store.split(',').map(|url| {
            StoreUrl::parse(url.trim()).ok_or_else(|| ClusterError::Store { path: path.into(), text: url.into() })
        });
        Ok(Self {
            root: root.into(),
            name: ClusterName::new(&file.name).map_err(id_error)?,
            id: ClusterId::new(file.id, max).map_err(id_error)?,
            max,
            store: store.collect::<Result<_, _>>()?,
            admin,
            host_aliases: file.host_aliases,
            nodes: file.nodes.into_iter().map(|(name, socket)| (name, socket_url(root, &socket))).collect(),
        })
    }

    /// The trust bundle and one leaf.
    pub(crate) fn tls(&self, role: Role) -> TlsFiles {
        TlsFiles::of(&self.root.join("tls"), role)
    }

    /// Where the peers' files are.
    pub(crate) fn peers_dir(&self) -> PathBuf {
        self.root.join("peers")
    }

    /// The peer's file.
    pub(crate) fn peer_file(&self, peer: &ClusterName) -> PathBuf {
        self.peers_dir().join(peer.as_str())
    }

    /// The file that says a peer's removal is meant.
    pub(crate) fn tombstone(&self, peer: &ClusterName) -> PathBuf {
        self.peers_dir().join(format!("{TOMBSTONE}{peer}"))
    }

    /// The name that the server certificate always has, however the server is reached.
    pub(crate) fn mesh_name(&self) -> String {
        format!("{}.{MESH_DOMAIN}", self.name)
    }

    /// The names of configured peers: files in Cilium's format, named like a cluster. Unreadable is as good as none.
    pub(crate) fn configured_peers(&self) -> BTreeSet<ClusterName> {
        let entries = fs::read_dir(self.peers_dir()).into_iter().flatten().filter_map(Result::ok);
        entries
            .filter(|e| fs::read_to_string(e.path()).is_ok_and(|text| text.contains("endpoints:")))
            .filter_map(|e| ClusterName::new(&e.file_name().to_string_lossy()).ok())
            .filter(|name| *name != self.name)
            .collect()
    }

    /// How this store is reached with the given leaf and trust: under the names of its certificate. Addresses become
    /// `<cluster>.mesh.cilium.io` with an alias, host names stay.
    pub(crate) fn store_config(&self, with: TlsFiles) -> EtcdConfig {
        let (endpoints, mut host_aliases) = dialled(&self.name, &self.store);
        for url in self.store.iter().filter(|url| url.host.parse::<IpAddr>().is_err()) {
            if let Some(ips) = self.host_aliases.get(&url.host) {
                host_aliases.insert(url.host.clone(), ips.clone());
            }
        }
        EtcdConfig { endpoints, host_aliases, ca: with.ca, cert: with.cert, key: with.key }
    }
}

/// The URLs under which peers dial a cluster's store, and the addresses of their names: an address is dialled under a name
/// of the certificate.
pub(crate) fn dialled(cluster: &ClusterName, store: &[StoreUrl]) -> (Vec<String>, BTreeMap<String, Vec<IpAddr>>) {
    let (mut urls, mut aliases) = (Vec::new(), BTreeMap::<String, Vec<IpAddr>>::new());
    let addressed: Vec<(IpAddr, u16)> =
        store.iter().filter_map(|url| Some((url.host.parse().ok()?, url.port))).collect();
    let one_port = addressed.iter().all(|(_, port)| *port == addressed[0].1);
    let one_address = addressed.iter().all(|(ip, _)| *ip == addressed[0].0);
    for (i, (ip, port)) in addressed.iter().enumerate() {
        // A resolver pairs every address of a name with every port: where both differ, the names must.
        let name = if one_port || one_address {
            format!("{cluster}.{MESH_DOMAIN}")
        } else {
            format!("{cluster}-{i}.{MESH_DOMAIN}")
        };
        push_new(&mut urls, format!("https://{name}:{port}"));
        push_new(aliases.entry(name).or_default(), *ip);
    }
    for url in store.iter().filter(|url| url.host.parse::<IpAddr>().is_err()) {
        push_new(&mut urls, format!("https://{}:{}", url.host, url.port));
    }
    (urls, aliases)
}

impl StoreUrl {
    /// Reads `https://HOST[:PORT]`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let uri: http::Uri = text.parse().ok()?;
        let plain = uri.scheme_str() == Some("https") && matches!(uri.path(), "" | "/") && uri.query().is_none();
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        (plain && !host.is_empty()).then(|| Self { host: host.into(), port: uri.port_u16().unwrap_or(STORE_PORT) })
    }
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// An admin URL; a socket's relative path is in the cluster's directory.
fn endpoint(root: &Path, text: &str) -> Option<String> {
    if text.starts_with("unix:") {
        return Some(socket_url(root, text));
    }
    StoreUrl::parse(text).map(|_| text.to_owned())
}

fn socket_url(root: &Path, text: &str) -> String {
    let path = text.strip_prefix("unix:").unwrap_or(text);
    format!("unix:{}", root.join(path).display())
}

fn syntax(path: &Path, error: &serde_saphyr::Error) -> ClusterError {
    let detail = error.without_snippet().to_string();
    ClusterError::Syntax { path: path.into(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn parse(text: &str) -> Result<Cluster, String> {
        Cluster::parse(Path::new("/m/we"), Path::new("we/cluster.yaml"), text).map_err(|e| e.to_string())
    }

    fn store(urls: &str, expected: &Expect) {
        let text = format!(
            "{{name: we, id: 2, admin: 'unix:run/a.sock', store: '{urls}', host_aliases: {{store.we: [192.0.2.1]}}}}"
        );
        let with = TlsFiles::of(Path::new("/m/ne/tls"), Role::Remote);
        let config = parse(&text).unwrap().store_config(with);
        expected.assert_eq(&format!("{:?} {:?}", config.endpoints, config.host_aliases));
    }

    #[test]
    fn a_whole_file() {
        let cluster = parse(
            "name: we\nid: 2\nstore: https://10.0.0.2:2379\nadmin: https://10.0.0.2:9000\nnodes:\n  a: run/a.sock\n  b: unix:/run/b.sock\n",
        );
        let cluster = cluster.unwrap();
        expect![[r#"{"a": "unix:/m/we/run/a.sock", "b": "unix:/run/b.sock"}"#]]
            .assert_eq(&format!("{:?}", cluster.nodes));
        assert_eq!((cluster.id.get(), cluster.admin.as_str()), (2, "https://10.0.0.2:9000"));
    }

    #[test]
    fn wrong_files_say_where() {
        let errors: String = [
            "name: we",
            "name: We\nid: 2\nstore: https://a\nadmin: unix:/a",
            "name: we\nid: 256\nstore: https://a\nadmin: unix:/a",
            "name: we\nid: 2\nstore: http://a\nadmin: unix:/a",
            "name: we\nid: 2\nstore: https://a\nadmin: /a",
            "name: we\nid: 2\nstore: https://a\nadmin: unix:/a\nsotre: x",
        ]
        .iter()
        .map(|text| format!("{}\n", parse(text).unwrap_err()))
        .collect();
        expect![[r#"
            we/cluster.yaml: missing field `id` at line 1, column 1
            we/cluster.yaml
            we/cluster.yaml
            we/cluster.yaml: store: "http://a" is no URL of a store: it must be https://HOST:PORT
            we/cluster.yaml: admin: "/a" is no admin URL: it must be unix:PATH or https://HOST:PORT
            we/cluster.yaml: unknown field `sotre`, expected one of name, id, max_connected_clusters, store, admin, host_aliases, nodes at line 5, column 1
        "#]].assert_eq(&errors);
    }

    #[test]
    fn addresses_become_names_of_the_certificate() {
        store(
            "https://10.0.0.2:2379",
            &expect![[r#"["https://we.mesh.cilium.io:2379"] {"we.mesh.cilium.io": [10.0.0.2]}"#]],
        );
        store(
            "https://[fd00::2]:2379,https://10.0.0.2",
            &expect![[r#"["https://we.mesh.cilium.io:2379"] {"we.mesh.cilium.io": [fd00::2, 10.0.0.2]}"#]],
        );
        store(
            "https://127.0.0.1:2379,https://127.0.0.1:2380",
            &expect![[
                r#"["https://we.mesh.cilium.io:2379", "https://we.mesh.cilium.io:2380"] {"we.mesh.cilium.io": [127.0.0.1]}"#
            ]],
        );
        store(
            "https://10.0.0.2:1,https://10.0.0.3:2",
            &expect![[
                r#"["https://we-0.mesh.cilium.io:1", "https://we-1.mesh.cilium.io:2"] {"we-0.mesh.cilium.io": [10.0.0.2], "we-1.mesh.cilium.io": [10.0.0.3]}"#
            ]],
        );
        store(
            "https://store.we:2379,https://dns.we",
            &expect![[r#"["https://store.we:2379", "https://dns.we:2379"] {"store.we": [192.0.2.1]}"#]],
        );
    }
}
