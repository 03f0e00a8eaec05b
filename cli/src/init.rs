//! `init`: a cluster's directory, laid out, with leaves of the mesh's authority.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tombolo_certs::{CertError, Role, write_public};
use tombolo_core::id::ClusterName;
use tombolo_wire::etcd_config;

use crate::args::InitArgs;
use crate::certs::{CertsError, Leaves, issue};
use crate::cluster::{CLUSTER_FILE, Cluster, ClusterError};
use crate::output::in_words;

/// The directories of a cluster, `tls/` apart.
const DIRECTORIES: [&str; 3] = ["source", "peers", "run"];

/// Why a cluster's directory was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    /// There is a cluster already.
    #[error("{} exists: a cluster is laid out once; edit the file, or remove it", path.display())]
    Exists { path: PathBuf },
    /// A directory cannot be made.
    #[error("cannot make {}: {}", path.display(), in_words(*kind))]
    Directory { path: PathBuf, kind: io::ErrorKind },
    /// What was asked for is no cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] CertError),
    /// The leaves cannot be issued.
    #[error(transparent)]
    Certs(#[from] CertsError),
}

/// What was made.
#[derive(Debug, Serialize)]
pub(crate) struct Made {
    /// The cluster.
    pub cluster: ClusterName,
    /// Its id.
    pub id: u16,
    /// Its directory.
    pub root: PathBuf,
    /// Where peers will find its store.
    pub endpoints: Vec<String>,
}

/// Lays out a cluster's directory; `cluster.yaml` is written last, so that a failed attempt can be repeated.
pub(crate) fn init(args: &InitArgs, now: u64) -> Result<Made, InitError> {
    let file = args.dir.join(CLUSTER_FILE);
    if file.exists() {
        return Err(InitError::Exists { path: file });
    }
    let make =
        |dir: &Path| fs::create_dir_all(dir).map_err(|e| InitError::Directory { path: dir.into(), kind: e.kind() });
    let text = cluster_yaml(args);
    let planned = Cluster::parse(&args.dir, &file, &text)?;
    make(&args.dir)?;
    for name in DIRECTORIES {
        make(&args.dir.join(name))?;
    }
    let root =
        fs::canonicalize(&args.dir).map_err(|e| InitError::Directory { path: args.dir.clone(), kind: e.kind() })?;
    let cluster = Cluster { root, ..planned };
    let tls = cluster.root.join("tls");
    // The server is dialled under the store's own names too, by its apiserver at least.
    let mut leaves = args.leaves.clone();
    for url in &cluster.store {
        match url.host.parse() {
            Ok(ip) => leaves.ip.push(ip),
            Err(_) => leaves.dns.push(url.host.clone()),
        }
    }
    issue(&Leaves { cluster: &cluster.name, ca: &args.ca, dir: &tls, args: &leaves, replace: Replace::No }, now)?;
    let own = cluster.store_config(cluster.tls(Role::Local));
    write_public(&cluster.root.join("store.yaml"), etcd_config::render(&own).as_bytes())?;
    write_public(&file, text.as_bytes())?;
    Ok(Made { cluster: cluster.name, id: cluster.id.get(), root: cluster.root, endpoints: own.endpoints })
}

/// Whether existing files may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replace {
    /// They stay, and the command fails.
    No,
    /// They are replaced.
    Yes,
}

impl From<bool> for Replace {
    fn from(force: bool) -> Self {
        if force { Self::Yes } else { Self::No }
    }
}

fn cluster_yaml(args: &InitArgs) -> String {
    // JSON's strings are YAML's.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut yaml = format!("name: {}\nid: {}\n", quoted(args.name.as_str()), args.id);
    let mut line = |text: String| writeln!(yaml, "{text}").expect("writing to a String cannot fail");
    if args.max_connected_clusters != 255 {
        line(format!("max_connected_clusters: {}", args.max_connected_clusters));
    }
    line(format!("store: {}", quoted(&args.store)));
    line(format!("admin: {}", quoted(&args.admin)));
    if !args.nodes.is_empty() {
        line("nodes:".into());
    }
    for (name, socket) in &args.nodes {
        line(format!("  {}: {}", quoted(name), quoted(socket)));
    }
    yaml
}
