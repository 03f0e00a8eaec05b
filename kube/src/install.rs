//! An installation in a cluster, from outside: what is there of it, and what is put there or taken away.
//!
//! For the command line. It knows the names of the objects and their shapes; what should stand in them is decided by
//! who calls.

mod found;
mod secret;

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams};
use serde_json::Value;
use tokio::time::{Instant, sleep};

pub use self::found::{ClusterMap, Found, Ingress, Node, StoreService, Workload};
pub use self::secret::{TlsSecret, tls_secret};

use crate::apply::Document;
use crate::client::{Access, AccessError};
use crate::objects::{Grace, How, Kind, ObjectError, ObjectName, Objects, Selection};

/// Where Tombolo runs.
pub const SYSTEM_NAMESPACE: &str = "tombolo-system";
/// Where the peers' Secrets are, and nothing else.
pub const PEERS_NAMESPACE: &str = "tombolo-peers";
/// The ConfigMap that says who a cluster is.
pub const CLUSTER_CONFIG: &str = "tombolo-cluster";
/// The Service that peers dial.
pub const STORE_SERVICE: &str = "clustermesh-apiserver";
/// The name of that Service's port.
pub const STORE_PORT: &str = "store";
/// The label, and its value, that everything of an installation bears.
pub const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "tombolo");
/// The label of a peer's Secret; its value is the peer's name.
pub const PEER_LABEL: &str = "tombolo.io/peer";
/// Who owns the fields that are applied.
const MANAGER: &str = "tombolo";

/// How soon something is asked again that is going away.
const AGAIN: Duration = Duration::from_millis(100);

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is new.
    Created,
    /// It was otherwise before.
    Changed,
    /// It was so before.
    Unchanged,
    /// It is gone now.
    Removed,
    /// It was not there.
    Absent,
}

/// Why an installation could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// There is no way to the cluster.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// One object was refused or could not be reached.
    #[error("{name}")]
    Object {
        /// The object, or the kind that was listed.
        name: String,
        /// Why.
        source: ObjectError,
    },
    /// Something does not go away.
    #[error("{name} is still there after {} s; who has finalizers on it, or in it?", waited.as_secs())]
    Stays {
        /// What.
        name: ObjectName,
        /// For how long it was waited for.
        waited: Duration,
    },
}

impl InstallError {
    fn of(name: impl Into<String>, source: impl Into<ObjectError>) -> Self {
        Self::Object { name: name.into(), source: source.into() }
    }
}

/// One cluster's API.
pub struct Install {
    objects: Objects,
}

impl Install {
    /// A way to a cluster. Nothing is sent by this.
    pub async fn open(access: &Access) -> Result<Self, InstallError> {
        Ok(Self { objects: Objects::new(access.client().await?, MANAGER) })
    }

    /// All that is there.
    pub async fn read(&self) -> Result<Found, InstallError> {
        Box::pin(found::read(self.objects.client())).await
    }

    /// One Secret with certificates; nothing when there is none.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<TlsSecret>, InstallError> {
        let api: Api<Secret> = Api::namespaced(self.objects.client().clone(), namespace);
        let failed = |e| InstallError::of(format!("Secret {namespace}/{name}"), e);
        Ok(api.get_opt(name).await.map_err(failed)?.map(TlsSecret::of))
    }

    /// Puts one object there: the fields that it names, whoever had them before.
    pub async fn put(&self, Document { name, object, .. }: &Document) -> Result<Outcome, InstallError> {
        let failed = |e| InstallError::of(name.to_string(), e);
        // A kind whose definition was put there just now takes a moment to be known.
        let name = crate::apply::known(&self.objects, name, crate::apply::NEW_KIND).await.map_err(failed)?;
        let before = self.objects.get(&name).await.map_err(failed)?.map(content);
        let after = content(self.objects.apply(&name, object, How::Write).await.map_err(failed)?);
        Ok(match before {
            None => Outcome::Created,
            Some(before) if before == after => Outcome::Unchanged,
            Some(_) => Outcome::Changed,
        })
    }

    /// Takes one object away.
    pub async fn remove(&self, name: &ObjectName) -> Result<Outcome, InstallError> {
        let failed = |e| InstallError::of(name.to_string(), e);
        match self.objects.get(name).await {
            // Neither is it there when nobody knows its kind.
            Ok(None) => Ok(Outcome::Absent),
            Err(e) if e.code() == Some(404) => Ok(Outcome::Absent),
            Err(e) => Err(failed(e)),
            Ok(Some(_)) => {
                self.objects.delete(name, Grace::Usual).await.map_err(failed)?;
                Ok(Outcome::Removed)
            }
        }
    }

    /// Waits until something that was taken away is gone.
    pub async fn gone(&self, name: &ObjectName, within: Duration) -> Result<(), InstallError> {
        let until = Instant::now() + within;
        loop {
            match self.objects.get(name).await {
                Ok(None) => return Ok(()),
                Err(e) if e.code() == Some(404) => return Ok(()),
                Err(e) if e.code().is_some() => return Err(InstallError::of(name.to_string(), e)),
                _ if Instant::now() > until => {
                    return Err(InstallError::Stays { name: name.clone(), waited: within });
                }
                _ => sleep(AGAIN).await,
            }
        }
    }

    /// The names of an installation's objects of a kind, in no namespace or in all.
    pub async fn ours(&self, api_version: &str, kind: &str) -> Result<Vec<ObjectName>, InstallError> {
        let kind = Kind::new(api_version, kind);
        let selection = Selection { labels: format!("{}={}", PART_OF.0, PART_OF.1), ..Selection::default() };
        let (objects, _) =
            self.objects.list(&kind, &selection).await.map_err(|e| InstallError::of(kind.kind.clone(), e))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name =
            |object: &Value| kind.named(&text(&object["metadata"]["namespace"]), &text(&object["metadata"]["name"]));
        Ok(objects.iter().map(name).collect())
    }
}

/// What people say of an object, without what controllers and the server note on it meanwhile.
fn content(mut object: Value) -> Value {
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for key in ["resourceVersion", "managedFields", "generation"] {
            metadata.remove(key);
        }
    }
    object
}

/// All objects of a kind; none where the kind is unknown.
async fn list<K>(api: Api<K>, kind: &str) -> Result<Vec<K>, InstallError>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(e) => Err(InstallError::of(kind, e)),
    }
}
