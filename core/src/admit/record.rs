//! What refuses a whole record.

use alloc::format;

use super::{Admission, Refusal, Rule, text};
use crate::export::SERVICE_NAME;
use crate::id::ServiceKey;
use crate::record::{NodeRecord, ServiceRecord, SliceRecord};

type Checked<T = ()> = Result<T, Refusal>;

pub(super) fn check_service(admission: &Admission, suffix: &str, record: &ServiceRecord) -> Checked {
    origin(admission, &record.cluster, record.cluster_id)?;
    key(suffix, &format!("{}", record.key))?;
    text::label("namespace", &record.key.namespace)?;
    text::label("Service name", &record.key.name)?;
    record.backends.values().flat_map(|ports| ports.keys()).try_for_each(|name| text::port_name(name))?;
    record.hostnames.values().filter(|name| !name.is_empty()).try_for_each(|name| text::label("hostname", name))?;
    for zones in record.zones.values() {
        text::zone(&zones.zone)?;
        text::hints(zones.for_zones.as_deref().unwrap_or_default().iter())?;
    }
    text::labels(&record.labels)?;
    text::labels(&record.selector)
}

/// Yields the Service the slice belongs to.
pub(super) fn check_slice(admission: &Admission, suffix: &str, record: &SliceRecord) -> Checked<ServiceKey> {
    origin(admission, &record.cluster, record.cluster_id)?;
    key(suffix, &format!("{}/{}", record.namespace, record.name))?;
    text::label("namespace", &record.namespace)?;
    text::subdomain("EndpointSlice name", &record.name)?;
    text::labels(&record.labels)?;
    text::annotations(&record.annotations)?;
    let Some(service) = record.labels.get(SERVICE_NAME) else {
        return Err(Refusal::new(Rule::NoService, &format!("no label {SERVICE_NAME}")));
    };
    text::label("Service name", service)?;
    record.ports.iter().try_for_each(|port| text::port_name(&port.name))?;
    for endpoint in &record.endpoints {
        let hostname = endpoint.hostname.as_deref().filter(|name| !name.is_empty());
        hostname.map_or(Ok(()), |name| text::label("hostname", name))?;
        let node = endpoint.node_name.as_deref().filter(|name| !name.is_empty());
        node.map_or(Ok(()), |name| text::subdomain("node name", name))?;
        text::zone(endpoint.zone.as_deref().unwrap_or_default())?;
        text::hints(endpoint.for_zones.iter())?;
    }
    Ok(ServiceKey::new(record.namespace.clone(), service.as_str()))
}

pub(super) fn check_node(admission: &Admission, suffix: &str, record: &NodeRecord) -> Checked {
    origin(admission, &record.cluster, record.cluster_id)?;
    key(suffix, &record.name)?;
    text::subdomain("node name", &record.name)?;
    record.labels.as_ref().map_or(Ok(()), text::labels)?;
    record.annotations.as_ref().map_or(Ok(()), text::annotations)
}

fn origin(admission: &Admission, cluster: &str, id: u32) -> Checked {
    if cluster != admission.peer.as_str() {
        let detail = format!("the record is of cluster {cluster:?}, the peer is {}", admission.peer);
        return Err(Refusal::new(Rule::ClusterName, &detail));
    }
    if id != u32::from(admission.id.get()) {
        let detail = format!("the record is of cluster id {id}, the peer has {}", admission.id);
        return Err(Refusal::new(Rule::ClusterId, &detail));
    }
    Ok(())
}

fn key(suffix: &str, content: &str) -> Checked {
    if suffix == content {
        return Ok(());
    }
    Err(Refusal::new(Rule::KeyMismatch, &format!("the key ends in {suffix:?}, the record says {content:?}")))
}
