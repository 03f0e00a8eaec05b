use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tombolo_core::flows::Sampling;
use tombolo_core::id::ServiceKey;
use tombolo_core::model::{BackendKey, Frontend};
use tombolo_core::report::{
    AgentStatus, ApiserverStatus, BackendExplanation, Explanation, FaultReport, Flow, FlowBackend, FlowProcess,
    FlowVerdict, FlowsRequest, FrontendExplanation, FrontendView, PeerStatus, ServiceView, SlotView,
};
use tombolo_core::tables::SwitchEntry;
use tonic::codegen::tokio_stream;
use tonic::server::NamedService;

use super::{
    AdminError, AgentAdmin, AgentClient, AgentService, ApiserverAdmin, ApiserverClient, ApiserverService, Stopping,
    agent_service, apiserver_service,
};
use crate::proto::arbitrary::{
    addr, backend_state, cluster_id, cluster_name, peer_state, policy, protocol, refused_report, service_key, text,
};
use crate::proto::{self, Wire};

const TEXT: &str = ".{0,20}";

fn apiserver_status() -> impl Strategy<Value = ApiserverStatus> {
    let peer = (cluster_name(), peer_state(), refused_report(), vec(service_key(), 0..3))
        .prop_map(|(name, state, refused, unused_imports)| PeerStatus { name, state, refused, unused_imports });
    let fault = (TEXT, TEXT).prop_map(|(place, message)| FaultReport { place, message });
    let who = (cluster_name(), cluster_id(), TEXT, any::<u64>());
    (who, vec(TEXT, 0..3), vec(peer, 0..3), vec(fault, 0..3), any::<[u32; 4]>(), any::<bool>()).prop_map(
        |((cluster, id, version, uptime_s), blockers, peers, faults, exported, store_connected)| ApiserverStatus {
            cluster,
            id,
            version,
            uptime_s,
            blockers,
            peers,
            faults,
            exported_services: exported[0],
            exported_endpoints: exported[1],
            exported_identities: exported[2],
            exported_addresses: exported[3],
            store_connected,
        },
    )
}

fn agent_status() -> impl Strategy<Value = AgentStatus> {
    let who = (text(), cluster_name(), TEXT, text());
    let peers = vec((cluster_name(), peer_state()), 0..3);
    let texts = (vec(TEXT, 0..3), vec(TEXT, 0..3));
    (who, any::<[u64; 2]>(), option::of(any::<u64>()), any::<[bool; 2]>(), texts, peers, any::<[u32; 2]>()).prop_map(
        |(
            (node, cluster, version, datapath),
            [uptime_s, plans],
            heartbeat_age_ms,
            [store_connected, synced],
            (blockers, remarks),
            peers,
            [frontends, backends],
        )| AgentStatus {
            node,
            cluster,
            version,
            uptime_s,
            datapath,
            store_connected,
            heartbeat_age_ms,
            synced,
            blockers,
            remarks,
            peers,
            frontends,
            backends,
            plans,
        },
    )
}

fn frontend() -> impl Strategy<Value = Frontend> {
    (addr(), any::<u16>(), protocol()).prop_map(|(addr, port, protocol)| Frontend { addr, port, protocol })
}

fn backend() -> impl Strategy<Value = BackendKey> {
    (addr(), any::<u16>(), protocol(), cluster_id()).prop_map(|(addr, port, protocol, cluster)| BackendKey {
        addr,
        port,
        protocol,
        cluster,
    })
}

fn service_view() -> impl Strategy<Value = ServiceView> {
    let slot = (backend(), cluster_name(), any::<u32>(), option::of(any::<u64>()))
        .prop_map(|(backend, cluster, slots, connects)| SlotView { backend, cluster, slots, connects });
    let counters = [option::of(any::<u64>()), option::of(any::<u64>())];
    let view = (frontend(), any::<[u32; 2]>(), any::<u16>(), vec(slot, 0..4), counters).prop_map(
        |(frontend, [base, count], generation, backends, [connects, refused])| FrontendView {
            frontend,
            switch: SwitchEntry { base, count, generation },
            backends,
            connects,
            refused,
        },
    );
    (service_key(), policy(), vec(view, 0..3)).prop_map(|(service, policy, frontends)| ServiceView {
        service,
        policy,
        frontends,
    })
}

fn explanation() -> impl Strategy<Value = Explanation> {
    let place = (cluster_name(), option::of(text()), option::of(text()));
    let numbers = (any::<bool>(), 0.0..=1.0, any::<i64>(), any::<u64>());
    let backend = (backend(), place, backend_state(), TEXT, numbers).prop_map(
        |(backend, (cluster, node, zone), state, rule, (doubtful, share, revision, age_ms))| BackendExplanation {
            backend,
            cluster,
            state,
            node,
            zone,
            doubtful,
            rule,
            share,
            revision,
            age_ms,
        },
    );
    let frontend =
        (frontend(), TEXT, vec(backend, 0..4), any::<bool>()).prop_map(|(frontend, round, backends, installed)| {
            FrontendExplanation { frontend, round, backends, installed }
        });
    (service_key(), text(), cluster_name(), policy(), vec(frontend, 0..3), vec(TEXT, 0..3)).prop_map(
        |(service, node, cluster, policy, frontends, notes)| Explanation {
            service,
            node,
            cluster,
            policy,
            frontends,
            notes,
        },
    )
}

