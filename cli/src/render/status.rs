//! `status` in words, after the manner of `cilium clustermesh status`.

use std::fmt::Write as _;

use tombolo_core::model::Policy;
use tombolo_core::own::PeerState;
use tombolo_core::report::{AgentStatus, ApiserverStatus};

use super::{Columns, ago, count, or_dash};
use crate::output::Report;
use crate::query::Answer;
use crate::status::{ClusterStatus, MeshStatus, is_connected, session};

/// Remarks shown of one node: a node may have many programs of others.
const REMARKS: usize = 6;

impl Report for MeshStatus {
    fn text(&self) -> String {
        let mut out: String = self.clusters.iter().map(cluster).collect();
        let unwell = self.clusters.iter().filter(|c| !c.problems.is_empty()).count();
        if self.connected {
            let _ = writeln!(out, "✅ {} connected", count(self.clusters.len(), "cluster", "clusters"));
        } else {
            let _ = writeln!(out, "❌ {unwell} of {} not connected", count(self.clusters.len(), "cluster", "clusters"));
        }
        out
    }

    fn ok(&self) -> bool {
        self.connected
    }
}

fn cluster(status: &ClusterStatus) -> String {
    let mut out = format!("🏝  {} (id {})\n", status.cluster, status.id);
    match &status.apiserver {
        Answer::Got(apiserver) => out += &own(apiserver),
        Answer::Failed(_) => out += "   ❌ apiserver does not answer\n",
    }
    out += &agents(status);
    if let Answer::Got(apiserver) = &status.apiserver {
        out += &peers(apiserver);
        out += &refused(apiserver);
        out += &faults(apiserver);
    }
    if !status.problems.is_empty() {
        let _ = writeln!(out, "   ❌ {}:", count(status.problems.len(), "problem", "problems"));
    }
    for problem in &status.problems {
        let _ = writeln!(out, "      {problem}");
    }
    out + "\n"
}

fn own(apiserver: &ApiserverStatus) -> String {
    let mark = if apiserver.blockers.is_empty() && apiserver.store_connected { "✅" } else { "❌" };
    let services = count(apiserver.exported_services as usize, "service", "services");
    let endpoints = count(apiserver.exported_endpoints as usize, "endpoint", "endpoints");
    let (version, up) = (&apiserver.version, ago(apiserver.uptime_s));
    format!("   {mark} apiserver {version}, up {up}, exports {services} with {endpoints}\n")
}

fn agents(status: &ClusterStatus) -> String {
    let all = status.agents.len();
    if all == 0 {
        return "   ⚠️  no nodes in cluster.yaml\n".into();
    }
    let connected = status.agents.values().filter(|agent| is_connected(status, agent)).count();
    let mut out = if connected == all {
        format!("   ✅ all {} connected to all clusters\n", count(all, "node is", "nodes are"))
    } else {
        format!("   ❌ {} of {} not connected to all clusters\n", all - connected, count(all, "node", "nodes"))
    };
    let mut table =
        Columns::new(6, ["NODE", "DATAPATH", "SYNCED", "HEARTBEAT", "FRONTENDS", "BACKENDS", "PLANS", "UP"]);
    for (node, said) in &status.agents {
        table.row(agent(node, said));
    }
    out += &table.text();
    for (node, said) in &status.agents {
        let remarks = if let Answer::Got(agent) = said { &*agent.remarks } else { &[] };
        for remark in remarks.iter().take(REMARKS) {
            let _ = writeln!(out, "      {node}: {remark}");
        }
        if remarks.len() > REMARKS {
            let _ = writeln!(out, "      {node}: and {} more; -o json has them", remarks.len() - REMARKS);
        }
    }
    out
}

fn agent(node: &str, said: &Answer<AgentStatus>) -> [String; 8] {
    let Answer::Got(agent) = said else {
        let dash = || "-".to_string();
        return [node.into(), "no answer".into(), dash(), dash(), dash(), dash(), dash(), dash()];
    };
    [
        node.into(),
        agent.datapath.to_string(),
        if agent.synced { "yes" } else { "no" }.into(),
        agent.heartbeat_age_ms.map_or("-".into(), |ms| format!("{} ago", ago(ms / 1000))),
        agent.frontends.to_string(),
        agent.backends.to_string(),
        agent.plans.to_string(),
        ago(agent.uptime_s),
    ]
}

