//! Numbers against a stupid model: no two sets of labels share one, and none changes while it is used.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};

use expect_test::expect;
use proptest::collection::vec;
use proptest::prelude::*;
use tombolo_core::id::{ClusterId, ClusterName, MaxClusters};
use tombolo_core::identity::{Exhausted, IDLE, Identities, LabelSet};
use tombolo_core::object::{PodKey, PodObject, PodPhase};
use tombolo_core::record::IdentityLabel;

const FIRST: u32 = 70_000;
const LAST: u32 = 70_003;

fn labels(app: usize) -> LabelSet {
    LabelSet::new([IdentityLabel { source: "k8s".into(), key: "app".into(), value: app.to_string().into() }])
}

#[derive(Clone, Debug)]
enum Step {
    Claim(usize),
    Release(usize),
    /// The program ends, and begins again with what was kept.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0..7_usize).prop_map(Step::Claim),
        4 => (0..7_usize).prop_map(Step::Release),
        1 => Just(Step::Restart),
    ];
    vec(step, 1..60)
}

proptest! {
    #[test]
    fn a_number_is_of_one_set_and_stays(steps in steps()) {
        let mut identities = Identities::new(FIRST..=LAST);
        let (mut users, mut number_of) = (BTreeMap::<usize, usize>::new(), BTreeMap::<usize, u32>::new());
        let mut kept = BTreeMap::<u32, LabelSet>::new();
        for step in steps {
            match step {
                Step::Claim(app) => match identities.claim(&labels(app)) {
                    Ok(number) => {
                        prop_assert!((FIRST..=LAST).contains(&number));
                        *users.entry(app).or_default() += 1;
                        let before = number_of.insert(app, number);
                        prop_assert!(before.is_none_or(|before| before == number), "{app} changed its number");
                    }
                    Err(error) => {
                        prop_assert_eq!(number_of.len(), 4, "a number is left");
                        prop_assert!(!number_of.contains_key(&app));
                        prop_assert_eq!(error, Exhausted { count: 4, first: FIRST, last: LAST });
                    }
                },
                Step::Release(app) => if let Some(count) = users.get_mut(&app) {
                    identities.release(&labels(app));
                    *count -= 1;
                    if *count == 0 {
                        users.remove(&app);
                        number_of.remove(&app);
                    }
                },
                Step::Restart => {
                    identities = Identities::new(FIRST..=LAST);
                    identities.remember(kept.clone());
                    for (app, count) in &users {
                        for _ in 0..*count {
                            prop_assert_eq!(identities.claim(&labels(*app)), Ok(number_of[app]), "after a restart");
                        }
                    }
                }
            }
            for (number, change) in identities.take_changes() {
                match change {
                    Some(labels) => drop(kept.insert(number, labels)),
                    None => drop(kept.remove(&number)),
                }
            }
            let numbers: BTreeSet<u32> = number_of.values().copied().collect();
            prop_assert_eq!(numbers.len(), number_of.len(), "two sets share a number");
            prop_assert_eq!(identities.used().collect::<BTreeSet<_>>(), numbers);
            prop_assert_eq!(identities.kept().map(|(n, l)| (n, l.clone())).collect::<BTreeMap<_, _>>(), kept.clone());
            for (app, number) in &number_of {
                prop_assert_eq!(identities.labels(*number), Some(&labels(*app)));
            }
        }
    }
}

#[test]
fn what_nobody_has_any_more_keeps_its_number_for_long() {
    let mut identities = Identities::new(1_000..=9_999);
    for app in 0..IDLE + 2 {
        assert_eq!(identities.claim(&labels(app)), Ok(1_000 + u32::try_from(app).unwrap()));
        identities.release(&labels(app));
    }
    identities.forget_idle(IDLE);
    assert_eq!(identities.kept().count(), IDLE);
    assert_eq!(identities.claim(&labels(5)), Ok(1_005), "it comes back");
    let next = 1_000 + u32::try_from(IDLE).unwrap() + 2;
    assert_eq!(identities.claim(&labels(0)), Ok(next), "the oldest was forgotten, and its number rests");
}

#[test]
fn what_was_kept_for_another_cluster_is_forgotten() {
    let mut identities = Identities::new(FIRST..=LAST);
    identities.remember([(5, labels(1)), (FIRST, labels(2)), (FIRST, labels(3)), (LAST, labels(2))]);
    assert_eq!(identities.kept().collect::<Vec<_>>(), [(FIRST, &labels(2))]);
}

#[test]
fn the_numbers_of_a_cluster() {
    for (max, id, expected) in [
        (MaxClusters::C255, 1, 65_536..=131_071),
        (MaxClusters::C255, 255, 16_711_680..=16_777_215),
        (MaxClusters::C511, 1, 32_768..=65_535),
        (MaxClusters::C511, 511, 16_744_448..=16_777_215),
    ] {
        assert_eq!(max.identities(ClusterId::new(id, max).unwrap()), expected);
    }
}

#[test]
fn the_labels_of_a_pod() {
    let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let pod = PodObject {
        key: PodKey { namespace: "test".into(), name: "a-0".into() },
        labels: pairs(&[
            ("app", "echo"),
            ("pod-template-hash", "abc"),
            ("io.cilium.k8s.policy.cluster", "another"),
            ("io.cilium.k8s.policy.serviceaccount", "admin"),
            ("io.kubernetes.pod.namespace", "kube-system"),
            ("io.cilium.k8s.namespace.labels.team", "red"),
        ]),
        service_account: "default".into(),
        host_network: false,
        phase: PodPhase::Running,
        ips: Vec::new(),
        host_ip: None,
        named_ports: Vec::new(),
    };
    let namespace = pairs(&[("kubernetes.io/metadata.name", "test"), ("team", "blue")]);
    let set = LabelSet::of_pod(&pod, &namespace, &ClusterName::new("ne").unwrap());
    let text: String = set.labels().iter().map(|l| format!("{}:{}={};\n", l.source, l.key, l.value)).collect();
    expect![[r#"
        k8s:app=echo;
        k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=test;
        k8s:io.cilium.k8s.namespace.labels.team=blue;
        k8s:io.cilium.k8s.policy.cluster=ne;
        k8s:io.cilium.k8s.policy.serviceaccount=default;
        k8s:io.kubernetes.pod.namespace=test;
    "#]]
    .assert_eq(&text);
    assert_eq!(set.namespace().map(smol_str::SmolStr::as_str), Some("test"));
}
