//! `explain` in words: one decision table per frontend.

use std::fmt::Write as _;

use tombolo_core::model::BackendState;
use tombolo_core::report::{BackendExplanation, Explanation, FrontendExplanation};

use super::{Columns, ago, or_dash, policy};
use crate::output::Report;
use crate::query::{Answer, Explained};

impl Report for Explained {
    fn text(&self) -> String {
        let answers = self.answers.iter().map(|from| match &from.said {
            Answer::Got(Some(explanation)) => explained(explanation),
            Answer::Got(None) => format!(
                "{} is no global service in {} (node {}): does it exist there, with service.cilium.io/global: \"true\"?\n",
                self.service, from.cluster, from.node
            ),
            Answer::Failed(why) => format!("{} node {}: no answer: {why}\n", from.cluster, from.node),
        });
        answers.collect::<Vec<_>>().join("\n")
    }

    fn ok(&self) -> bool {
        self.answers.iter().all(|from| matches!(from.said, Answer::Got(Some(_))))
    }
}

fn explained(explanation: &Explanation) -> String {
    let Explanation { service, node, cluster, .. } = explanation;
    let mut out = format!("{service} on node {node} of {cluster}: {}\n", policy(&explanation.policy));
    if explanation.frontends.is_empty() {
        out += "  no frontend: a headless service has no address to translate\n";
    }
    out.extend(explanation.frontends.iter().map(frontend));
    for note in &explanation.notes {
        let _ = writeln!(out, "  ⚠️  {note}");
    }
    out
}

fn frontend(explanation: &FrontendExplanation) -> String {
    let installed = if explanation.installed { "installed" } else { "NOT INSTALLED YET" };
    let mut out = format!("  {}, round: {}, {installed}\n", explanation.frontend, explanation.round);
    if explanation.backends.is_empty() {
        return out + "    no backends are known\n";
    }
    let header = ["", "SHARE", "BACKEND", "CLUSTER", "NODE", "ZONE", "STATE", "RULE", "REVISION", "AGE"];
    let mut table = Columns::new(4, header);
    for backend in &explanation.backends {
        table.row(row(backend));
    }
    out += &table.text();
    out
}

fn row(backend: &BackendExplanation) -> [String; 10] {
    let state = match backend.state {
        BackendState::Active => "active",
        BackendState::Terminating => "terminating",
        BackendState::Gone => "gone",
        BackendState::Maintenance => "maintenance",
    };
    let kept = backend.share > 0.0;
    [
        if kept { "✓" } else { "✗" }.into(),
        if kept { format!("{:.1} %", backend.share * 100.0) } else { "-".into() },
        backend.backend.to_string(),
        backend.cluster.to_string(),
        or_dash(backend.node.as_deref()),
        or_dash(backend.zone.as_deref()),
        if backend.doubtful { format!("{state}, doubtful") } else { state.into() },
        backend.rule.clone(),
        backend.revision.to_string(),
        ago(backend.age_ms / 1000),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use tombolo_core::id::{ClusterId, ClusterName, MaxClusters, ServiceKey};
    use tombolo_core::model::{Affinity, BackendKey, Frontend, Policy, Protocol, Reach};

    use super::*;
    use crate::query::FromNode;

    fn backend(addr: &str, cluster: (u32, &str), rule: &str, share: f64) -> BackendExplanation {
        let id = ClusterId::new(cluster.0, MaxClusters::C255).unwrap();
        BackendExplanation {
            backend: BackendKey { addr: addr.parse().unwrap(), port: 8080, protocol: Protocol::Tcp, cluster: id },
            cluster: ClusterName::new(cluster.1).unwrap(),
            state: BackendState::Active,
            node: Some("n1".into()),
            zone: None,
            doubtful: false,
            rule: rule.into(),
            share,
            revision: 812,
            age_ms: 73_000,
        }
    }

    fn explanation(backends: Vec<BackendExplanation>) -> Explanation {
        Explanation {
            service: ServiceKey::new("default", "rebel-base"),
            node: "n1".into(),
            cluster: ClusterName::new("ne").unwrap(),
            policy: Policy { reach: Reach::Mesh, affinity: Affinity::Local, ..Policy::default() },
            frontends: vec![FrontendExplanation {
                frontend: Frontend { addr: "10.96.0.10".parse().unwrap(), port: 80, protocol: Protocol::Tcp },
                round: "local, active".into(),
                backends,
                installed: true,
            }],
            notes: vec!["10.1.0.5 is claimed by ne and we: ne has it".into()],
        }
    }

    #[test]
    fn each_backend_has_its_rule() {
        let doubtful = BackendExplanation {
            doubtful: true,
            node: None,
            zone: Some("eu-1a".into()),
            state: BackendState::Terminating,
            ..backend("fd00::2", (2, "we"), "dropped: affinity local", 0.0)
        };
        let kept = backend("10.1.0.5", (1, "ne"), "kept: local", 1.0);
        let unsure = Explanation {
            frontends: vec![FrontendExplanation {
                installed: false,
                round: "no backend".into(),
                ..explanation(vec![]).frontends[0].clone()
            }],
            notes: vec![],
            ..explanation(vec![])
        };
        let headless = Explanation { frontends: vec![], notes: vec![], ..explanation(vec![]) };
        let from = |said| FromNode { cluster: ClusterName::new("ne").unwrap(), node: "n1".into(), said };
        let all = Explained {
            service: ServiceKey::new("default", "rebel-base"),
            answers: vec![
                from(Answer::Got(Some(explanation(vec![kept, doubtful])))),
                from(Answer::Got(Some(unsure))),
                from(Answer::Got(Some(headless))),
                from(Answer::Got(None)),
                from(Answer::Failed("unix:/run/n1.sock: no such file".into())),
            ],
        };
        expect![[r#"
            default/rebel-base on node n1 of ne: global, affinity local
              10.96.0.10:80/TCP, round: local, active, installed
                   SHARE    BACKEND             CLUSTER  NODE  ZONE   STATE                  RULE                     REVISION  AGE
                ✓  100.0 %  10.1.0.5:8080/TCP   ne       n1    -      active                 kept: local              812       1m13s
                ✗  -        [fd00::2]:8080/TCP  we       -     eu-1a  terminating, doubtful  dropped: affinity local  812       1m13s
              ⚠️  10.1.0.5 is claimed by ne and we: ne has it

            default/rebel-base on node n1 of ne: global, affinity local
              10.96.0.10:80/TCP, round: no backend, NOT INSTALLED YET
                no backends are known

            default/rebel-base on node n1 of ne: global, affinity local
              no frontend: a headless service has no address to translate

            default/rebel-base is no global service in ne (node n1): does it exist there, with service.cilium.io/global: "true"?

            ne node n1: no answer: unix:/run/n1.sock: no such file
        "#]].assert_eq(&all.text());
        assert!(!all.ok());
    }
}
