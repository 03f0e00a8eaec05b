//! `services` in words: a table per node, a row per frontend.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tombolo_core::report::{FrontendView, ServiceView};

use super::{Columns, policy};
use crate::output::Report;
use crate::query::{Answer, Listed};

impl Report for Listed {
    fn text(&self) -> String {
        let nodes = self.0.iter().map(|from| {
            let title = format!("{} node {}", from.cluster, from.node);
            match &from.said {
                Answer::Got(services) if services.is_empty() => format!("{title}: no global services\n"),
                Answer::Got(services) => format!("{title}:\n{}", table(services)),
                Answer::Failed(why) => format!("{title}: no answer: {why}\n"),
            }
        });
        nodes.collect::<Vec<_>>().join("\n")
    }

    fn ok(&self) -> bool {
        self.0.iter().all(|from| matches!(from.said, Answer::Got(_)))
    }
}

fn table(services: &[ServiceView]) -> String {
    let mut table = Columns::new(2, ["SERVICE", "POLICY", "FRONTEND", "BACKENDS", "BY CLUSTER", "CONNECTS", "REFUSED"]);
    for service in services {
        let (name, policy) = (service.service.to_string(), policy(&service.policy));
        if service.frontends.is_empty() {
            let dash = || "-".to_string();
            table.row([name.clone(), policy.clone(), "headless".into(), dash(), dash(), dash(), dash()]);
        }
        for view in &service.frontends {
            let number = |n: Option<u64>| n.map_or("-".into(), |n| n.to_string());
            table.row([
                name.clone(),
                policy.clone(),
                view.frontend.to_string(),
                view.backends.len().to_string(),
                by_cluster(view),
                number(view.connects),
                number(view.refused),
            ]);
        }
    }
    table.text()
}

/// Each cluster's share of the slots: of new connections.
fn by_cluster(view: &FrontendView) -> String {
    let mut slots: BTreeMap<&str, u32> = BTreeMap::new();
    for backend in &view.backends {
        *slots.entry(backend.cluster.as_str()).or_default() += backend.slots;
    }
    let all: u32 = slots.values().sum();
    let mut out = String::new();
    for (cluster, own) in slots {
        let separator = if out.is_empty() { "" } else { ", " };
        let _ = write!(out, "{separator}{cluster} {:.0} %", f64::from(own) * 100.0 / f64::from(all.max(1)));
    }
    if out.is_empty() { "-".into() } else { out }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use tombolo_core::id::{ClusterId, ClusterName, MaxClusters, ServiceKey};
    use tombolo_core::model::{Affinity, BackendKey, Frontend, NoBackend, Policy, Protocol, Reach};
    use tombolo_core::report::SlotView;
    use tombolo_core::tables::SwitchEntry;

    use super::*;
    use crate::query::FromNode;

    fn slot(addr: &str, id: u32, cluster: &str, slots: u32) -> SlotView {
        let cluster_id = ClusterId::new(id, MaxClusters::C255).unwrap();
        SlotView {
            backend: BackendKey {
                addr: addr.parse().unwrap(),
                port: 8080,
                protocol: Protocol::Tcp,
                cluster: cluster_id,
            },
            cluster: ClusterName::new(cluster).unwrap(),
            slots,
            connects: Some(7),
        }
    }

    fn view(backends: Vec<SlotView>) -> FrontendView {
        let count = backends.iter().map(|b| b.slots).sum();
        FrontendView {
            frontend: Frontend { addr: "10.96.0.10".parse().unwrap(), port: 80, protocol: Protocol::Tcp },
            switch: SwitchEntry { base: 0, count, generation: 1 },
            backends,
            connects: Some(21),
            refused: Some(2),
        }
    }

    #[test]
    fn tables_per_node() {
        let mesh = Policy { reach: Reach::Mesh, ..Policy::default() };
        let odd = Policy {
            reach: Reach::Import,
            affinity: Affinity::Local,
            no_backend: NoBackend::Pass,
            client_ip_seconds: Some(10_800),
            ..Policy::default()
        };
        let service = |name: &str, policy, frontends| ServiceView {
            service: ServiceKey::new("default", name),
            policy,
            frontends,
        };
        let services = vec![
            service("head", mesh.clone(), vec![]),
            service("idle", odd, vec![view(vec![])]),
            service(
                "rebel-base",
                mesh,
                vec![view(vec![
                    slot("10.1.0.5", 1, "ne", 1),
                    slot("10.1.0.6", 1, "ne", 1),
                    slot("fd00::2", 2, "we", 1),
                ])],
            ),
        ];
        let from = |node: &str, said| FromNode { cluster: ClusterName::new("ne").unwrap(), node: node.into(), said };
        let listed = Listed(vec![
            from("n1", Answer::Got(services)),
            from("n2", Answer::Got(vec![])),
            from("n3", Answer::Failed("unix:/run/n3.sock: no such file".into())),
        ]);
        expect![[r#"
            ne node n1:
              SERVICE             POLICY                                                                   FRONTEND           BACKENDS  BY CLUSTER        CONNECTS  REFUSED
              default/head        global                                                                   headless           -         -                 -         -
              default/idle        global, not shared, affinity local, no backend: pass, ClientIP for 3h0m  10.96.0.10:80/TCP  0         -                 21        2
              default/rebel-base  global                                                                   10.96.0.10:80/TCP  3         ne 67 %, we 33 %  21        2

            ne node n2: no global services

            ne node n3: no answer: unix:/run/n3.sock: no such file
        "#]].assert_eq(&listed.text());
        assert!(!listed.ok());
    }
}
