//! `MeshIdentity`: the number that a set of labels has, kept where Cilium's own resources are not.
#![expect(unreachable_pub, reason = "KubeSchema makes a public copy of a type inside a function")]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// A set of labels, whose number is the object's name. It never changes: another set is another number.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tombolo.io",
    version = "v1alpha1",
    kind = "MeshIdentity",
    plural = "meshidentities",
    shortname = "mid",
    category = "tombolo",
    derive = "PartialEq",
    doc = "The number, which is the object's name, that a set of labels has in the mesh. Written by Tombolo alone.",
    validation = Rule::new("self.metadata.name.matches('^[1-9][0-9]{0,9}$')")
        .message("the name of an identity is its number"),
    printcolumn(
        name = "Namespace",
        type_ = "string",
        json_path = ".spec.labels.k8s:io\\.kubernetes\\.pod\\.namespace",
        description = "The namespace of its pods"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Labels", type_ = "string", json_path = ".spec.labels", priority = "1")
)]
#[x_kube(validation = Rule::new("self == oldSelf").message("a number's labels never change: make another number"))]
#[serde(rename_all = "camelCase")]
pub struct MeshIdentitySpec {
    /// The labels, each key with its source before it, like k8s:app.
    #[schemars(extend(
        "minProperties" = 1,
        "maxProperties" = 256,
        "additionalProperties" = { "type": "string", "maxLength": 512 }
    ))]
    pub labels: BTreeMap<String, String>,
}
