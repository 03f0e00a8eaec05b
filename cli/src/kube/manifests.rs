//! What is installed: the definitions and the plain manifests of a profile, with what was asked for otherwise.

use serde_json::{Map, Value, json};
use tombolo_certs::CertInfo;
use tombolo_kube::apply::{Document, read};
use tombolo_kube::install::{PEERS_NAMESPACE, STORE_SERVICE, SYSTEM_NAMESPACE};
use tombolo_kube::objects::ObjectName;

use super::config::{ClusterConfig, Shape};
use crate::args::{Profile, ServiceType};

/// Custom resource definitions, as `cargo xtask manifests` writes them.
const DEFINITIONS: [&str; 4] = [
    include_str!("../../../manifests/crds/tombolo.io_meshpeers.yaml"),
    include_str!("../../../manifests/crds/tombolo.io_clusterdrains.yaml"),
    include_str!("../../../manifests/crds/tombolo.io_clustergrants.yaml"),
    include_str!("../../../manifests/crds/tombolo.io_meshidentities.yaml"),
];

/// What says, on Pods, which cluster they were started for: a change of it starts them anew.
const STARTED_FOR: &str = "tombolo.io/started-for";

/// What clouds read of a Service to keep its load balancer inside; the value for inside, and the one for outside.
const INTERNAL: [(&str, &str, Option<&str>); 3] = [
    ("service.beta.kubernetes.io/azure-load-balancer-internal", "true", Some("false")),
    ("service.beta.kubernetes.io/aws-load-balancer-scheme", "internal", Some("internet-facing")),
    ("networking.gke.io/load-balancer-type", "Internal", None),
];

/// What is put into a cluster before and after its own ConfigMap and Secrets.
#[derive(Debug)]
pub(crate) struct Manifests {
    /// Definitions and namespaces.
    pub before: Vec<Document>,
    /// All else.
    pub after: Vec<Document>,
}

/// The manifests of a cluster. `authorities` are those that its store trusts.
pub(crate) fn manifests(shape: &Shape, config: &ClusterConfig, authorities: &[CertInfo]) -> Manifests {
    let mut before: Vec<Document> = DEFINITIONS.iter().flat_map(|text| documents(text)).collect();
    let mut after = Vec::new();
    for mut document in documents(rendered(shape.profile)) {
        match document.name.kind.kind.as_str() {
            "Namespace" | "CustomResourceDefinition" => {
                if before.iter().all(|there| there.name != document.name) {
                    before.push(document);
                }
                continue;
            }
            "Service" if document.name.name == STORE_SERVICE => service(&mut document.object, shape),
            "Deployment" => workload(&mut document.object, shape, &started_for(config, authorities)),
            // The agents read their trust at each connection, and know no ranges.
            "DaemonSet" => workload(&mut document.object, shape, &format!("{} (id {})", config.name, config.id)),
            _ => {}
        }
        after.push(document);
    }
    Manifests { before, after }
}

