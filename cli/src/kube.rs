//! Clusters in Kubernetes, by contexts of a kubeconfig.
//!
//! What is decided is decided by functions of values: what was found and what was asked for in, objects and findings out.
//! `tombolo-kube` reads and writes; the files named like a command put both together.

pub(crate) mod config;
pub(crate) mod connect;
pub(crate) mod disable;
pub(crate) mod enable;
pub(crate) mod endpoint;
pub(crate) mod facts;
pub(crate) mod leaves;
pub(crate) mod live;
pub(crate) mod manifests;
pub(crate) mod preflight;
pub(crate) mod status;

use std::path::Path;

use serde::{Serialize, Serializer};
use tombolo_certs::TlsText;
use tombolo_kube::apply::Document;
use tombolo_kube::client::Access;
use tombolo_kube::install::{Found, Install, InstallError, Outcome, TlsSecret};
use tombolo_kube::objects::ObjectName;

/// Why a command on a cluster failed: what the API said, with the context that it was asked by.
#[derive(Debug, thiserror::Error)]
#[error("context {context}")]
pub(crate) struct SiteError {
    /// The context.
    context: String,
    /// What it said.
    #[source]
    source: InstallError,
}

/// A cluster that a command works on.
pub(crate) struct Site {
    /// Its context, as people know it.
    pub context: String,
    install: Install,
}

/// An object, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Put {
    /// Kind, namespace and name.
    pub object: String,
    /// What became of it.
    #[serde(serialize_with = "as_word")]
    pub outcome: Outcome,
}

impl Site {
    /// A way to the cluster of a context; of the current one when none is named.
    pub(crate) async fn open(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Self, SiteError> {
        let shown = context.unwrap_or("(current)").to_owned();
        let access = Access::Kubeconfig { file: kubeconfig.map(Into::into), context: context.map(Into::into) };
        let opened = Install::open(&access).await;
        Ok(Self { install: opened.map_err(|source| SiteError { context: shown.clone(), source })?, context: shown })
    }

    /// All that is there.
    pub(crate) async fn read(&self) -> Result<Found, SiteError> {
        self.install.read().await.map_err(|e| self.failed(e))
    }

    /// What is done there directly.
    pub(crate) fn install(&self) -> &Install {
        &self.install
    }

    /// Puts objects there, in their order.
    pub(crate) async fn put(&self, documents: &[Document]) -> Result<Vec<Put>, SiteError> {
        let mut put = Vec::with_capacity(documents.len());
        for document in documents {
            let outcome = self.install.put(document).await.map_err(|e| self.failed(e))?;
            put.push(Put { object: document.name.to_string(), outcome });
        }
        Ok(put)
    }

    /// Takes one object away.
    pub(crate) async fn remove(&self, name: &ObjectName) -> Result<Put, SiteError> {
        let outcome = self.install.remove(name).await.map_err(|e| self.failed(e))?;
        Ok(Put { object: name.to_string(), outcome })
    }

    /// Says by which context something failed.
    pub(crate) fn failed(&self, source: InstallError) -> SiteError {
        SiteError { context: self.context.clone(), source }
    }
}

/// An outcome in a word.
pub(crate) fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Created => "created",
        Outcome::Changed => "changed",
        Outcome::Unchanged => "unchanged",
        Outcome::Removed => "removed",
        Outcome::Absent => "absent",
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn as_word<S: Serializer>(outcome: &Outcome, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(word(*outcome))
}

/// A Secret's content as certificates know it.
pub(crate) fn text_of(secret: &TlsSecret) -> TlsText {
    TlsText { ca: secret.ca.clone(), cert: secret.cert.clone(), key: secret.key.clone() }
}
