//! `report`'s flows as messages, and back.

use tombolo_core::flows::Sampling;
use tombolo_core::report::{Flow, FlowBackend, FlowProcess, FlowVerdict, FlowsRequest};

use crate::proto::{self, Bad, EnumField, Wire, cluster_name, must};

impl Wire for FlowsRequest {
    type Message = proto::FlowsRequest;

    fn message(&self) -> proto::FlowsRequest {
        proto::FlowsRequest {
            follow: self.follow,
            service: self.service.as_ref().map(Wire::message),
            limit: self.limit,
        }
    }

    fn value(request: proto::FlowsRequest) -> Result<Self, Bad> {
        let service = request.service.map(Wire::value).transpose()?;
        Ok(Self { follow: request.follow, service, limit: request.limit })
    }
}

impl Wire for Flow {
    type Message = proto::Flow;

    fn message(&self) -> proto::Flow {
        proto::Flow {
            unix_ms: self.unix_ms,
            verdict: self.verdict.number(),
            service: self.service.as_ref().map(Wire::message),
            frontend: Some(self.frontend.message()),
            backend: self.backend.as_ref().map(Wire::message),
            process: Some(self.process.message()),
            sampling: self.sampling.0,
            missed: self.missed,
        }
    }

    fn value(flow: proto::Flow) -> Result<Self, Bad> {
        Ok(Self {
            unix_ms: flow.unix_ms,
            verdict: FlowVerdict::of(flow.verdict)?,
            service: flow.service.map(Wire::value).transpose()?,
            frontend: must(flow.frontend, "frontend")?,
            backend: flow.backend.map(Wire::value).transpose()?,
            process: must(flow.process, "process")?,
            sampling: Sampling(flow.sampling),
            missed: flow.missed,
        })
    }
}

impl Wire for FlowBackend {
    type Message = proto::FlowBackend;

    fn message(&self) -> proto::FlowBackend {
        proto::FlowBackend {
            backend: Some(self.backend.message()),
            cluster: self.cluster.as_ref().map(ToString::to_string),
            node: self.node.as_ref().map(ToString::to_string),
        }
    }

    fn value(b: proto::FlowBackend) -> Result<Self, Bad> {
        Ok(Self {
            backend: must(b.backend, "backend")?,
            cluster: b.cluster.map(|name| cluster_name(&name)).transpose()?,
            node: b.node.map(Into::into),
        })
    }
}

impl Wire for FlowProcess {
    type Message = proto::FlowProcess;

    fn message(&self) -> proto::FlowProcess {
        proto::FlowProcess {
            pid: self.pid,
            command: self.command.to_string(),
            cgroup_id: self.cgroup_id,
            cgroup: self.cgroup.clone(),
        }
    }

    fn value(p: proto::FlowProcess) -> Result<Self, Bad> {
        Ok(Self { pid: p.pid, command: p.command.into(), cgroup_id: p.cgroup_id, cgroup: p.cgroup })
    }
}
