//! `MeshPeer`: another cluster of the mesh, how it is reached, and where the connection stands.
#![expect(unreachable_pub, reason = "KubeSchema makes a public copy of a type inside a function")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::condition::{Condition, conditions, count};

/// The condition that the peer's store is read and heard.
pub const CONNECTED: &str = "Connected";
/// The condition that the peer is configured well and accepted as a member.
pub const ADMITTED: &str = "Admitted";

/// How another cluster of the mesh is reached. The object's name is that cluster's name.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tombolo.io",
    version = "v1alpha1",
    kind = "MeshPeer",
    plural = "meshpeers",
    shortname = "mp",
    category = "tombolo",
    status = "MeshPeerStatus",
    derive = "PartialEq",
    doc = "Another cluster of the mesh: how it is reached, and where the connection stands. Its name is the cluster's.",
    validation = Rule::new("self.metadata.name.size() <= 32 && self.metadata.name.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')")
        .message("a cluster's name has 1 to 32 of a-z, 0-9 and '-', with a letter or digit at both ends"),
    printcolumn(name = "ID", type_ = "integer", json_path = ".status.clusterId", description = "The cluster's id"),
    printcolumn(
        name = "Connected",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Connected\")].status",
        description = "Whether its store is read and heard"
    ),
    printcolumn(name = "Services", type_ = "integer", json_path = ".status.services", description = "Services it exports"),
    printcolumn(name = "Backends", type_ = "integer", json_path = ".status.backends", description = "Their endpoints"),
    printcolumn(
        name = "Silent",
        type_ = "date",
        json_path = ".status.silentSince",
        description = "For how long it has not been heard"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", description = "What is to be known"),
    printcolumn(name = "Refused", type_ = "integer", json_path = ".status.refused", priority = "1"),
    printcolumn(name = "Endpoints", type_ = "string", json_path = ".spec.endpoints", priority = "1")
)]
#[serde(rename_all = "camelCase")]
pub struct MeshPeerSpec {
    /// The URLs of its store: https://HOST:PORT.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(max = 300), regex(pattern = r"^https://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$"))
    )]
    pub endpoints: Vec<String>,
    /// The name that its certificate must be valid for, where the endpoints are IP addresses. Default: the endpoint's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub server_name: Option<String>,
    /// The Secret with ca.crt, tls.crt and tls.key for this peer, in the namespace of peers' Secrets (tombolo-peers).
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub secret_name: String,
    /// Host names by IP address, for endpoints that no DNS server knows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 64,
        "additionalProperties" = { "type": "array", "maxItems": 16, "items": { "type": "string", "maxLength": 253 } }
    ))]
    pub host_aliases: BTreeMap<String, Vec<String>>,
    /// The ClusterGrant that says what it may contribute. Default: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub grant: Option<String>,
}

/// Where the connection with a peer stands, as this cluster's apiserver sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshPeerStatus {
    /// `Connected` and `Admitted`.
    #[serde(default)]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// The cluster's id, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "count")]
    pub cluster_id: Option<u32>,
    /// Where the session stands: connecting, ready, lost or refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Services it exports to this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "count")]
    pub services: Option<u32>,
    /// Endpoints of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "count")]
    pub backends: Option<u32>,
    /// Its nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "count")]
    pub nodes: Option<u32>,
    /// Its identities, where they are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "count")]
    pub identities: Option<u32>,
    /// Records and backends of it that were refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "count")]
    pub refused: Option<u32>,
    /// Since when it has not been heard; absent while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub silent_since: Option<Time>,
    /// What a person should know, in one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The generation of the object that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

fn date_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time", "nullable": true })
}