fn peers(apiserver: &ApiserverStatus) -> String {
    if apiserver.peers.is_empty() {
        return "   🔌 no peers: `tombolo connect` makes some\n".into();
    }
    let header = ["PEER", "ID", "SESSION", "SILENT", "SERVICES", "ENDPOINTS", "NODES", "REFUSED", "DETAIL"];
    let mut table = Columns::new(6, header);
    for peer in &apiserver.peers {
        let (state, counts) = (&peer.state, &peer.state.counts);
        table.row([
            peer.name.to_string(),
            or_dash(state.id.map(|id| id.to_string()).as_deref()),
            session(state.session).into(),
            silent(state),
            counts.services.to_string(),
            counts.endpoints.to_string(),
            counts.nodes.to_string(),
            counts.refused.to_string(),
            or_dash(Some(&state.detail)),
        ]);
    }
    format!("   🔌 {}:\n{}", count(apiserver.peers.len(), "peer", "peers"), table.text())
}

/// How long it is silent, and whether that is too long for a Service that names no time of its own.
fn silent(state: &PeerState) -> String {
    let age = if state.silent_ms == u64::MAX { "for good".into() } else { ago(state.silent_ms / 1000) };
    if state.is_stale_for(&Policy::default()) { format!("{age}, stale") } else { age }
}

fn refused(apiserver: &ApiserverStatus) -> String {
    let mut out = String::new();
    for peer in &apiserver.peers {
        let rules: Vec<String> = peer.refused.counts.iter().map(|(rule, n)| format!("{rule} ({n})")).collect();
        if rules.is_empty() && peer.refused.examples.is_empty() {
            continue;
        }
        let _ = writeln!(out, "   ⚠️  refused from {}: {}", peer.name, rules.join(", "));
        for example in &peer.refused.examples {
            let _ = writeln!(out, "      {}: {}: {}", example.rule, example.key, example.detail);
        }
    }
    out
}

