//! The parts of a Pod that the mesh reads.

use serde::Deserialize;
use smol_str::SmolStr;
use tombolo_core::model::Port;
use tombolo_core::object::{PodKey, PodObject, PodPhase};

use super::shape::{Address, Metadata, ProtocolName, or_default, port};

/// What Kubernetes gives a Pod that names none.
const SERVICE_ACCOUNT: &str = "default";

#[derive(Deserialize)]
pub(super) struct Pod {
    metadata: Metadata,
    #[serde(default, deserialize_with = "or_default")]
    spec: Spec,
    #[serde(default, deserialize_with = "or_default")]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default, deserialize_with = "or_default")]
    service_account_name: SmolStr,
    #[serde(default, deserialize_with = "or_default")]
    host_network: bool,
    #[serde(default, deserialize_with = "or_default")]
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    #[serde(default, deserialize_with = "or_default")]
    ports: Vec<ContainerPort>,
}

#[derive(Deserialize)]
struct ContainerPort {
    #[serde(default, deserialize_with = "or_default")]
    name: SmolStr,
    #[serde(rename = "containerPort")]
    number: u16,
    #[serde(default)]
    protocol: Option<ProtocolName>,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default, deserialize_with = "or_default")]
    phase: Phase,
    #[serde(default, rename = "podIP", deserialize_with = "or_default")]
    pod_ip: MaybeAddress,
    #[serde(default, rename = "podIPs", deserialize_with = "or_default")]
    pod_ips: Vec<PodIp>,
    #[serde(default, rename = "hostIP", deserialize_with = "or_default")]
    host_ip: MaybeAddress,
}

#[derive(Clone, Copy, Default, Deserialize)]
enum Phase {
    #[default]
    Pending,
    Running,
    Succeeded,
    Failed,
    #[serde(other)]
    Unknown,
}

#[derive(Deserialize)]
struct PodIp {
    ip: Address,
}

/// An address that Kubernetes writes as an empty text while there is none.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(try_from = "SmolStr")]
pub(super) struct MaybeAddress(pub(super) Option<Address>);

impl TryFrom<SmolStr> for MaybeAddress {
    type Error = String;

    fn try_from(text: SmolStr) -> Result<Self, String> {
        if text.is_empty() { Ok(Self(None)) } else { Address::try_from(text).map(|address| Self(Some(address))) }
    }
}

impl From<Pod> for PodObject {
    fn from(pod: Pod) -> Self {
        let Pod { metadata, spec, status } = pod;
        let ips = match status.pod_ips.is_empty() {
            true => status.pod_ip.0.into_iter().collect(),
            false => status.pod_ips.into_iter().map(|ip| ip.ip).collect::<Vec<_>>(),
        };
        let account = spec.service_account_name;
        Self {
            key: PodKey { namespace: metadata.namespace(), name: metadata.name.0 },
            labels: metadata.labels,
            service_account: if account.is_empty() { SmolStr::new_static(SERVICE_ACCOUNT) } else { account },
            host_network: spec.host_network,
            phase: match status.phase {
                Phase::Pending => PodPhase::Pending,
                Phase::Running => PodPhase::Running,
                Phase::Succeeded => PodPhase::Succeeded,
                Phase::Failed => PodPhase::Failed,
                Phase::Unknown => PodPhase::Unknown,
            },
            ips: ips.into_iter().map(|address| address.0.into()).collect(),
            host_ip: status.host_ip.0.map(|address| address.0.into()),
            named_ports: named_ports(spec.containers),
        }
    }
}

/// By name, as Cilium's agents list them.
fn named_ports(containers: Vec<Container>) -> Vec<Port> {
    let ports = containers.into_iter().flat_map(|container| container.ports).filter(|port| !port.name.is_empty());
    let mut named: Vec<Port> = ports.map(|p| port(Some(p.name), p.protocol, p.number)).collect();
    named.sort_by(|a, b| a.name.cmp(&b.name));
    named
}