fn flow() -> impl Strategy<Value = Flow> {
    let sent = option::of((backend(), option::of(cluster_name()), option::of(text())))
        .prop_map(|sent| sent.map(|(backend, cluster, node)| FlowBackend { backend, cluster, node }));
    let process = (any::<u32>(), text(), any::<u64>(), option::of(TEXT))
        .prop_map(|(pid, command, cgroup_id, cgroup)| FlowProcess { pid, command, cgroup_id, cgroup });
    let verdict = proptest::sample::select(FlowVerdict::ALL.to_vec());
    let numbers = (any::<[u64; 2]>(), any::<u32>());
    (verdict, option::of(service_key()), frontend(), sent, process, numbers).prop_map(
        |(verdict, service, frontend, backend, process, ([unix_ms, missed], sampling))| Flow {
            unix_ms,
            verdict,
            service,
            frontend,
            backend,
            process,
            sampling: Sampling(sampling),
            missed,
        },
    )
}

fn flows_request() -> impl Strategy<Value = FlowsRequest> {
    (any::<bool>(), option::of(service_key()), option::of(any::<u32>()))
        .prop_map(|(follow, service, limit)| FlowsRequest { follow, service, limit })
}

struct Fixed {
    apiserver: ApiserverStatus,
    agent: AgentStatus,
    services: Vec<ServiceView>,
    explanation: Explanation,
    request: FlowsRequest,
    flows: Vec<Flow>,
}

impl ApiserverAdmin for Fixed {
    fn status(&self) -> ApiserverStatus {
        self.apiserver.clone()
    }
}

impl AgentAdmin for Fixed {
    type Flows = tokio_stream::Iter<std::vec::IntoIter<Flow>>;

    async fn status(&self) -> Result<AgentStatus, Stopping> {
        Ok(self.agent.clone())
    }

    async fn services(&self) -> Result<Vec<ServiceView>, Stopping> {
        Ok(self.services.clone())
    }

    async fn explain(&self, service: &ServiceKey) -> Result<Option<Explanation>, Stopping> {
        Ok((*service == self.explanation.service).then(|| self.explanation.clone()))
    }

    async fn flows(&self, request: FlowsRequest) -> Result<Self::Flows, Stopping> {
        let flows = if request == self.request { self.flows.clone() } else { Vec::new() };
        Ok(tokio_stream::iter(flows))
    }
}

async fn all(mut flows: super::Flows) -> Vec<Flow> {
    let mut all = Vec::new();
    while let Some(flow) = flows.next().await.unwrap() {
        all.push(flow);
    }
    all
}

/// Polls what never waits: client and server in one process.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("an in-process call waited"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn answers_arrive_as_given(
        apiserver in apiserver_status(),
        agent in agent_status(),
        services in vec(service_view(), 0..4),
        explanation in explanation(),
        other in service_key(),
        request in flows_request(),
        flows in vec(flow(), 0..4),
    ) {
        let fixed = Arc::new(Fixed { apiserver, agent, services, explanation, request, flows });
        let mut client = ApiserverClient::new(apiserver_service(fixed.clone()));
        prop_assert_eq!(&now(client.status()).unwrap(), &fixed.apiserver);
        let mut client = AgentClient::new(agent_service(fixed.clone()));
        prop_assert_eq!(&now(client.status()).unwrap(), &fixed.agent);
        prop_assert_eq!(&now(client.services()).unwrap(), &fixed.services);
        let explained = now(client.explain(&fixed.explanation.service)).unwrap();
        prop_assert_eq!(explained.as_ref(), Some(&fixed.explanation));
        if other != fixed.explanation.service {
            prop_assert_eq!(now(client.explain(&other)).unwrap(), None);
        }
        prop_assert_eq!(&now(all(now(client.flows(&fixed.request)).unwrap())), &fixed.flows);
    }
}

#[test]
fn names_on_the_wire() {
    assert_eq!(ApiserverService::<Fixed>::NAME, "tombolo.v1.ApiserverAdmin");
    assert_eq!(AgentService::<Fixed>::NAME, "tombolo.v1.AgentAdmin");
}

#[test]
fn an_answer_from_the_future_names_its_field() {
    let message = proto::BackendExplanation {
        backend: Some(proto::BackendKey { addr: Some(proto::Addr::default()), cluster_id: 3, ..Default::default() }),
        cluster: "ne".to_owned(),
        state: 77,
        ..Default::default()
    };
    let error = AdminError::from(BackendExplanation::value(message).unwrap_err());
    assert_eq!(
        error.to_string(),
        "the answer's state is missing or not understood: this program may be older than the server"
    );
}
