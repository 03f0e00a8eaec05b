//! Objects of any kind, as JSON: get, list, patch, delete, watch.
//!
//! For who passes objects on (`apply`), asks for a few, or drives a test. The source does not come this way: it reduces
//! objects as they are decoded.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiResource, Scope, pinned_kind};
use kube::{Client, Error};
use serde_json::Value;
use tokio::sync::Mutex;

/// A kind by its `apiVersion` and `kind`, such as `apps/v1` and `Deployment`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// Group and version, or the version alone.
    pub api_version: String,
    /// The kind.
    pub kind: String,
}

/// One object by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace. Absent for a kind without, and `default` for a kind with.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// Why the API did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// It said no.
    #[error("{message} ({code} {reason})")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// One word for it, such as `NotFound`.
        reason: String,
        /// Why, in words.
        message: String,
    },
    /// It was not reached, or its answer was not understood.
    #[error("{0}")]
    Unreached(#[source] Box<Error>),
}

impl ObjectError {
    /// The HTTP status, if there was an answer.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Unreached(_) => None,
        }
    }
}

impl From<Error> for ObjectError {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(status) => Self::from(status),
            other => Self::Unreached(Box::new(other)),
        }
    }
}

impl From<Box<kube::core::Status>> for ObjectError {
    fn from(status: Box<kube::core::Status>) -> Self {
        let kube::core::Status { code, reason, message, .. } = *status;
        Self::Refused { code, reason, message }
    }
}

/// What a watch says.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// An object is new to the watch, or was changed.
    Set(Value),
    /// An object is gone; this is its last state.
    Gone(Value),
    /// Nothing: all up to this version was told.
    Reached(String),
}

/// What part of an object a patch changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but its status.
    Main,
    /// Its status.
    Status,
    /// `spec.replicas`, through the subresource that every scalable kind has.
    Scale,
}

/// What the server does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// All of it.
    Write,
    /// Everything but storing it: defaults, admission and validation.
    DryRun,
}

/// Which objects of a kind are listed or watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Those of this namespace; all when absent.
    pub namespace: Option<String>,
    /// Those with these labels, such as `app=x`; all when empty.
    pub labels: String,
    /// Those with these fields, such as `spec.nodeName=ne-1`; all when empty.
    pub fields: String,
}

/// The API of one cluster. Clones share what was learnt about kinds.
#[derive(Clone)]
pub struct Objects {
    client: Client,
    manager: String,
    known: Arc<Mutex<BTreeMap<Kind, (ApiResource, Scope)>>>,
}

impl Kind {
    /// A kind by its `apiVersion` and `kind`.
    pub fn new(api_version: &str, kind: &str) -> Self {
        Self { api_version: api_version.to_owned(), kind: kind.to_owned() }
    }

    /// One object of this kind in a namespace; `""` for none.
    pub fn named(&self, namespace: &str, name: &str) -> ObjectName {
        let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
        ObjectName { kind: self.clone(), namespace, name: name.to_owned() }
    }

    fn gvk(&self) -> GroupVersionKind {
        let (group, version) = self.api_version.split_once('/').unwrap_or(("", &self.api_version));
        GroupVersionKind::gvk(group, version, &self.kind)
    }
}

impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let namespace = self.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        write!(f, "{} {namespace}{}", self.kind.kind, self.name)
    }
}

impl Objects {
    /// Through this client. `manager` is who owns the fields that are applied.
    pub fn new(client: Client, manager: &str) -> Self {
        Self { client, manager: manager.to_owned(), known: Arc::default() }
    }

    /// The client itself.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// An object as it is now; nothing when there is none.
    pub async fn get(&self, name: &ObjectName) -> Result<Option<Value>, ObjectError> {
        Ok(self.one(name).await?.get_opt(&name.name).await?.map(into_value))
    }

    /// All objects of a selection, and the version of the list: where a watch goes on from.
    pub async fn list(&self, kind: &Kind, selection: &Selection) -> Result<(Vec<Value>, String), ObjectError> {
        let api = self.many(kind, selection).await?;
        let (label_selector, field_selector) = (text(&selection.labels), text(&selection.fields));
        let params = ListParams { label_selector, field_selector, ..ListParams::default() };
        let list = api.list(&params).await?;
        let version = list.metadata.resource_version.unwrap_or_default();
        Ok((list.items.into_iter().map(into_value).collect(), version))
    }

    /// Server-side apply: the fields of `object` are this manager's from now on, whoever had them before.
    pub async fn apply(&self, name: &ObjectName, object: &Value, how: How) -> Result<Value, ObjectError> {
        let params = PatchParams::apply(&self.manager).force();
        let params = PatchParams { dry_run: how == How::DryRun, ..params };
        Ok(into_value(self.one(name).await?.patch(&name.name, &params, &Patch::Apply(object)).await?))
    }

