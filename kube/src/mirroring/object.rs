//! Mirrored slices as the API has them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{EndpointConditions, EndpointSlice};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use tombolo_core::id::{Addr, Family};
use tombolo_core::model::{BackendState, Port, Protocol};

use super::diff::There;
use super::want::{Mirrored, MirroredEndpoint, SliceName};
use crate::watched::ObjectName;

/// The label of slices that we wrote, and may remove.
pub(super) const OURS: &str = "tombolo.io/mirrored";
/// Kubernetes' label for whose a slice is.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Kubernetes' label for who writes a slice, and Cilium's name for who writes peers'.
const MANAGED_BY: (&str, &str) = ("endpointslice.kubernetes.io/managed-by", "endpointslice-mesh-controller.cilium.io");
/// The label for whose endpoints they are, of MCS-API.
const SOURCE_CLUSTER: &str = "multicluster.kubernetes.io/source-cluster";
/// Kubernetes' label that tells kube-proxy to pass over a slice.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// The whole object, for an apply.
pub(super) fn render(name: &SliceName, slice: &Mirrored, owner: &str) -> Value {
    let mut labels = json!({
        OURS: "true", SERVICE_NAME: slice.service, MANAGED_BY.0: MANAGED_BY.1, SOURCE_CLUSTER: slice.cluster,
    });
    if slice.headless {
        labels[HEADLESS] = json!("");
    }
    let ports: Vec<Value> = slice.ports.iter().map(port).collect();
    let endpoints: Vec<Value> = slice.endpoints.iter().map(endpoint).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name.name, "namespace": name.namespace, "labels": labels,
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Service", "name": slice.service, "uid": owner }],
        },
        "addressType": family(slice.family),
        "ports": ports,
        "endpoints": endpoints,
    })
}

/// Our slices as they are.
pub(super) fn read_all(objects: &BTreeMap<ObjectName, Arc<EndpointSlice>>) -> BTreeMap<SliceName, There> {
    let read = |(name, object): (&ObjectName, &Arc<EndpointSlice>)| {
        (SliceName { namespace: name.0.clone(), name: name.1.clone() }, there(object))
    };
    objects.iter().map(read).collect()
}

fn there(object: &EndpointSlice) -> There {
    let label = |key: &str| object.labels().get(key).cloned().unwrap_or_default();
    let owner = object.owner_references().iter().find(|owner| owner.kind == "Service").map(|owner| owner.uid.clone());
    There {
        content: content(object),
        cluster: label(SOURCE_CLUSTER),
        service: label(SERVICE_NAME),
        owner,
        uid: object.metadata.uid.clone(),
    }
}

/// What it says; nothing when it says something that we would not have written.
fn content(object: &EndpointSlice) -> Option<Mirrored> {
    let labels = object.labels();
    let managed = labels.get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1);
    let port = |port: &k8s_openapi::api::discovery::v1::EndpointPort| {
        Some(Port {
            name: port.name.clone().unwrap_or_default().into(),
            protocol: Protocol::parse(port.protocol.as_deref()?)?,
            number: u16::try_from(port.port?).ok()?,
        })
    };
    let endpoint = |endpoint: &k8s_openapi::api::discovery::v1::Endpoint| {
        let [address] = endpoint.addresses.as_slice() else { return None };
        let plain = endpoint.node_name.is_none() && endpoint.hints.is_none() && endpoint.hostname.is_none();
        let state = state(endpoint.conditions.as_ref()?)?;
        let addr = Addr::from(address.parse::<IpAddr>().ok()?);
        plain.then(|| MirroredEndpoint { addr, state, zone: endpoint.zone.clone() })
    };
    managed.then_some(())?;
    Some(Mirrored {
        service: labels.get(SERVICE_NAME)?.clone(),
        headless: labels.contains_key(HEADLESS),
        cluster: labels.get(SOURCE_CLUSTER)?.clone(),
        family: if object.address_type == "IPv6" { Family::V6 } else { Family::V4 },
        ports: object.ports.iter().flatten().map(port).collect::<Option<_>>()?,
        endpoints: object.endpoints.iter().flatten().map(endpoint).collect::<Option<_>>()?,
    })
}

fn port(port: &Port) -> Value {
    json!({ "name": port.name, "protocol": port.protocol.as_str(), "port": port.number })
}

fn endpoint(endpoint: &MirroredEndpoint) -> Value {
    let (ready, serving, terminating) = conditions(endpoint.state);
    let mut value = json!({
        "addresses": [endpoint.addr.to_string()],
        "conditions": { "ready": ready, "serving": serving, "terminating": terminating },
    });
    if let Some(zone) = &endpoint.zone {
        value["zone"] = json!(zone);
    }
    value
}

/// Ready, serving, terminating.
fn conditions(state: BackendState) -> (bool, bool, bool) {
    match state {
        BackendState::Active => (true, true, false),
        BackendState::Terminating => (false, true, true),
        BackendState::Gone => (false, false, true),
        BackendState::Maintenance => (false, false, false),
    }
}

fn state(said: &EndpointConditions) -> Option<BackendState> {
    let said = (said.ready?, said.serving?, said.terminating?);
    let all = [BackendState::Active, BackendState::Terminating, BackendState::Gone, BackendState::Maintenance];
    all.into_iter().find(|state| conditions(*state) == said)
}

fn family(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}
