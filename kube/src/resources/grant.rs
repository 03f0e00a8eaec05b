//! `ClusterGrant`: what a peer may contribute to this cluster.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::condition::{HonouredStatus, count};

/// What a peer that names this grant may contribute. What is absent is not limited; an empty list allows nothing.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tombolo.io",
    version = "v1alpha1",
    kind = "ClusterGrant",
    plural = "clustergrants",
    shortname = "cgr",
    category = "tombolo",
    status = "HonouredStatus",
    derive = "PartialEq",
    doc = "What a peer may contribute to this cluster. A MeshPeer names its grant.",
    printcolumn(name = "Namespaces", type_ = "string", json_path = ".spec.namespaces"),
    printcolumn(name = "CIDRs", type_ = "string", json_path = ".spec.cidrs"),
    printcolumn(name = "Identities", type_ = "boolean", json_path = ".spec.identities"),
    printcolumn(
        name = "Honoured",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Honoured\")].status",
        description = "Whether admission acts by it"
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
#[serde(rename_all = "camelCase")]
pub struct ClusterGrantSpec {
    /// Namespaces it may contribute to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), inner(length(max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")))]
    pub namespaces: Option<Vec<String>>,
    /// Services it may contribute to, as namespace/name, beside those of `namespaces`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 4096),
        inner(length(max = 127), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?/[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))
    )]
    pub services: Option<Vec<String>>,
    /// Ranges that its backends must lie in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), inner(length(max = 43), regex(pattern = r"^[0-9a-fA-F:.]+/[0-9]{1,3}$")))]
    pub cidrs: Option<Vec<String>>,
    /// Whether its identities and addresses are taken in. Default: yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identities: Option<bool>,
    /// How much it may bring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<GrantLimits>,
}

/// How much a peer may bring; what is beyond is refused, and shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrantLimits {
    /// Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "count")]
    pub services: Option<u32>,
    /// Backends of one service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "count")]
    pub backends_per_service: Option<u32>,
    /// Addresses in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "count")]
    pub addresses: Option<u32>,
    /// Changes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "count")]
    pub events_per_second: Option<u32>,
}