    /// Merges `change` into the object (RFC 7386): null removes a field, a list is replaced whole.
    pub async fn merge(&self, name: &ObjectName, part: Part, change: &Value) -> Result<Value, ObjectError> {
        let api = self.one(name).await?;
        let (params, patch) = (PatchParams::default(), Patch::Merge(change));
        Ok(match part {
            Part::Main => into_value(api.patch(&name.name, &params, &patch).await?),
            Part::Status => into_value(api.patch_status(&name.name, &params, &patch).await?),
            Part::Scale => {
                serde_json::to_value(api.patch_scale(&name.name, &params, &patch).await?).unwrap_or_default()
            }
        })
    }

    /// Deletes an object. One that is not there is as good as deleted.
    pub async fn delete(&self, name: &ObjectName, within: Grace) -> Result<(), ObjectError> {
        let params = match within {
            Grace::Usual => DeleteParams::default(),
            Grace::None => DeleteParams::default().grace_period(0),
        };
        match self.one(name).await?.delete(&name.name, &params).await {
            Err(Error::Api(status)) if status.code == 404 => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    /// What changes from a version on; `"0"` begins with what is there. It ends when the server ends it, and with an
    /// error of code 410 when the version is too old.
    pub async fn watch(
        &self,
        kind: &Kind,
        selection: &Selection,
        from: &str,
    ) -> Result<impl Stream<Item = Result<Change, ObjectError>> + use<>, ObjectError> {
        let api = self.many(kind, selection).await?;
        let (label_selector, field_selector) = (text(&selection.labels), text(&selection.fields));
        let params = WatchParams { label_selector, field_selector, ..WatchParams::default() };
        let stream = api.watch(&params, from).await?;
        Ok(stream.map(|event| match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => Ok(Change::Set(into_value(object))),
            WatchEvent::Deleted(object) => Ok(Change::Gone(into_value(object))),
            WatchEvent::Bookmark(mark) => Ok(Change::Reached(mark.metadata.resource_version)),
            WatchEvent::Error(status) => Err(status.into()),
        }))
    }

    /// Posts to a subresource of an object, such as the `binding` of a Pod or the `token` of a service account, and
    /// gives what the server answers.
    pub async fn post(&self, name: &ObjectName, subresource: &str, body: &Value) -> Result<Value, ObjectError> {
        let api = self.one(name).await?;
        Ok(api.create_subresource(subresource, &name.name, &PostParams::default(), body).await?)
    }

    /// What the server answers at a path, such as `/readyz`, as text.
    pub async fn text(&self, path: &str) -> Result<String, ObjectError> {
        let request = http::Request::get(path).body(Vec::new()).map_err(Error::HttpError)?;
        Ok(self.client.request_text(request).await?)
    }

    /// The name with `default` as the namespace where a kind needs one and none is given.
    pub(crate) async fn complete(&self, mut name: ObjectName) -> Result<ObjectName, ObjectError> {
        let (_, scope) = self.resource(&name.kind).await?;
        name.namespace = match scope {
            Scope::Cluster => None,
            Scope::Namespaced => Some(name.namespace.unwrap_or_else(|| "default".to_owned())),
        };
        Ok(name)
    }

    async fn one(&self, name: &ObjectName) -> Result<Api<DynamicObject>, ObjectError> {
        let (resource, scope) = self.resource(&name.kind).await?;
        let client = self.client.clone();
        Ok(match scope {
            Scope::Cluster => Api::all_with(client, &resource),
            Scope::Namespaced => {
                Api::namespaced_with(client, name.namespace.as_deref().unwrap_or("default"), &resource)
            }
        })
    }

    async fn many(&self, kind: &Kind, selection: &Selection) -> Result<Api<DynamicObject>, ObjectError> {
        let (resource, _) = self.resource(kind).await?;
        let client = self.client.clone();
        Ok(match &selection.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        })
    }

    /// What the server calls a kind in its paths. Asked once; a kind that is unknown is asked for again.
    async fn resource(&self, kind: &Kind) -> Result<(ApiResource, Scope), ObjectError> {
        let mut known = self.known.lock().await;
        if let Some((resource, scope)) = known.get(kind) {
            return Ok((resource.clone(), scope.clone()));
        }
        let (resource, capabilities) = pinned_kind(&self.client, &kind.gvk()).await.map_err(|error| match error {
            Error::Discovery(_) => unknown(kind),
            other => other.into(),
        })?;
        known.insert(kind.clone(), (resource.clone(), capabilities.scope.clone()));
        Ok((resource, capabilities.scope))
    }
}

/// How long a Pod may take to end when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// As long as it asks for itself.
    Usual,
    /// It is gone at once.
    None,
}

/// What a server says of a kind whose group it has.
fn unknown(kind: &Kind) -> ObjectError {
    let message = format!("this cluster has no kind {} of {}", kind.kind, kind.api_version);
    ObjectError::Refused { code: 404, reason: "NotFound".to_owned(), message }
}

fn text(selector: &str) -> Option<String> {
    (!selector.is_empty()).then(|| selector.to_owned())
}

/// An object that came as JSON is JSON.
fn into_value(object: DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}
