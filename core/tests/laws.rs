//! The laws of merge and select, on random meshes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tombolo_core::explain::explain;
use tombolo_core::id::{Millis, ServiceKey};
use tombolo_core::mesh::{Change, Mesh};
use tombolo_core::model::{BackendKey, BackendState, InternalTrafficPolicy, OnStale};
use tombolo_core::plan::Tables;
use tombolo_core::select::{self, Rule, Selection, View};
use tombolo_core::tables::{BackendId, Desired, Limits};
use tombolo_testkit::fixture::{cluster, key, mesh, mesh_after};
use tombolo_testkit::generate::{self, PEERS};
use tombolo_testkit::reference::{Answer, World};

/// What a later change of the same thing replaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Service(ServiceKey),
    Local(ServiceKey, String),
    Remote(ServiceKey, String, String),
    Peer(String),
    Other,
}

fn thing(change: &Change) -> Thing {
    match change {
        Change::Service(key, _) => Thing::Service(key.clone()),
        Change::Local { service, slice, .. } => Thing::Local(service.clone(), slice.to_string()),
        Change::Remote { service, cluster, slice, .. } => {
            Thing::Remote(service.clone(), cluster.to_string(), slice.to_string())
        }
        Change::Peer(peer, _) => Thing::Peer(peer.to_string()),
        Change::Cluster(_) | Change::Node(_) => Thing::Other,
    }
}

fn of_peer(change: &Change, peer: &str) -> bool {
    match change {
        Change::Remote { cluster, .. } => cluster.as_str() == peer,
        Change::Peer(name, Some(_)) => name.as_str() == peer,
        _ => false,
    }
}

fn is_removal(change: &Change) -> bool {
    matches!(
        change,
        Change::Service(_, None)
            | Change::Local { value: None, .. }
            | Change::Remote { value: None, .. }
            | Change::Peer(_, None)
    )
}

/// The last word on each thing that was not taken away since.
fn last_words(history: &[Change]) -> Vec<Change> {
    let mut words: BTreeMap<Thing, Change> = BTreeMap::new();
    for change in history {
        match change {
            Change::Peer(peer, None) => words.retain(|_, c| !of_peer(c, peer.as_str())),
            _ if is_removal(change) => drop(words.remove(&thing(change))),
            _ => drop(words.insert(thing(change), change.clone())),
        }
    }
    words.into_values().collect()
}

fn keys() -> [ServiceKey; 3] {
    ["a", "b", "c"].map(key)
}

fn answers(mesh: &Mesh) -> Vec<Option<Selection>> {
    keys().iter().map(|key| mesh.select(key)).collect()
}

fn desired(mesh: &Mesh) -> Vec<Desired> {
    keys().iter().map(|key| mesh.desired(key)).collect()
}

