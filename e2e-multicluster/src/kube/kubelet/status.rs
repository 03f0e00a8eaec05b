//! What the API is told of a Pod.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Host;
use super::pod::Container;
use crate::topology::Dual;

/// The status of a Pod with these containers.
pub(super) fn of(
    host: &Host,
    address: Dual,
    node: &str,
    pod: &Value,
    containers: &BTreeMap<String, Container>,
) -> Value {
    let ready = containers.values().all(|container| container.ready);
    let started = containers.values().all(|container| container.waiting.is_none());
    let conditions = [("PodScheduled", true), ("Initialized", true), ("ContainersReady", ready), ("Ready", ready)];
    let conditions =
        conditions.map(|(kind, holds)| json!({"type": kind, "status": if holds { "True" } else { "False" }}));
    let ips = |dual: Dual| dual.both().map(|ip| json!({"ip": ip.to_string()})).to_vec();
    let node = host.site.nodes.iter().find(|n| n.name == node).map_or(address, |n| n.place.address);
    json!({
        "phase": if started { "Running" } else { "Pending" },
        "conditions": conditions,
        "podIP": address.v4.to_string(),
        "podIPs": ips(address),
        "hostIP": node.v4.to_string(),
        "hostIPs": ips(node),
        "containerStatuses": pod["spec"]["containers"].as_array().into_iter().flatten()
            .map(|spec| container(spec, containers)).collect::<Vec<_>>(),
    })
}

fn container(spec: &Value, containers: &BTreeMap<String, Container>) -> Value {
    let found = spec["name"].as_str().and_then(|name| containers.get(name));
    let state = match found.and_then(|container| container.waiting.as_ref()) {
        Some(message) => json!({"waiting": {"reason": "NotRunning", "message": message}, "running": null}),
        None => json!({"running": {}, "waiting": null}),
    };
    json!({
        "name": spec["name"], "image": spec["image"], "imageID": "",
        "ready": found.is_some_and(|container| container.ready),
        "started": found.is_some_and(|container| container.waiting.is_none()),
        "restartCount": found.map_or(0, |container| container.restarts),
        "state": state,
    })
}
