//! `ClusterDrain`: the wish that the mesh stops choosing one cluster, gradually and reversibly.
#![expect(unreachable_pub, reason = "KubeSchema makes a public copy of a type inside a function")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::condition::HonouredStatus;

/// Which cluster is drained, how fast, and until when. Removing the object ends the drain.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tombolo.io",
    version = "v1alpha1",
    kind = "ClusterDrain",
    plural = "clusterdrains",
    shortname = "cdr",
    category = "tombolo",
    status = "HonouredStatus",
    derive = "PartialEq",
    doc = "The wish that the mesh stops choosing one cluster, gradually and reversibly. Removing the object ends it.",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.cluster", description = "The drained cluster"),
    printcolumn(name = "Over", type_ = "string", json_path = ".spec.over", description = "How long the ramp takes"),
    printcolumn(name = "For", type_ = "string", json_path = ".spec.for", description = "How long it lasts"),
    printcolumn(name = "Until", type_ = "string", json_path = ".spec.until", description = "When it ends"),
    printcolumn(
        name = "Honoured",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Honoured\")].status",
        description = "Whether the mesh acts by it"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Honoured\")].reason",
        description = "Why it does, or does not"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Honoured\")].message",
        priority = "1"
    )
)]
#[x_kube(validation = Rule::new("!(has(self.until) && has(self.__for__))").message("say until or for, not both"))]
#[serde(rename_all = "camelCase")]
pub struct ClusterDrainSpec {
    /// The cluster that is drained: this one or a peer.
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub cluster: String,
    /// How long the ramp from all to nothing takes, like 10m or 1m30s. Default: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    pub over: Option<String>,
    /// When the drain ends by itself. Default: when the object is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "until")]
    pub until: Option<Time>,
    /// How long after the object's creation it ends by itself, like 2h. Not together with `until`.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "for")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    pub lasting: Option<String>,
    /// Whether nothing at all may go there, even where no other cluster could answer.
    #[serde(default)]
    pub hard: bool,
}

fn until(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "format": "date-time",
        "nullable": true
    })
}
