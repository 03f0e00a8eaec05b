//! Nodes, identities and addresses of a peer: counted, held, looked up, and told to nobody.

use super::*;

const IDENTITIES: usize = 2;
const ADDRESSES: usize = 3;

fn identity(number: u32, app: &str) -> (String, Bytes) {
    let labels = format!("k8s:app={app};k8s:io.cilium.k8s.policy.cluster=ne;");
    (format!("cilium/state/identities/v1/id/{number}"), labels.into())
}

fn address(ip: &str, number: u32, pod: &str) -> (String, Bytes) {
    let value = format!(
        r#"{{"IP":"{ip}","Mask":null,"HostIP":"192.0.2.9","ID":{number},"K8sNamespace":"x","K8sPodName":"{pod}"}}"#
    );
    (format!("cilium/state/ip/v1/default/{ip}"), value.into())
}

fn delta(watch: usize, revision: i64, upserts: Vec<(String, Bytes)>, deletes: &[&str]) -> SessionEvent {
    SessionEvent::Delta {
        watch,
        epoch: Epoch(1),
        revision: Revision(revision),
        upserts,
        deletes: deletes.iter().map(|key| (*key).to_owned()).collect(),
        expired: Vec::new(),
    }
}

fn list(watch: usize, epoch: u64, upserts: Vec<(String, Bytes)>) -> Vec<SessionEvent> {
    let epoch = Epoch(epoch);
    vec![
        SessionEvent::CanarySeen { watch },
        SessionEvent::Relisting { watch, epoch },
        delta(watch, 7, upserts, &[]),
        SessionEvent::Listed { watch, epoch, revision: Revision(7) },
    ]
}

/// A peer with two Pods of one identity.
fn peer() -> Scenario {
    let mut s = connected_peer();
    s.say("ne", list(IDENTITIES, 1, vec![identity(70_000, "x-wing")]));
    s.say("ne", list(ADDRESSES, 1, vec![address("10.1.0.1", 70_000, "p1"), address("10.1.0.2", 70_000, "p2")]));
    s.out.clear();
    s
}

impl Scenario {
    /// Identities, addresses and refusals of `ne`, and whose an address is.
    fn members(&self, ip: &str) -> String {
        let status = self.mirror.status(self.now);
        let counts = &status[0].state.counts;
        let found = self.mirror.locate(ip.parse().unwrap()).map(|found| {
            let labels: Vec<String> = found.labels.iter().map(|l| format!("{}={}", l.key, l.value)).collect();
            format!("{} {}/{} on {:?} {labels:?}", found.cluster, found.namespace, found.pod, found.host)
        });
        format!("{}/{}/{} {}", counts.identities, counts.addresses, counts.refused, found.unwrap_or("nobody's".into()))
    }
}

#[test]
fn they_are_counted_and_looked_up_and_told_to_nobody() {
    let mut s = peer();
    let whose = r#"ne x/p1 on Some(192.0.2.9) ["app=x-wing", "io.cilium.k8s.policy.cluster=ne"]"#;
    assert_eq!(s.members("10.1.0.1"), format!("1/2/0 {whose}"));
    assert_eq!(s.members("10.1.0.9"), "1/2/0 nobody's");
    s.say(
        "ne",
        vec![delta(ADDRESSES, 8, vec![address("10.1.0.1", 70_000, "p3")], &["cilium/state/ip/v1/default/10.1.0.2"])],
    );
    assert_eq!(s.members("10.1.0.1"), format!("1/1/0 {}", whose.replace("p1", "p3")));
    s.say("ne", vec![delta(IDENTITIES, 9, vec![], &["cilium/state/identities/v1/id/70000"])]);
    assert_eq!(s.members("10.1.0.1"), "0/1/0 ne x/p3 on Some(192.0.2.9) []");
    assert!(!s.out.contains("mesh/"), "{}", s.out);
}

#[test]
fn deletes_of_a_silent_peer_and_an_emptied_store_take_nothing_away() {
    let mut s = peer();
    s.say("ne", vec![SessionEvent::HeartbeatGone]);
    s.say("ne", vec![delta(ADDRESSES, 8, vec![], &["cilium/state/ip/v1/default/10.1.0.2"])]);
    assert!(s.members("10.1.0.2").starts_with("1/2/0 ne x/p2"), "its deletes do not count");
    s.say("ne", vec![SessionEvent::Heartbeat]);
    assert_eq!(s.members("10.1.0.2"), "1/1/0 nobody's", "it lives: they do");
    s.say("ne", vec![SessionEvent::Lost { reason: SessionError::WatchClosed }, connected(2)]);
    s.say("ne", vec![SessionEvent::Relisting { watch: ADDRESSES, epoch: Epoch(2) }, SessionEvent::Heartbeat]);
    s.say("ne", vec![SessionEvent::Listed { watch: ADDRESSES, epoch: Epoch(2), revision: Revision(1) }]);
    assert!(s.members("10.1.0.1").starts_with("1/1/0 ne x/p1"), "no canary in the new epoch");
    s.say("ne", vec![SessionEvent::CanarySeen { watch: ADDRESSES }]);
    assert_eq!(s.members("10.1.0.1"), "1/0/0 nobody's");
}

#[test]
fn what_is_refused_is_counted_and_comes_back_when_it_may() {
    let mut s = peer();
    let bad =
        vec![address("127.0.0.1", 70_000, "p"), address("10.1.0.3", 5_000_000, "p"), address("10.1.0.4", 70_000, "P")];
    s.say("ne", vec![delta(ADDRESSES, 8, bad, &[])]);
    s.say(
        "ne",
        vec![delta(
            IDENTITIES,
            9,
            vec![identity(5, "x"), ("cilium/state/identities/v1/id/x".into(), "k8s:a=b;".into())],
            &[],
        )],
    );
    assert!(s.members("127.0.0.1").starts_with("1/2/5 nobody's"), "{}", s.members("127.0.0.1"));
    let refused = s.mirror.status(s.now)[0].refused.clone();
    let rules: Vec<String> = refused.counts.iter().map(|(rule, n)| format!("{rule} {n}")).collect();
    assert_eq!(rules.join(", "), "identity-range 2, key-mismatch 1, special-address 1, text-limit 1");
    assert_eq!(refused.examples.len(), 5, "{refused:?}");
    let ours = Protected { pod_cidrs: ["10.1.0.0/24".parse().unwrap()].into(), nodes: [].into() };
    s.mirror.set_protected(&ours, s.now);
    assert_eq!(s.members("10.1.0.1"), "1/0/10 nobody's", "and the backends of its services");
    s.say("ne", vec![delta(ADDRESSES, 10, vec![], &["cilium/state/ip/v1/default/10.1.0.2"])]);
    s.mirror.set_protected(&Protected::default(), s.now);
    assert!(s.members("10.1.0.1").starts_with("1/1/5 ne x/p1"), "{}", s.members("10.1.0.1"));
    let gone = ["10.1.0.3", "10.1.0.4", "127.0.0.1"].map(|ip| format!("cilium/state/ip/v1/default/{ip}"));
    s.say("ne", vec![delta(ADDRESSES, 11, vec![], &gone.each_ref().map(String::as_str))]);
    s.say("ne", list(IDENTITIES, 1, vec![identity(70_000, "x-wing")]));
    assert!(s.members("10.1.0.1").starts_with("1/1/0 ne x/p1"), "{}", s.members("10.1.0.1"));
}