proptest! {
    #[test]
    fn order_of_arrival_is_irrelevant(
        (words, shuffled) in generate::history().prop_map(|h| last_words(&h))
            .prop_flat_map(|w| (Just(w.clone()), Just(w).prop_shuffle()))
    ) {
        prop_assert_eq!(answers(&mesh_after(words)), answers(&mesh_after(shuffled)));
    }

    #[test]
    fn twice_is_once(history in generate::history()) {
        let mut mesh = mesh();
        for change in history {
            mesh.apply(change.clone(), Millis(0));
            let once = answers(&mesh);
            prop_assert_eq!(mesh.apply(change, Millis(1)), BTreeSet::new());
            prop_assert_eq!(answers(&mesh), once);
        }
    }

    #[test]
    fn incremental_equals_from_scratch(history in generate::history()) {
        let mut mesh = mesh();
        let mut kept = desired(&mesh);
        for change in &history {
            let dirty = mesh.apply(change.clone(), Millis(0));
            for desired in kept.iter_mut().filter(|d| dirty.contains(&d.service)) {
                *desired = mesh.desired(&desired.service);
            }
        }
        prop_assert_eq!(&kept, &desired(&mesh), "a service that was not called dirty has changed");
        prop_assert_eq!(answers(&mesh), answers(&mesh_after(last_words(&history))));
    }

    #[test]
    fn removing_a_peer_removes_exactly_what_only_it_brought(history in generate::history(), peer in 0..PEERS.len()) {
        let name = PEERS[peer].0;
        let mut removed = mesh_after(history.clone());
        removed.apply(Change::Peer(cluster(name), None), Millis(0));
        let never = mesh_after(history.into_iter().filter(|c| !of_peer(c, name)));
        prop_assert_eq!(answers(&removed), answers(&never));
        prop_assert!(removed.unused_imports().eq(never.unused_imports()));
    }

    #[test]
    fn a_stale_peer_that_is_dropped_is_as_if_it_were_gone(history in generate::history()) {
        let mesh = mesh_after(history.clone());
        for selection in answers(&mesh).into_iter().flatten() {
            let key = &selection.spec.key;
            let stale: Vec<_> = mesh.stale(key, Millis(0)).map(|stale| stale.cluster.clone()).collect();
            if selection.spec.policy.on_stale == OnStale::Drop {
                let mut without = mesh.clone();
                for peer in stale {
                    without.apply(Change::Peer(peer, None), Millis(0));
                }
                prop_assert_eq!(mesh.desired(key), without.desired(key));
            }
        }
    }

    #[test]
    fn a_stale_peer_that_is_kept_is_sure_and_others_are_as_they_were(history in generate::history()) {
        let states = |c: &Change| matches!(c, Change::Peer(_, Some(_)));
        let (mesh, fresh) = (mesh_after(history.clone()), mesh_after(history.into_iter().filter(|c| !states(c))));
        for key in keys() {
            let Some(selection) = mesh.select(&key) else { continue };
            let stale: Vec<_> = mesh.stale(&key, Millis(0)).map(|s| s.cluster).collect();
            if stale.is_empty() {
                prop_assert_eq!(Some(selection), fresh.select(&key));
            } else if selection.spec.policy.on_stale == OnStale::Keep {
                let kept = selection.candidates.iter().filter(|c| stale.contains(&&c.cluster));
                prop_assert!(kept.clone().all(|c| !c.doubtful && !c.dropped), "{:?}", kept.collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn no_backend_outside_the_filter_serves(history in generate::history()) {
        for selection in answers(&mesh_after(history)).into_iter().flatten() {
            let policy = &selection.spec.policy;
            for f in &selection.frontends {
                for (c, _) in selection.candidates.iter().zip(&f.verdicts).filter(|(_, v)| v.slots > 0) {
                    let state = c.state_under(policy);
                    prop_assert_eq!(c.key.protocol, f.frontend.protocol);
                    prop_assert_eq!(c.key.addr.family(), f.frontend.addr.family());
                    prop_assert!(matches!(state, BackendState::Active | BackendState::Terminating));
                    prop_assert!(c.lost_to.is_none() && c.weight > 0 && !c.dropped);
                    prop_assert!(policy.reach.is_global() || c.cluster.as_str() == "we");
                    if policy.internal_traffic_policy == InternalTrafficPolicy::Local && let Some(node) = &c.node {
                        prop_assert_eq!((node.as_str(), c.cluster.as_str()), ("n1", "we"));
                    }
                }
            }
        }
    }

    #[test]
    fn shares_sum_to_one_or_to_none_with_a_reason(history in generate::history()) {
        let mesh = mesh_after(history);
        let tables = Tables::new(Limits::default(), BackendId(1));
        for key in keys() {
            for f in explain(&mesh, &tables, &key, Millis(0)).into_iter().flat_map(|e| e.frontends) {
                let sum: f64 = f.backends.iter().map(|b| b.share).sum();
                let serves = f.backends.iter().any(|b| b.rule == Rule::Serves.as_str());
                prop_assert!((sum - if serves { 1.0 } else { 0.0 }).abs() < 1e-9, "{sum}");
                prop_assert!(f.backends.iter().all(|b| (b.share > 0.0) == (b.rule == Rule::Serves.as_str())));
            }
        }
    }

    #[test]
    fn removing_a_backend_that_was_not_chosen_changes_nothing(history in generate::history()) {
        let mesh = mesh_after(history);
        for selection in answers(&mesh).into_iter().flatten() {
            for f in &selection.frontends {
                let mut ports: Vec<_> = selection.spec.ports.iter()
                    .filter(|p| (p.number, p.protocol) == (f.frontend.port, f.frontend.protocol)).collect();
                ports.sort();
                let view = View {
                    frontend: f.frontend,
                    port_name: &ports[0].name,
                    policy: &selection.spec.policy,
                    node: mesh.node(),
                };
                for i in (0..f.verdicts.len()).filter(|i| !f.verdicts[*i].chosen) {
                    let mut fewer = selection.candidates.clone();
                    fewer.remove(i);
                    let mut expected = f.verdicts.clone();
                    expected.remove(i);
                    prop_assert_eq!(select::select(view, &fewer).verdicts, expected);
                }
            }
        }
    }

    #[test]
    fn core_agrees_with_the_reference_model(history in generate::history()) {
        let mesh = mesh_after(history.clone());
        let world = World { node: "n1".into(), id: generate::own_id(), said: history };
        for key in keys() {
            prop_assert_eq!(mesh.select(&key).map(|s| as_answers(&s)), world.answers(&key));
        }
    }
}

fn as_answers(selection: &Selection) -> BTreeMap<tombolo_core::model::Frontend, Answer> {
    let pick = |f: &select::FrontendSelection, keep: fn(&select::Verdict) -> bool| -> BTreeSet<BackendKey> {
        selection.candidates.iter().zip(&f.verdicts).filter(|(_, v)| keep(v)).map(|(c, _)| c.key).collect()
    };
    let answer =
        |f| Answer { chosen: pick(f, |v| v.chosen), serving: pick(f, |v| v.rule == Rule::Serves && v.slots == 1) };
    selection.frontends.iter().map(|f| (f.frontend, answer(f))).collect()
}
