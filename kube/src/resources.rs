//! The custom resources of the group `tombolo.io`: what people write to join clusters, and what they read of them.
//!
//! The types are the source of the schemas: `cargo xtask manifests` writes `manifests/crds/` from them, and its check
//! compares. Every rule that the API server can check is part of the schema, so that a mistake is told to whoever makes
//! it; what needs other objects (a Secret, a certificate) is judged later and told in a condition.
#![expect(clippy::duplicated_attributes, reason = "each printer column has the same words")]

mod condition;
mod drain;
mod grant;
mod identity;
mod peer;
#[cfg(test)]
mod tests;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use self::condition::{
    Condition, ConditionStatus, HONOURED, HonouredStatus, condition, same_but_time, set_condition,
};
pub use self::drain::{ClusterDrain, ClusterDrainSpec};
pub use self::grant::{ClusterGrant, ClusterGrantSpec, GrantLimits};
pub use self::identity::{MeshIdentity, MeshIdentitySpec};
pub use self::peer::{ADMITTED, CONNECTED, MeshPeer, MeshPeerSpec, MeshPeerStatus};

/// The API group of all of them.
pub const GROUP: &str = "tombolo.io";

/// The definitions, in the order in which they are written and applied.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![MeshPeer::crd(), ClusterDrain::crd(), ClusterGrant::crd(), MeshIdentity::crd()]
}

/// Each definition's file name in `manifests/crds/` and its YAML.
pub fn manifests() -> Result<Vec<(String, String)>, serde_saphyr::SerializeError> {
    let file = |crd: CustomResourceDefinition| {
        let name = format!("{GROUP}_{}.yaml", crd.spec.names.plural);
        let yaml = serde_saphyr::to_string(&crd)?;
        Ok((
            name,
            format!("# Written by `cargo xtask manifests` from kube/src/resources: change the types instead.\n{yaml}"),
        ))
    };
    definitions().into_iter().map(file).collect()
}
