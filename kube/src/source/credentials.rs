//! Who is asked, and as whom: the Pod's service account, or a context of a kubeconfig file.
//!
//! The files behind a client are compared before each request, so a rotated certificate, token or CA counts from the next
//! request on, and no clock is asked when. While the new files cannot be used the last client stays.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use kube::Client;
use kube::config::Kubeconfig;
use tokio::sync::Mutex;

use crate::client::Access;

/// Where Kubernetes mounts a Pod's service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Which API server, as `--source` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The one of the cluster this program runs in, as its Pod's service account.
    InCluster,
    /// The one that a kubeconfig file names.
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The context in it; its current one if none is named.
        context: Option<String>,
    },
}

/// A text that names no API server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no Kubernetes source: it must be kubernetes, in a cluster, or kubernetes:KUBECONFIG[#CONTEXT]")]
pub struct TargetError(String);

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let error = || TargetError(text.to_owned());
        let Some(file) = text.strip_prefix("kubernetes").ok_or_else(error)?.strip_prefix(':') else {
            return if text == "kubernetes" { Ok(Self::InCluster) } else { Err(error()) };
        };
        let (path, context) = match file.split_once('#') {
            Some((path, context)) => (path, Some(context.to_owned())),
            None => (file, None),
        };
        if path.is_empty() || context.as_deref() == Some("") {
            return Err(error());
        }
        Ok(Self::Kubeconfig { path: path.into(), context })
    }
}

/// What tells two versions of a file apart without reading them; none when there is no file.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// The client, and what it was made of.
#[derive(Default)]
struct Current {
    client: Option<Client>,
    files: BTreeMap<PathBuf, Stamp>,
    /// A server did not accept the client's credentials.
    doubted: bool,
}

/// The source of clients of all readers.
pub(super) struct Credentials {
    target: Target,
    current: Mutex<Current>,
}

impl Credentials {
    pub(super) fn new(target: Target) -> Self {
        Self { target, current: Mutex::default() }
    }

    /// A client that no file stands behind.
    #[cfg(test)]
    pub(super) fn fixed(client: Client) -> Self {
        let current = Current { client: Some(client), ..Current::default() };
        Self { target: Target::InCluster, current: Mutex::new(current) }
    }

    /// The client of the files as they are now. An error when there never was a usable one.
    pub(super) async fn client(&self) -> Result<Client, String> {
        let mut current = self.current.lock().await;
        let changed = current.files.iter().any(|(path, was)| stamp(path) != *was);
        if let (Some(client), false, false) = (&current.client, changed, current.doubted) {
            return Ok(client.clone());
        }
        // Stamped first: what changes while it is read is read again.
        let files = self.target.files();
        let files = files.into_iter().map(|path| (path.clone(), stamp(&path))).collect();
        match self.target.client().await {
            Ok(client) => {
                tracing::info!("credentials read");
                *current = Current { client: Some(client.clone()), files, doubted: false };
                Ok(client)
            }
            Err(why) => {
                tracing::warn!(%why, "credentials cannot be read");
                current.client.clone().ok_or(why)
            }
        }
    }

    /// The server did not accept the client; the next one is made anew, from files that may look the same.
    pub(super) async fn doubt(&self) {
        let mut current = self.current.lock().await;
        current.doubted = !current.files.is_empty();
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

impl Target {
    /// The files whose change makes another client.
    fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::InCluster => ["token", "ca.crt"].map(|file| Path::new(SERVICE_ACCOUNT).join(file)).into(),
            Self::Kubeconfig { path, .. } => {
                let mut files = vec![path.clone()];
                let Ok(config) = Kubeconfig::read_from(path) else { return files };
                for cluster in config.clusters.into_iter().filter_map(|named| named.cluster) {
                    files.extend(cluster.certificate_authority.map(PathBuf::from));
                }
                for user in config.auth_infos.into_iter().filter_map(|named| named.auth_info) {
                    let named = [user.client_certificate, user.client_key, user.token_file];
                    files.extend(named.into_iter().flatten().map(PathBuf::from));
                }
                files
            }
        }
    }

    async fn client(&self) -> Result<Client, String> {
        let access = match self {
            Self::InCluster => Access::Pod,
            Self::Kubeconfig { path, context } => {
                Access::Kubeconfig { file: Some(path.clone()), context: context.clone() }
            }
        };
        let mut config = access.config().await.map_err(|e| in_words(&e))?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // When to ask again is decided by `follow` alone.
        config.default_retry = false;
        // A kubeconfig may name a program to run for a token.
        let client = tokio::task::spawn_blocking(move || Client::try_from(config)).await;
        client.map_err(|e| in_words(&e))?.map_err(|e| in_words(&e))
    }
}

/// An error with its causes.
pub(super) fn in_words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
