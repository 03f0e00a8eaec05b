//! `report`'s tables and explanations as messages, and back.

use tombolo_core::model::{BackendKey, BackendState, Frontend, Protocol};
use tombolo_core::report::{BackendExplanation, Explanation, FrontendExplanation, FrontendView, ServiceView, SlotView};
use tombolo_core::tables::SwitchEntry;

use crate::proto::{self, Bad, EnumField, Wire, all, cluster_id, cluster_name, messages, must, policy, port_number};

impl Wire for Frontend {
    type Message = proto::Frontend;

    fn message(&self) -> proto::Frontend {
        proto::Frontend { addr: Some(self.addr.message()), port: self.port.into(), protocol: self.protocol.number() }
    }

    fn value(f: proto::Frontend) -> Result<Self, Bad> {
        Ok(Self { addr: must(f.addr, "address")?, port: port_number(f.port)?, protocol: Protocol::of(f.protocol)? })
    }
}

impl Wire for BackendKey {
    type Message = proto::BackendKey;

    fn message(&self) -> proto::BackendKey {
        proto::BackendKey {
            addr: Some(self.addr.message()),
            port: self.port.into(),
            protocol: self.protocol.number(),
            cluster_id: self.cluster.get().into(),
        }
    }

    fn value(b: proto::BackendKey) -> Result<Self, Bad> {
        Ok(Self {
            addr: must(b.addr, "address")?,
            port: port_number(b.port)?,
            protocol: Protocol::of(b.protocol)?,
            cluster: cluster_id(b.cluster_id)?,
        })
    }
}

impl Wire for SlotView {
    type Message = proto::SlotView;

    fn message(&self) -> proto::SlotView {
        proto::SlotView {
            backend: Some(self.backend.message()),
            cluster: self.cluster.to_string(),
            slots: self.slots,
            connects: self.connects,
        }
    }

    fn value(slot: proto::SlotView) -> Result<Self, Bad> {
        Ok(Self {
            backend: must(slot.backend, "backend")?,
            cluster: cluster_name(&slot.cluster)?,
            slots: slot.slots,
            connects: slot.connects,
        })
    }
}

impl Wire for FrontendView {
    type Message = proto::FrontendView;

    fn message(&self) -> proto::FrontendView {
        let SwitchEntry { base, count, generation } = self.switch;
        proto::FrontendView {
            frontend: Some(self.frontend.message()),
            switch: Some(proto::SwitchEntry { base, count, generation: generation.into() }),
            backends: messages(&self.backends),
            connects: self.connects,
            refused: self.refused,
        }
    }

    fn value(view: proto::FrontendView) -> Result<Self, Bad> {
        let proto::SwitchEntry { base, count, generation } = view.switch.unwrap_or_default();
        let generation = u16::try_from(generation).map_err(|_| Bad("generation"))?;
        Ok(Self {
            frontend: must(view.frontend, "frontend")?,
            switch: SwitchEntry { base, count, generation },
            backends: all(view.backends)?,
            connects: view.connects,
            refused: view.refused,
        })
    }
}

impl Wire for ServiceView {
    type Message = proto::ServiceView;

    fn message(&self) -> proto::ServiceView {
        proto::ServiceView {
            service: Some(self.service.message()),
            policy: Some(self.policy.message()),
            frontends: messages(&self.frontends),
        }
    }

    fn value(view: proto::ServiceView) -> Result<Self, Bad> {
        Ok(Self {
            service: must(view.service, "service")?,
            policy: policy(view.policy)?,
            frontends: all(view.frontends)?,
        })
    }
}

impl Wire for BackendExplanation {
    type Message = proto::BackendExplanation;

    fn message(&self) -> proto::BackendExplanation {
        proto::BackendExplanation {
            backend: Some(self.backend.message()),
            cluster: self.cluster.to_string(),
            state: self.state.number(),
            node: self.node.as_ref().map(ToString::to_string),
            zone: self.zone.as_ref().map(ToString::to_string),
            doubtful: self.doubtful,
            rule: self.rule.clone(),
            share: self.share,
            revision: self.revision,
            age_ms: self.age_ms,
        }
    }

    fn value(b: proto::BackendExplanation) -> Result<Self, Bad> {
        Ok(Self {
            backend: must(b.backend, "backend")?,
            cluster: cluster_name(&b.cluster)?,
            state: BackendState::of(b.state)?,
            node: b.node.map(Into::into),
            zone: b.zone.map(Into::into),
            doubtful: b.doubtful,
            rule: b.rule,
            share: b.share,
            revision: b.revision,
            age_ms: b.age_ms,
        })
    }
}

impl Wire for FrontendExplanation {
    type Message = proto::FrontendExplanation;

    fn message(&self) -> proto::FrontendExplanation {
        proto::FrontendExplanation {
            frontend: Some(self.frontend.message()),
            round: self.round.clone(),
            backends: messages(&self.backends),
            installed: self.installed,
        }
    }

    fn value(f: proto::FrontendExplanation) -> Result<Self, Bad> {
        Ok(Self {
            frontend: must(f.frontend, "frontend")?,
            round: f.round,
            backends: all(f.backends)?,
            installed: f.installed,
        })
    }
}

impl Wire for Explanation {
    type Message = proto::Explanation;

    fn message(&self) -> proto::Explanation {
        proto::Explanation {
            service: Some(self.service.message()),
            node: self.node.to_string(),
            cluster: self.cluster.to_string(),
            policy: Some(self.policy.message()),
            frontends: messages(&self.frontends),
            notes: self.notes.clone(),
        }
    }

    fn value(e: proto::Explanation) -> Result<Self, Bad> {
        Ok(Self {
            service: must(e.service, "service")?,
            node: e.node.into(),
            cluster: cluster_name(&e.cluster)?,
            policy: policy(e.policy)?,
            frontends: all(e.frontends)?,
            notes: e.notes,
        })
    }
}