fn faults(apiserver: &ApiserverStatus) -> String {
    if apiserver.faults.is_empty() {
        return String::new();
    }
    let faults = count(apiserver.faults.len(), "fault", "faults");
    let mut out = format!("   ⚠️  {faults} in the source; what was there before, if good, stays:\n");
    for fault in &apiserver.faults {
        let _ = writeln!(out, "      {}: {}", fault.place, fault.message);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::{Expect, expect};
    use tombolo_core::id::{ClusterId, ClusterName, MaxClusters};
    use tombolo_core::own::{PeerCounts, PeerSession, PeerState, RefusedExample, RefusedReport};
    use tombolo_core::report::{FaultReport, PeerStatus};

    use super::*;
    use crate::status::judged;

    fn name(text: &str) -> ClusterName {
        ClusterName::new(text).unwrap()
    }

    fn id(n: u32) -> ClusterId {
        ClusterId::new(n, MaxClusters::C255).unwrap()
    }

    fn state(n: u32, session: PeerSession, detail: &str) -> PeerState {
        let counts = PeerCounts { services: 1, endpoints: 2, nodes: 2, identities: 3, addresses: 4, refused: 0 };
        PeerState {
            id: Some(id(n)),
            session,
            silent_ms: 2300,
            stale_after_ms: 30_000,
            least_stale_ms: 12_500,
            detail: detail.into(),
            counts,
        }
    }

    fn apiserver() -> ApiserverStatus {
        let peer = |n, text| PeerStatus {
            name: name(text),
            state: state(n, PeerSession::Ready, ""),
            refused: RefusedReport::default(),
            unused_imports: vec![],
        };
        ApiserverStatus {
            cluster: name("ne"),
            id: id(1),
            version: "0.1.0".into(),
            uptime_s: 312,
            blockers: vec![],
            peers: vec![peer(3, "fc"), peer(2, "we")],
            faults: vec![],
            exported_services: 1,
            exported_endpoints: 2,
            exported_identities: 1,
            exported_addresses: 2,
            store_connected: true,
        }
    }

    fn agent(node: &str) -> AgentStatus {
        AgentStatus {
            node: node.into(),
            cluster: name("ne"),
            version: "0.1.0".into(),
            uptime_s: 300,
            datapath: "ebpf".into(),
            store_connected: true,
            heartbeat_age_ms: Some(1200),
            synced: true,
            blockers: vec![],
            remarks: vec![],
            peers: vec![(name("fc"), state(3, PeerSession::Ready, "")), (name("we"), state(2, PeerSession::Ready, ""))],
            frontends: 1,
            backends: 6,
            plans: 4,
        }
    }

    fn good() -> ClusterStatus {
        ClusterStatus {
            cluster: name("ne"),
            id: id(1),
            configured_peers: [name("we"), name("fc")].into(),
            apiserver: Answer::Got(apiserver()),
            agents: BTreeMap::from(["n1", "n2"].map(|n| (n.into(), Answer::Got(agent(n))))),
            problems: vec![],
        }
    }

    fn check(status: ClusterStatus, expected: &Expect) {
        let clusters = vec![judged(status)];
        let connected = clusters.iter().all(|c| c.problems.is_empty());
        expected.assert_eq(&MeshStatus { connected, clusters }.text());
    }

    #[test]
    fn all_connected() {
        check(
            good(),
            &expect![[r#"
            🏝  ne (id 1)
               ✅ apiserver 0.1.0, up 5m12s, exports 1 service with 2 endpoints
               ✅ all 2 nodes are connected to all clusters
                  NODE  DATAPATH  SYNCED  HEARTBEAT  FRONTENDS  BACKENDS  PLANS  UP
                  n1    ebpf      yes     1s ago     1          6         4      5m0s
                  n2    ebpf      yes     1s ago     1          6         4      5m0s
               🔌 2 peers:
                  PEER  ID  SESSION  SILENT  SERVICES  ENDPOINTS  NODES  REFUSED  DETAIL
                  fc    3   ready    2s      1         2          2      0        -
                  we    2   ready    2s      1         2          2      0        -

            ✅ 1 cluster connected
        "#]],
        );
    }

    #[test]
    fn remarks_stand_below_the_nodes_and_are_no_problem() {
        let mut first = agent("n1");
        first.remarks = (1..=9).map(|n| format!("foreign program {n}")).collect();
        let agents = BTreeMap::from([("n1".into(), Answer::Got(first)), ("n2".into(), Answer::Got(agent("n2")))]);
        let mut apiserver = apiserver();
        apiserver.peers.clear();
        let configured_peers = [].into();
        check(
            ClusterStatus { apiserver: Answer::Got(apiserver), agents, configured_peers, ..good() },
            &expect![[r#"
                🏝  ne (id 1)
                   ✅ apiserver 0.1.0, up 5m12s, exports 1 service with 2 endpoints
                   ✅ all 2 nodes are connected to all clusters
                      NODE  DATAPATH  SYNCED  HEARTBEAT  FRONTENDS  BACKENDS  PLANS  UP
                      n1    ebpf      yes     1s ago     1          6         4      5m0s
                      n2    ebpf      yes     1s ago     1          6         4      5m0s
                      n1: foreign program 1
                      n1: foreign program 2
                      n1: foreign program 3
                      n1: foreign program 4
                      n1: foreign program 5
                      n1: foreign program 6
                      n1: and 3 more; -o json has them
                   🔌 no peers: `tombolo connect` makes some

                ✅ 1 cluster connected
            "#]],
        );
    }

    #[test]
    fn a_lost_peer_and_refused_records() {
        let mut apiserver = apiserver();
        apiserver.peers[1].state = state(2, PeerSession::Lost, "we.mesh.cilium.io:2379: connection refused");
        apiserver.peers[0].refused = RefusedReport {
            counts: vec![("address-loopback".into(), 2), ("cluster-name".into(), 1)],
            examples: vec![RefusedExample {
                key: "cilium/state/services/v1/fc/default/rebel-base".into(),
                rule: "address-loopback".into(),
                detail: "127.0.0.1".into(),
            }],
        };
        apiserver.faults =
            vec![FaultReport { place: "base.yaml#2".into(), message: "spec.ports[0].port: many".into() }];
        check(
            ClusterStatus { apiserver: Answer::Got(apiserver), ..good() },
            &expect![[r#"
                🏝  ne (id 1)
                   ✅ apiserver 0.1.0, up 5m12s, exports 1 service with 2 endpoints
                   ✅ all 2 nodes are connected to all clusters
                      NODE  DATAPATH  SYNCED  HEARTBEAT  FRONTENDS  BACKENDS  PLANS  UP
                      n1    ebpf      yes     1s ago     1          6         4      5m0s
                      n2    ebpf      yes     1s ago     1          6         4      5m0s
                   🔌 2 peers:
                      PEER  ID  SESSION  SILENT  SERVICES  ENDPOINTS  NODES  REFUSED  DETAIL
                      fc    3   ready    2s      1         2          2      0        -
                      we    2   lost     2s      1         2          2      0        we.mesh.cilium.io:2379: connection refused
                   ⚠️  refused from fc: address-loopback (2), cluster-name (1)
                      address-loopback: cilium/state/services/v1/fc/default/rebel-base: 127.0.0.1
                   ⚠️  1 fault in the source; what was there before, if good, stays:
                      base.yaml#2: spec.ports[0].port: many
                   ❌ 1 problem:
                      peer we is lost: we.mesh.cilium.io:2379: connection refused

                ❌ 1 of 1 cluster not connected
            "#]],
        );
    }

    #[test]
    fn what_does_not_answer_is_reported() {
        let mut status = good();
        status.apiserver = Answer::Failed("unix:/m/ne/run/apiserver.sock: no such file".into());
        status.agents.insert("n2".into(), Answer::Failed("unix:/m/ne/run/n2.sock: connection refused".into()));
        check(
            status,
            &expect![[r#"
            🏝  ne (id 1)
               ❌ apiserver does not answer
               ❌ 1 of 2 nodes not connected to all clusters
                  NODE  DATAPATH   SYNCED  HEARTBEAT  FRONTENDS  BACKENDS  PLANS  UP
                  n1    ebpf       yes     1s ago     1          6         4      5m0s
                  n2    no answer  -       -          -          -         -      -
               ❌ 2 problems:
                  apiserver does not answer: unix:/m/ne/run/apiserver.sock: no such file
                  node n2: does not answer: unix:/m/ne/run/n2.sock: connection refused

            ❌ 1 of 1 cluster not connected
        "#]],
        );
    }

    #[test]
    fn nothing_is_ready_at_the_start() {
        let mut first = apiserver();
        first.peers.pop();
        first.blockers = vec!["source: not listed yet".into()];
        let mut late = agent("n1");
        (late.synced, late.heartbeat_age_ms, late.peers) = (false, None, vec![]);
        let agents = BTreeMap::from([("n1".into(), Answer::Got(late))]);
        check(
            ClusterStatus { apiserver: Answer::Got(first), agents, ..good() },
            &expect![[r#"
                🏝  ne (id 1)
                   ❌ apiserver 0.1.0, up 5m12s, exports 1 service with 2 endpoints
                   ❌ 1 of 1 node not connected to all clusters
                      NODE  DATAPATH  SYNCED  HEARTBEAT  FRONTENDS  BACKENDS  PLANS  UP
                      n1    ebpf      no      -          1          6         4      5m0s
                   🔌 1 peer:
                      PEER  ID  SESSION  SILENT  SERVICES  ENDPOINTS  NODES  REFUSED  DETAIL
                      fc    3   ready    2s      1         2          2      0        -
                   ❌ 4 problems:
                      apiserver is not ready: source: not listed yet
                      peer we is configured, but not known yet
                      node n1: agent has not carried out its first complete plan
                      node n1: peer fc is configured, but not known yet

                ❌ 1 of 1 cluster not connected
            "#]],
        );
    }

    #[test]
    fn a_cluster_on_its_own() {
        let apiserver = ApiserverStatus { peers: vec![], ..apiserver() };
        let alone = ClusterStatus {
            configured_peers: [].into(),
            apiserver: Answer::Got(apiserver),
            agents: BTreeMap::new(),
            ..good()
        };
        check(
            alone,
            &expect![[r#"
            🏝  ne (id 1)
               ✅ apiserver 0.1.0, up 5m12s, exports 1 service with 2 endpoints
               ⚠️  no nodes in cluster.yaml
               🔌 no peers: `tombolo connect` makes some

            ✅ 1 cluster connected
        "#]],
        );
    }

    #[test]
    fn the_wrong_admin_service_is_noticed() {
        let other = ApiserverStatus { cluster: name("we"), id: id(2), ..apiserver() };
        let mut agent = agent("n1");
        agent.cluster = name("we");
        let agents = BTreeMap::from([("n1".into(), Answer::Got(agent))]);
        let status = judged(ClusterStatus { apiserver: Answer::Got(other), agents, ..good() });
        expect![[r#"
            apiserver is that of we (id 2): see admin in cluster.yaml
            node n1: agent is one of we: see nodes in cluster.yaml"#]]
        .assert_eq(&status.problems.join("\n"));
    }

    #[test]
    fn a_silent_peer_is_not_connected() {
        let mut apiserver = apiserver();
        apiserver.peers[0].state.silent_ms = 29_999;
        apiserver.peers[1].state.silent_ms = 30_000;
        let status = judged(ClusterStatus { apiserver: Answer::Got(apiserver), ..good() });
        assert_eq!(status.problems, ["peer we has been silent for 30 s"]);
    }

    #[test]
    fn json_keeps_the_values() {
        let mut status = good();
        status.agents = BTreeMap::from([("n2".into(), Answer::Failed("gone".into()))]);
        let json = serde_json::to_value(judged(status)).unwrap();
        assert_eq!(json["apiserver"]["answer"]["peers"][1]["state"]["session"], "ready");
        assert_eq!(json["agents"]["n2"]["error"], "gone");
        assert_eq!(json["problems"][0], "node n2: does not answer: gone");
    }
}
