//! `report`'s statuses as messages, and back.

use tombolo_core::id::ServiceKey;
use tombolo_core::own::RefusedReport;
use tombolo_core::report::{AgentStatus, ApiserverStatus, FaultReport, PeerStatus};

use crate::proto::{self, Bad, Wire, all, cluster_id, cluster_name, messages, must};

impl Wire for ServiceKey {
    type Message = proto::ServiceKey;

    fn message(&self) -> proto::ServiceKey {
        proto::ServiceKey { namespace: self.namespace.to_string(), name: self.name.to_string() }
    }

    fn value(key: proto::ServiceKey) -> Result<Self, Bad> {
        Ok(Self::new(key.namespace, key.name))
    }
}

impl Wire for FaultReport {
    type Message = proto::FaultReport;

    fn message(&self) -> proto::FaultReport {
        proto::FaultReport { place: self.place.clone(), message: self.message.clone() }
    }

    fn value(fault: proto::FaultReport) -> Result<Self, Bad> {
        Ok(Self { place: fault.place, message: fault.message })
    }
}

impl Wire for PeerStatus {
    type Message = proto::PeerStatus;

    fn message(&self) -> proto::PeerStatus {
        proto::PeerStatus {
            name: self.name.to_string(),
            state: Some(self.state.message()),
            refused: Some(self.refused.message()),
            unused_imports: messages(&self.unused_imports),
        }
    }

    fn value(peer: proto::PeerStatus) -> Result<Self, Bad> {
        Ok(Self {
            name: cluster_name(&peer.name)?,
            state: must(peer.state, "peer's state")?,
            refused: RefusedReport::value(peer.refused.unwrap_or_default())?,
            unused_imports: all(peer.unused_imports)?,
        })
    }
}

impl Wire for ApiserverStatus {
    type Message = proto::ApiserverStatus;

    fn message(&self) -> proto::ApiserverStatus {
        proto::ApiserverStatus {
            cluster: self.cluster.to_string(),
            id: self.id.get().into(),
            version: self.version.clone(),
            uptime_s: self.uptime_s,
            blockers: self.blockers.clone(),
            peers: messages(&self.peers),
            faults: messages(&self.faults),
            exported_services: self.exported_services,
            exported_endpoints: self.exported_endpoints,
            exported_identities: self.exported_identities,
            exported_addresses: self.exported_addresses,
            store_connected: self.store_connected,
        }
    }

    fn value(status: proto::ApiserverStatus) -> Result<Self, Bad> {
        Ok(Self {
            cluster: cluster_name(&status.cluster)?,
            id: cluster_id(status.id)?,
            version: status.version,
            uptime_s: status.uptime_s,
            blockers: status.blockers,
            peers: all(status.peers)?,
            faults: all(status.faults)?,
            exported_services: status.exported_services,
            exported_endpoints: status.exported_endpoints,
            exported_identities: status.exported_identities,
            exported_addresses: status.exported_addresses,
            store_connected: status.store_connected,
        })
    }
}

impl Wire for AgentStatus {
    type Message = proto::AgentStatus;

    fn message(&self) -> proto::AgentStatus {
        let peers = self.peers.iter();
        proto::AgentStatus {
            node: self.node.to_string(),
            cluster: self.cluster.to_string(),
            version: self.version.clone(),
            uptime_s: self.uptime_s,
            datapath: self.datapath.to_string(),
            store_connected: self.store_connected,
            heartbeat_age_ms: self.heartbeat_age_ms,
            synced: self.synced,
            blockers: self.blockers.clone(),
            remarks: self.remarks.clone(),
            peers: peers
                .map(|(name, state)| proto::NamedPeerState { name: name.to_string(), state: Some(state.message()) })
                .collect(),
            frontends: self.frontends,
            backends: self.backends,
            plans: self.plans,
        }
    }

    fn value(status: proto::AgentStatus) -> Result<Self, Bad> {
        let peer = |p: proto::NamedPeerState| Ok((cluster_name(&p.name)?, must(p.state, "peer's state")?));
        Ok(Self {
            node: status.node.into(),
            cluster: cluster_name(&status.cluster)?,
            version: status.version,
            uptime_s: status.uptime_s,
            datapath: status.datapath.into(),
            store_connected: status.store_connected,
            heartbeat_age_ms: status.heartbeat_age_ms,
            synced: status.synced,
            blockers: status.blockers,
            remarks: status.remarks,
            peers: status.peers.into_iter().map(peer).collect::<Result<_, _>>()?,
            frontends: status.frontends,
            backends: status.backends,
            plans: status.plans,
        })
    }
}
