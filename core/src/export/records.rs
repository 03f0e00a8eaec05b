//! Kubernetes objects turned into records, one function a record.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use ipnet::IpNet;
use smol_str::SmolStr;

use super::ExporterConfig;
use crate::id::Addr;
use crate::model::{Endpoint, Policy, Port, ServiceSpec, Slice};
use crate::object::{
    CiliumEndpointSpec, CiliumNodeObject, EndpointObject, Labels, NodeObject, PodObject, ServiceKind, ServiceObject,
    SliceObject,
};
use crate::own::NodeInfo;
use crate::policy::{self, Warning};
use crate::record::{
    IpRecord, NamedPort, NodeRecord, PortMap, RawCidr, RawPort, ServiceRecord, SliceEndpoint, SlicePort, SliceRecord,
    ZoneHints,
};

/// Annotations of a Node that mean something to Cilium's readers; others change often and concern nobody.
const NODE_ANNOTATIONS: &str = "network.cilium.io/";
/// A Node's WireGuard key.
const WIREGUARD_KEY: &str = "network.cilium.io/wg-pub-key";
/// What a node's record says of its writer.
const SOURCE: &str = "custom-resource";
/// A Node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// The whole Service in one record, as Cilium's `services/v1` has it.
pub(super) fn service<'a>(
    config: &ExporterConfig,
    service: &ServiceObject,
    slices: impl Iterator<Item = &'a SliceObject>,
) -> ServiceRecord {
    let frontends = match service.kind {
        ServiceKind::ClusterIp => &service.cluster_ips[..],
        ServiceKind::Headless | ServiceKind::ExternalName => &[],
    };
    let mut record = ServiceRecord {
        cluster: config.cluster.to_string(),
        cluster_id: config.id.get().into(),
        key: service.key.clone(),
        frontends: frontends.iter().map(|ip| (ip.to_string(), port_map(&service.ports))).collect(),
        backends: BTreeMap::new(),
        hostnames: BTreeMap::new(),
        zones: BTreeMap::new(),
        labels: service.labels.clone(),
        selector: service.selector.clone(),
        include_external: true,
        shared: true,
    };
    for slice in slices {
        let ports = port_map(&slice.ports);
        for endpoint in slice.endpoints.iter().filter(|e| e.conditions.in_legacy_record()) {
            add_backend(&mut record, endpoint, &ports);
        }
    }
    record
}

/// An address in two slices has the later slice's ports alone, as in Cilium. Hints without a zone are dropped.
fn add_backend(record: &mut ServiceRecord, endpoint: &EndpointObject, ports: &PortMap) {
    let Some(addr) = endpoint.addresses.first().map(Addr::to_string) else { return };
    if let Some(hostname) = present(endpoint.hostname.as_deref()) {
        record.hostnames.insert(addr.clone(), hostname.into());
    }
    if let Some(zone) = present(endpoint.zone.as_deref()) {
        let for_zones = Some(endpoint.hints.iter().map(ToString::to_string).collect());
        record.zones.insert(addr.clone(), ZoneHints { zone: zone.into(), for_zones });
    }
    record.backends.insert(addr, ports.clone());
}

/// One EndpointSlice, as Cilium's `endpointslices/v1` has it: all endpoints, ready or not.
pub(super) fn slice(config: &ExporterConfig, slice: &SliceObject) -> SliceRecord {
    let endpoint = |e: &EndpointObject| SliceEndpoint {
        addresses: e.addresses.iter().map(Addr::to_string).collect(),
        conditions: e.conditions,
        hostname: e.hostname.as_ref().map(ToString::to_string),
        node_name: e.node.as_ref().map(ToString::to_string),
        zone: e.zone.as_ref().map(ToString::to_string),
        for_zones: e.hints.iter().map(ToString::to_string).collect(),
    };
    let port = |p: &Port| SlicePort {
        name: p.name.to_string(),
        protocol: Some(p.protocol.to_string()),
        port: Some(p.number.into()),
        app_protocol: None,
    };
    SliceRecord {
        cluster: config.cluster.to_string(),
        cluster_id: config.id.get().into(),
        namespace: slice.namespace.clone(),
        name: slice.name.clone(),
        labels: slice.labels.clone(),
        annotations: slice.annotations.clone(),
        family: slice.family,
        endpoints: slice.endpoints.iter().map(endpoint).collect(),
        ports: slice.ports.iter().map(port).collect(),
    }
}

/// Frontends and policy for the own agents.
pub(super) fn spec(service: &ServiceObject, policy: Policy) -> ServiceSpec {
    let headless = service.kind == ServiceKind::Headless;
    ServiceSpec {
        key: service.key.clone(),
        cluster_ips: if headless { [].into() } else { service.cluster_ips.clone() },
        ports: service.ports.clone(),
        policy,
    }
}

/// One EndpointSlice for the own agents. `was_ready`: addresses that were ever ready.
pub(super) fn own_slice(slice: &SliceObject, was_ready: &BTreeSet<Addr>) -> (Slice, Option<Warning>) {
    let (weight, warning) = policy::slice_weight(&slice.annotations);
    let ports: Arc<[Port]> = slice.ports.as_slice().into();
    let endpoint = |e: &EndpointObject| {
        let addr = *e.addresses.first()?;
        Some(Endpoint {
            addr,
            ports: ports.clone(),
            state: e.conditions.state().with_weight(weight),
            was_ready: was_ready.contains(&addr),
            weight,
            node: e.node.clone(),
            zone: e.zone.clone(),
            hints: e.hints.as_slice().into(),
            doubtful: false,
        })
    };
    (Slice { endpoints: slice.endpoints.iter().filter_map(endpoint).collect() }, warning)
}

