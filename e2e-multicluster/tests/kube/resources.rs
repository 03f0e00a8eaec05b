//! The custom resources on a real API server: their definitions are taken, and mistakes refused as they are made.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tombolo_e2e::clock::{Seen, wait_until};
use tombolo_kube::objects::Kind;
use tombolo_kube::resources;

use crate::lab::{Case, Lab, SOON};

pub(crate) const CASES: &[Case] = &[
    Case { name: "resources: an API server takes the definitions of manifests/crds", body: definitions },
    Case { name: "resources: mistakes are refused as they are made", body: mistakes },
];

/// What is refused, and a word of why.
const WRONG: &[(&str, &str)] = &[
    ("{kind: MeshPeer, metadata: {name: ne.x}, spec: {endpoints: ['https://h:1'], secretName: s}}", "1 to 32"),
    (
        "{kind: MeshPeer, metadata: {name: abcdefghijklmnopqrstuvwxyz-123456}, spec: {endpoints: ['https://h:1'], secretName: s}}",
        "1 to 32",
    ),
    ("{kind: MeshPeer, metadata: {name: ne}, spec: {endpoints: ['http://h:1'], secretName: s}}", "spec.endpoints[0]"),
    ("{kind: MeshPeer, metadata: {name: ne}, spec: {endpoints: ['https://h'], secretName: s}}", "spec.endpoints[0]"),
    ("{kind: MeshPeer, metadata: {name: ne}, spec: {endpoints: [], secretName: s}}", "at least 1"),
    ("{kind: MeshPeer, metadata: {name: ne}, spec: {endpoints: ['https://h:1']}}", "secretName"),
    ("{kind: ClusterDrain, metadata: {name: d}, spec: {cluster: ne, over: 2 hours}}", "spec.over"),
    (
        "{kind: ClusterDrain, metadata: {name: d}, spec: {cluster: ne, for: 2h, until: '2030-01-01T00:00:00Z'}}",
        "until or for, not both",
    ),
    ("{kind: ClusterDrain, metadata: {name: d}, spec: {cluster: NE}}", "spec.cluster"),
    ("{kind: ClusterGrant, metadata: {name: g}, spec: {cidrs: [ten]}}", "spec.cidrs[0]"),
    ("{kind: ClusterGrant, metadata: {name: g}, spec: {services: [rebel-base]}}", "spec.services[0]"),
    ("{kind: MeshIdentity, metadata: {name: x1}, spec: {labels: {'k8s:app': x}}}", "is its number"),
    ("{kind: MeshIdentity, metadata: {name: '70000'}, spec: {labels: {}}}", "spec.labels"),
];

/// What is taken.
const RIGHT: &str = r#"
{apiVersion: tombolo.io/v1alpha1, kind: MeshPeer, metadata: {name: ne}, spec: {endpoints: ['https://[2001:db8::1]:2379'],
  serverName: ne.mesh.cilium.io, secretName: tombolo-peer-ne, hostAliases: {'192.0.2.1': [a.b]}}}
---
{apiVersion: tombolo.io/v1alpha1, kind: ClusterDrain, metadata: {name: d}, spec: {cluster: ne, over: 1m30s, for: 2h}}
---
{apiVersion: tombolo.io/v1alpha1, kind: ClusterGrant, metadata: {name: g}, spec: {namespaces: [a], cidrs: [10.0.0.0/8]}}
---
{apiVersion: tombolo.io/v1alpha1, kind: MeshIdentity, metadata: {name: '70000'}, spec: {labels: {'k8s:app': x}}}
"#;

/// The definitions as they are committed, which are those of the types.
fn definitions(lab: &mut Lab) -> Result<()> {
    let api = lab.cluster.admin();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
    for (name, _) in resources::manifests()? {
        api.apply(&std::fs::read_to_string(dir.join(&name)).with_context(|| name.clone())?)?;
    }
    let kind = Kind::new("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    for definition in resources::definitions() {
        let name = definition.metadata.name.context("a definition has a name")?;
        wait_until(&format!("{name} to be served"), SOON, || {
            let found = api.get(&kind, "", &name)?.context("it was applied")?;
            let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let holds = |kind: &str| conditions.iter().any(|c| c["type"] == kind && c["status"] == "True");
            let both = holds("Established") && holds("NamesAccepted");
            Ok(if both { Seen::Ready(()) } else { Seen::NotYet(format!("{conditions:?}")) })
        })?;
        ensure!(api.list(&Kind::new("tombolo.io/v1alpha1", &definition.spec.names.kind), "", "")?.is_empty(), "{name}");
    }
    Ok(())
}

fn mistakes(lab: &mut Lab) -> Result<()> {
    definitions_once(lab)?;
    let api = lab.cluster.admin();
    for (text, word) in WRONG {
        let document = text.replacen('{', "{apiVersion: tombolo.io/v1alpha1, ", 1);
        let error = api.apply(&document).err().with_context(|| format!("taken: {text}"))?;
        ensure!(format!("{error:#}").contains(word), "{text}: {error:#}");
    }
    let taken = api.apply(RIGHT)?;
    ensure!(taken.iter().all(|object: &Value| object["metadata"]["uid"].is_string()), "{taken:?}");
    let changed = RIGHT.replace("'k8s:app': x", "'k8s:app': z");
    let error = api.apply(&changed).err().context("a number's labels were changed")?;
    ensure!(format!("{error:#}").contains("never change"), "{error:#}");
    for (kind, name) in [("MeshPeer", "ne"), ("ClusterDrain", "d"), ("ClusterGrant", "g"), ("MeshIdentity", "70000")] {
        api.delete(&Kind::new("tombolo.io/v1alpha1", kind), "", name)?;
    }
    Ok(())
}

/// A case may be run alone.
fn definitions_once(lab: &mut Lab) -> Result<()> {
    let served = lab.cluster.admin().list(&Kind::new("tombolo.io/v1alpha1", "MeshPeer"), "", "");
    if served.is_ok() { Ok(()) } else { definitions(lab) }
}