/// The agents as they leave their nodes: each takes its programs, maps and state away before its Pod is ready.
///
/// As the chart's `agent.mode: uninstall` does.
pub(crate) fn leaving(shape: &Shape, config: &ClusterConfig) -> Option<Document> {
    let manifests = manifests(shape, config, &[]);
    let mut set = manifests.after.into_iter().find(|document| document.name.kind.kind == "DaemonSet")?;
    let pod = set.object.pointer_mut("/spec/template/spec")?;
    let mut agent = pod.pointer("/containers/0")?.clone();
    let mut uninstall = agent.clone();
    uninstall["name"] = json!("uninstall");
    let path = |flag: &str| {
        let args = agent["args"].as_array().into_iter().flatten();
        args.filter_map(Value::as_str).find(|arg| arg.starts_with(flag)).map(str::to_owned)
    };
    let paths = ["--bpffs=", "--state-dir=", "--admin-socket="].into_iter().filter_map(path);
    uninstall["args"] = std::iter::once("uninstall".to_owned()).chain(paths).collect();
    for key in ["ports", "env", "livenessProbe", "readinessProbe", "startupProbe"] {
        uninstall.as_object_mut()?.remove(key);
    }
    // Keeps the Pod, and touches nothing: what it writes is in the container alone.
    let stays = agent["args"].as_array()?.iter().filter(|arg| {
        let arg = arg.as_str().unwrap_or_default();
        ["--store-config=", "--health-listen=", "--log="].iter().any(|flag| arg.starts_with(flag))
    });
    let idle = ["--datapath=none", "--state-dir=/tmp/state", "--admin-socket=/tmp/agent.sock"];
    let args: Vec<Value> = idle.iter().map(|arg| json!(arg)).chain(stays.cloned()).collect();
    agent["args"] = Value::Array(args);
    agent["securityContext"]["capabilities"] = json!({ "drop": ["ALL"] });
    agent["volumeMounts"].as_array_mut()?.push(json!({ "name": "tmp", "mountPath": "/tmp" }));
    pod["volumes"].as_array_mut()?.push(json!({ "name": "tmp", "emptyDir": {} }));
    pod["initContainers"] = json!([uninstall]);
    pod["containers"] = json!([agent]);
    // All nodes at the same time: nothing is to be kept.
    set.object["spec"]["updateStrategy"]["rollingUpdate"] = json!({ "maxUnavailable": "100%", "maxSurge": 0 });
    Some(set)
}

fn rendered(profile: Profile) -> &'static str {
    match profile {
        Profile::Dev => include_str!("../../../manifests/plain/dev.yaml"),
        Profile::Ha => include_str!("../../../manifests/plain/ha.yaml"),
        Profile::Aks => include_str!("../../../manifests/plain/aks.yaml"),
        Profile::Eks => include_str!("../../../manifests/plain/eks.yaml"),
    }
}

fn documents(text: &str) -> Vec<Document> {
    read(text).expect("what is built in is rendered and read by tests")
}

fn service(object: &mut Value, shape: &Shape) {
    if let Some(kind) = shape.service_type {
        object["spec"]["type"] = json!(kind.as_str());
        if kind != ServiceType::NodePort {
            for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
                port.as_object_mut().and_then(|port| port.remove("nodePort"));
            }
        }
        if kind == ServiceType::ClusterIp
            && let Some(spec) = object["spec"].as_object_mut()
        {
            spec.remove("externalTrafficPolicy");
        }
    }
    let Some(internal) = shape.internal else { return };
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    let notes = metadata.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
    for (key, inside, outside) in INTERNAL {
        match (internal, outside) {
            (true, _) => notes[key] = json!(inside),
            (false, Some(outside)) => notes[key] = json!(outside),
            (false, None) => drop(notes.as_object_mut().and_then(|notes| notes.remove(key))),
        }
    }
}

fn workload(object: &mut Value, shape: &Shape, started_for: &str) {
    let template = &mut object["spec"]["template"];
    template["metadata"]["annotations"][STARTED_FOR] = json!(started_for);
    let Some(image) = &shape.image else { return };
    for list in ["initContainers", "containers"] {
        for container in template["spec"][list].as_array_mut().into_iter().flatten() {
            container["image"] = json!(image);
        }
    }
}

/// All that an apiserver and its etcd read once, at their start.
fn started_for(config: &ClusterConfig, authorities: &[CertInfo]) -> String {
    let data: Vec<String> = config.data().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    let trusted: Vec<String> = authorities.iter().map(CertInfo::short).collect();
    format!("{}; trusts {}", data.join(" "), trusted.join(", "))
}

/// The names of the definitions.
pub(crate) fn definitions() -> Vec<ObjectName> {
    DEFINITIONS.iter().flat_map(|text| documents(text)).map(|document| document.name).collect()
}

/// The namespaces, in the order in which they go.
pub(crate) fn namespaces() -> [&'static str; 2] {
    [SYSTEM_NAMESPACE, PEERS_NAMESPACE]
}

#[cfg(test)]
mod tests;
