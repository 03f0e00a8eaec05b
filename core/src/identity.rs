//! Identities of this cluster's Pods: which labels make one, and which number it has.
//!
//! A Pod's labels, filtered, with those of its Namespace, its service account and its cluster are a [`LabelSet`]; all Pods
//! of one set share a number, which is what peers and their policies know them by. [`Identities`] gives the numbers out
//! and keeps them. Where Cilium runs, its own objects say both, and nothing of this is used.

mod numbers;
mod relevant;

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use smol_str::SmolStr;

use crate::id::ClusterName;
use crate::object::{Labels, PodObject};
use crate::record::IdentityLabel;

pub use numbers::{Exhausted, IDLE, Identities, KeptChanges};
pub use relevant::is_relevant;

/// The label that says which cluster an identity is of.
pub const CLUSTER_LABEL: &str = "io.cilium.k8s.policy.cluster";
/// The label that says which namespace an identity is of.
pub const NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";
/// The label that says which service account an identity has.
const SERVICE_ACCOUNT_LABEL: &str = "io.cilium.k8s.policy.serviceaccount";
/// What stands, with a dot, before a label of the Namespace.
pub const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels";
/// What no label of a Pod itself may begin with: it could claim another identity.
const CILIUMS_OWN: &str = "io.cilium.k8s";
/// The source of all labels that come from Kubernetes.
pub const SOURCE: &str = "k8s";
/// Numbers below are no cluster's: host, world, health and their like, the same in every cluster.
pub const RESERVED_NUMBERS: u32 = 256;
/// The reserved number of the host a reader itself runs on.
pub const HOST: u32 = 1;
/// The reserved number of all other hosts.
pub const REMOTE_NODE: u32 = 6;

/// The labels of an identity, by key. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelSet(Arc<[IdentityLabel]>);

impl LabelSet {
    /// The set of these labels, in whatever order.
    pub fn new(labels: impl IntoIterator<Item = IdentityLabel>) -> Self {
        let mut labels: Vec<IdentityLabel> = labels.into_iter().collect();
        labels.sort_by(|a, b| (&a.key, &a.source).cmp(&(&b.key, &b.source)));
        Self(labels.into())
    }

    /// What a Pod's labels come to, in its Namespace with these labels.
    ///
    /// Source: Cilium `pkg/k8s/utils` (`SanitizePodLabels`), `pkg/labelsfilter` with its default configuration.
    pub fn of_pod(pod: &PodObject, namespace: &Labels, cluster: &ClusterName) -> Self {
        let label =
            |key: SmolStr, value: &str| IdentityLabel { source: SmolStr::new_static(SOURCE), key, value: value.into() };
        let fixed = [
            (NAMESPACE_LABEL, pod.key.namespace.as_str()),
            (SERVICE_ACCOUNT_LABEL, pod.service_account.as_str()),
            (CLUSTER_LABEL, cluster.as_str()),
        ];
        let fixed = fixed.into_iter().filter(|(_, value)| !value.is_empty());
        let fixed = fixed.map(|(key, value)| label(SmolStr::new_static(key), value));
        let own = pod.labels.iter().filter(|(key, _)| !key.starts_with(CILIUMS_OWN) && *key != NAMESPACE_LABEL);
        let own = own.map(|(key, value)| label(key.clone(), value));
        let of_namespace =
            namespace.iter().map(|(key, value)| label(format!("{NAMESPACE_LABELS}.{key}").into(), value));
        Self::new(own.chain(of_namespace).filter(|label| is_relevant(&label.key)).chain(fixed))
    }

    /// The labels, by key.
    pub fn labels(&self) -> &[IdentityLabel] {
        &self.0
    }

    /// The namespace it says it is of.
    pub fn namespace(&self) -> Option<&SmolStr> {
        namespace_of(&self.0)
    }
}

/// The namespace that these labels say they are of.
pub fn namespace_of(labels: &[IdentityLabel]) -> Option<&SmolStr> {
    labels.iter().find(|label| label.key == NAMESPACE_LABEL && label.source == SOURCE).map(|label| &label.value)
}