/// One Node, as Cilium's `nodes/v1` has it.
pub(super) fn node(config: &ExporterConfig, node: &NodeObject) -> NodeRecord {
    let (v4, v6): (Vec<&IpNet>, _) = node.pod_cidrs.iter().partition(|net| net.addr().is_ipv4());
    let (mut v4, mut v6) = (v4.into_iter().map(raw_cidr), v6.into_iter().map(raw_cidr));
    let annotations = node.annotations.iter().filter(|(key, _)| key.starts_with(NODE_ANNOTATIONS));
    let annotations: BTreeMap<_, _> = annotations.map(|(key, value)| (key.clone(), value.clone())).collect();
    NodeRecord {
        name: node.name.to_string(),
        cluster: config.cluster.to_string(),
        cluster_id: config.id.get().into(),
        addresses: node.addresses.iter().map(|(kind, addr)| (kind.to_string(), addr.to_string())).collect(),
        ipv4_cidr: v4.next(),
        ipv6_cidr: v6.next(),
        ipv4_secondary_cidrs: v4.collect(),
        ipv6_secondary_cidrs: v6.collect(),
        extra_ips: Default::default(),
        source: SOURCE.into(),
        encryption_key: 0,
        wireguard_key: node.annotations.get(WIREGUARD_KEY).cloned().unwrap_or_default(),
        labels: Some(node.labels.clone()).filter(|labels| !labels.is_empty()),
        annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
        boot_id: node.boot_id.clone(),
    }
}

/// One CiliumNode, as Cilium's `nodes/v1` has it.
pub(super) fn cilium_node(config: &ExporterConfig, node: &CiliumNodeObject) -> NodeRecord {
    let (v4, v6): (Vec<&IpNet>, _) = node.pod_cidrs.iter().partition(|net| net.addr().is_ipv4());
    let (mut v4, mut v6) = (v4.into_iter().map(raw_cidr), v6.into_iter().map(raw_cidr));
    NodeRecord {
        name: node.name.to_string(),
        cluster: config.cluster.to_string(),
        cluster_id: config.id.get().into(),
        addresses: node.addresses.iter().map(|(kind, addr)| (kind.to_string(), addr.to_string())).collect(),
        ipv4_cidr: v4.next(),
        ipv6_cidr: v6.next(),
        ipv4_secondary_cidrs: v4.collect(),
        ipv6_secondary_cidrs: v6.collect(),
        extra_ips: node.extra_ips.map(|ip| ip.map(|ip| ip.to_string()).unwrap_or_default()),
        source: SOURCE.into(),
        encryption_key: node.encryption_key,
        wireguard_key: node.annotations.get(WIREGUARD_KEY).cloned().unwrap_or_default(),
        labels: Some(node.labels.clone()).filter(|labels| !labels.is_empty()),
        annotations: Some(node.annotations.clone()).filter(|annotations| !annotations.is_empty()),
        boot_id: node.boot_id.clone(),
    }
}

/// One address of a Pod, as Cilium's `ip/v1` has it.
pub(super) fn pod_ip(addr: Addr, pod: &PodObject, number: u32) -> IpRecord {
    IpRecord {
        ip: addr,
        prefix_len: None,
        host_ip: pod.host_ip,
        identity: number,
        encryption_key: 0,
        metadata: String::new(),
        namespace: pod.key.namespace.clone(),
        pod: pod.key.name.clone(),
        service_account: pod.service_account.clone(),
        named_ports: pod.named_ports.iter().map(named_port).collect(),
    }
}

/// One address of a CiliumEndpoint, as Cilium's `ip/v1` has it.
pub(super) fn endpoint_ip(addr: Addr, namespace: &SmolStr, endpoint: &CiliumEndpointSpec) -> IpRecord {
    IpRecord {
        ip: addr,
        prefix_len: None,
        host_ip: endpoint.host_ip,
        identity: endpoint.identity,
        encryption_key: endpoint.encryption_key,
        metadata: String::new(),
        namespace: namespace.clone(),
        pod: endpoint.pod.clone(),
        service_account: endpoint.service_account.clone(),
        named_ports: endpoint.named_ports.iter().map(named_port).collect(),
    }
}

/// A Node's place, for its own agent.
pub(super) fn node_info(labels: &Labels, addresses: &[(SmolStr, Addr)]) -> NodeInfo {
    NodeInfo {
        zone: labels.get(ZONE).filter(|zone| !zone.is_empty()).map(Into::into),
        addresses: addresses.iter().map(|(_, addr)| *addr).collect(),
    }
}

fn named_port(port: &Port) -> NamedPort {
    NamedPort { name: port.name.clone(), port: port.number, protocol: port.protocol.to_string().into() }
}

fn port_map(ports: &[Port]) -> PortMap {
    let raw = |p: &Port| (p.name.to_string(), RawPort { protocol: p.protocol.to_string(), port: p.number });
    ports.iter().map(raw).collect()
}

fn raw_cidr(net: &IpNet) -> RawCidr {
    RawCidr { ip: net.network().to_string(), prefix_len: net.prefix_len() }
}

fn present(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}
