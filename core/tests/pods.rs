//! Pods in, identities and addresses out; against a stupid model that begins anew each time.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use tombolo_core::export::{DefaultNamespace, Dirty, Exporter, ExporterConfig};
use tombolo_core::id::{Addr, ClusterId, ClusterName, MaxClusters};
use tombolo_core::identity::LabelSet;
use tombolo_core::object::{
    CiliumEndpointObject, CiliumEndpointSpec, CiliumIdentityObject, Labels, NamespaceObject, Object, ObjectKey, PodKey,
    PodObject, PodPhase, SourceEvent,
};
use tombolo_core::record::{IdentityRecord, IpRecord};

fn config() -> ExporterConfig {
    ExporterConfig {
        cluster: ClusterName::new("ne").unwrap(),
        id: ClusterId::new(1, MaxClusters::C255).unwrap(),
        max: MaxClusters::C255,
        namespaces: DefaultNamespace::Global,
    }
}

/// An exporter and what its dirty sets made of a store.
struct World {
    exporter: Exporter,
    identities: BTreeMap<u32, IdentityRecord>,
    addresses: BTreeMap<Addr, IpRecord>,
}

impl World {
    fn new() -> Self {
        Self::of(config())
    }

    fn of(config: ExporterConfig) -> Self {
        let mut exporter = Exporter::new(config);
        exporter.apply(SourceEvent::Complete);
        Self { exporter, identities: BTreeMap::new(), addresses: BTreeMap::new() }
    }

    fn say(&mut self, event: SourceEvent) -> Dirty {
        let mut dirty = self.exporter.apply(event);
        dirty.merge(self.exporter.settle());
        for number in &dirty.identities {
            match self.exporter.exported_identity(*number) {
                Some(record) => drop(self.identities.insert(*number, record)),
                None => drop(self.identities.remove(number)),
            }
        }
        for addr in &dirty.addresses {
            match self.exporter.exported_address(*addr) {
                Some(record) => drop(self.addresses.insert(*addr, record)),
                None => drop(self.addresses.remove(addr)),
            }
        }
        dirty
    }

    fn put(&mut self, object: Object) -> Dirty {
        self.say(SourceEvent::Upsert(object))
    }

    fn delete(&mut self, key: ObjectKey) -> Dirty {
        self.say(SourceEvent::Delete(key))
    }

    fn holder(&self, ip: &str) -> Option<&str> {
        self.addresses.get(&addr(ip)).map(|record| record.pod.as_str())
    }
}

fn addr(text: &str) -> Addr {
    text.parse().unwrap()
}

fn pod_key(name: &str) -> PodKey {
    PodKey { namespace: "test".into(), name: name.into() }
}

fn pod(name: &str, app: &str, ips: &[&str]) -> PodObject {
    PodObject {
        key: pod_key(name),
        labels: [("app".into(), app.into())].into(),
        service_account: "default".into(),
        host_network: false,
        phase: PodPhase::Running,
        ips: ips.iter().map(|ip| addr(ip)).collect(),
        host_ip: Some(addr("192.0.2.1")),
        named_ports: Vec::new(),
    }
}

fn namespace(team: &str, global: &str) -> Object {
    Object::Namespace(NamespaceObject {
        name: "test".into(),
        labels: [("team".into(), team.into())].into(),
        annotations: [("clustermesh.cilium.io/global".into(), global.into())].into(),
    })
}

fn endpoint(name: &str, identity: u32, ip: &str) -> Object {
    let endpoint =
        CiliumEndpointSpec { pod: name.into(), identity, ips: vec![addr(ip)], ..CiliumEndpointSpec::default() };
    Object::CiliumEndpoint(CiliumEndpointObject { namespace: "test".into(), endpoint })
}

#[test]
fn an_address_given_again_is_the_new_pods_when_the_old_one_goes() {
    let mut world = World::new();
    world.put(Object::Pod(pod("old", "a", &["10.1.0.1"])));
    world.put(Object::Pod(pod("new", "b", &["10.1.0.1"])));
    assert_eq!(world.holder("10.1.0.1"), Some("old"), "who came first has it");
    world.delete(ObjectKey::Pod(pod_key("old")));
    assert_eq!(world.holder("10.1.0.1"), Some("new"));
    world.put(Object::Pod(pod("third", "b", &["10.1.0.1"])));
    world.delete(ObjectKey::Pod(pod_key("third")));
    assert_eq!(world.holder("10.1.0.1"), Some("new"), "a claim that never counted goes without trace");
    world.put(Object::Pod(PodObject { phase: PodPhase::Succeeded, ..pod("new", "b", &["10.1.0.1"]) }));
    assert_eq!(world.holder("10.1.0.1"), None, "a Pod that has ended has no address");
    assert_eq!(world.identities.len(), 0);
}

#[test]
fn host_network_pods_have_their_nodes_address() {
    let mut world = World::new();
    let dirty = world.put(Object::Pod(PodObject { host_network: true, ..pod("p", "a", &["192.0.2.1"]) }));
    assert_eq!((dirty.identities.len(), world.addresses.len()), (0, 0));
}

#[test]
fn a_change_of_one_pod_touches_that_pod_alone() {
    let mut world = World::new();
    for n in 0..200 {
        world.put(Object::Pod(pod(&format!("p{n}"), &format!("app{n}"), &[&format!("10.1.0.{n}")])));
    }
    let dirty = world.put(Object::Pod(pod("p7", "app8", &["10.1.0.7"])));
    assert_eq!(dirty.identities.len(), 2, "the number it had, and the one it has: {dirty:?}");
    assert_eq!(dirty.addresses, BTreeSet::from([addr("10.1.0.7")]));
    assert_eq!(world.put(Object::Pod(pod("p7", "app8", &["10.1.0.7"]))), Dirty::default(), "said again");
}

#[test]
fn a_namespace_renumbers_its_pods_and_takes_them_along() {
    let mut world = World::new();
    world.put(Object::Pod(pod("p", "a", &["10.1.0.1"])));
    let number = world.addresses[&addr("10.1.0.1")].identity;
    world.put(namespace("blue", "true"));
    let blue = world.addresses[&addr("10.1.0.1")].identity;
    assert_ne!(number, blue, "its Namespace's labels are part of its identity");
    assert_eq!(world.identities.keys().copied().collect::<Vec<_>>(), [blue]);
    world.put(namespace("blue", "false"));
    assert_eq!((world.identities.len(), world.addresses.len()), (0, 0));
    world.put(namespace("blue", "true"));
    assert_eq!(world.addresses[&addr("10.1.0.1")].identity, blue, "the number it had");
    world.delete(ObjectKey::Namespace("test".into()));
    assert_eq!((world.identities.len(), world.addresses.len()), (0, 0));
}

#[test]
fn cilium_says_it_all_while_any_of_its_objects_is_there() {
    let mut world = World::new();
    world.put(Object::Pod(pod("p", "a", &["10.1.0.1"])));
    world.put(endpoint("p", 70_000, "10.1.0.2"));
    assert_eq!((world.holder("10.1.0.1"), world.holder("10.1.0.2")), (None, Some("p")));
    assert_eq!(world.identities.len(), 0, "Cilium has said none");
    let label = LabelSet::of_pod(&pod("p", "a", &[]), &Labels::new(), &config().cluster).labels().to_vec();
    world.put(Object::CiliumIdentity(CiliumIdentityObject { number: 70_000, labels: label }));
    world.put(Object::CiliumIdentity(CiliumIdentityObject { number: 70_001, labels: Vec::new() }));
    assert_eq!(world.identities.keys().copied().collect::<Vec<_>>(), [70_000], "one without labels is none");
    world.put(namespace("blue", "false"));
    assert_eq!((world.identities.len(), world.addresses.len()), (0, 0));
    world.put(Object::Namespace(NamespaceObject {
        name: "test".into(),
        labels: Labels::new(),
        annotations: Labels::new(),
    }));
    assert_eq!((world.identities.len(), world.addresses.len()), (1, 1));
    world.delete(ObjectKey::CiliumEndpoint(pod_key("p")));
    world.delete(ObjectKey::CiliumIdentity(70_000));
    world.delete(ObjectKey::CiliumIdentity(70_001));
    assert_ne!(
        world.addresses[&addr("10.1.0.1")].identity,
        70_000,
        "without Cilium the Pod has a number of ours again"
    );
    assert_eq!(world.exporter.take_kept_changes().len(), 2, "the one of before is kept no longer, the new one is");
}

#[test]
fn nothing_is_said_before_the_first_complete_set() {
    let mut exporter = Exporter::new(config());
    exporter.apply(SourceEvent::Upsert(Object::Pod(pod("p", "a", &["10.1.0.1"]))));
    assert!(exporter.settle().is_empty());
    exporter.apply(SourceEvent::Upsert(namespace("blue", "true")));
    exporter.apply(SourceEvent::Complete);
    let dirty = exporter.settle();
    assert_eq!(dirty.identities.len(), 1, "the Namespace's labels were known: {dirty:?}");
    assert_eq!(exporter.all().identities, dirty.identities);
}

#[test]
fn pods_beyond_the_last_number_wait_and_nothing_else_suffers() {
    let config = ExporterConfig { max: MaxClusters::C511, ..config() };
    let mut world = World::of(config.clone());
    let range = config.max.identities(config.id);
    world.exporter.remember_identities(range.clone().map(|number| {
        let filler = PodObject { labels: [("a".into(), number.to_string())].into(), ..pod("x", "", &[]) };
        (number, LabelSet::of_pod(&filler, &Labels::new(), &config.cluster))
    }));
    for number in range {
        let name = format!("f{number}");
        let filler = PodObject { labels: [("a".into(), number.to_string())].into(), ..pod(&name, "", &[]) };
        world.exporter.apply(SourceEvent::Upsert(Object::Pod(filler)));
    }
    world.exporter.settle();
    world.put(Object::Pod(pod("one", "a", &["10.1.0.1"])));
    world.put(Object::Pod(pod("two", "a", &["10.1.0.2"])));
    let (waiting, why) = world.exporter.unnumbered();
    assert_eq!(waiting.map(ToString::to_string).collect::<Vec<_>>(), ["test/one", "test/two"]);
    assert_eq!((why.count, why.first, why.last), (32_768, 32_768, 65_535));
    assert_eq!(world.holder("10.1.0.1"), None);
    world.delete(ObjectKey::Pod(pod_key("f40000")));
    assert_eq!(world.addresses[&addr("10.1.0.1")].identity, 40_000, "the number that came free");
    assert_eq!(world.addresses[&addr("10.1.0.2")].identity, 40_000, "and with it all of the same labels");
}

#[derive(Clone, Debug)]
enum Step {
    Pod { name: usize, app: usize, ips: Vec<u8>, host: bool, ended: bool },
    NoPod(usize),
    Namespace(bool, usize),
    NoNamespace,
    Endpoint { name: usize, ip: u8 },
    NoEndpoint(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let rare = || prop::bool::weighted(0.1);
    prop_oneof![
        6 => (0..4_usize, 0..3_usize, vec(0..4_u8, 0..3), rare(), rare())
            .prop_map(|(name, app, ips, host, ended)| Step::Pod { name, app, ips, host, ended }),
        3 => (0..4_usize).prop_map(Step::NoPod),
        1 => (any::<bool>(), 0..2_usize).prop_map(|(global, team)| Step::Namespace(global, team)),
        1 => Just(Step::NoNamespace),
        1 => (0..2_usize, 0..4_u8).prop_map(|(name, ip)| Step::Endpoint { name, ip }),
        2 => (0..2_usize).prop_map(Step::NoEndpoint),
    ]
}

fn event(step: &Step) -> SourceEvent {
    let name = |n: &usize| format!("p{n}");
    let ip = |n: u8| format!("10.1.0.{n}");
    match step {
        Step::Pod { name: n, app, ips, host, ended } => {
            let ips: Vec<String> = ips.iter().map(|n| ip(*n)).collect();
            let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
            let phase = if *ended { PodPhase::Failed } else { PodPhase::Running };
            let pod = pod(&name(n), &format!("app{app}"), &ips);
            SourceEvent::Upsert(Object::Pod(PodObject { phase, host_network: *host, ..pod }))
        }
        Step::NoPod(n) => SourceEvent::Delete(ObjectKey::Pod(pod_key(&name(n)))),
        Step::Namespace(global, team) => {
            SourceEvent::Upsert(namespace(&format!("team{team}"), if *global { "true" } else { "false" }))
        }
        Step::NoNamespace => SourceEvent::Delete(ObjectKey::Namespace("test".into())),
        Step::Endpoint { name: n, ip: n_ip } => SourceEvent::Upsert(endpoint(&name(n), 70_000, &ip(*n_ip))),
        Step::NoEndpoint(n) => SourceEvent::Delete(ObjectKey::CiliumEndpoint(pod_key(&name(n)))),
    }
}

/// What there is, without any order.
#[derive(Default)]
struct Model {
    pods: BTreeMap<PodKey, PodObject>,
    endpoints: BTreeSet<PodKey>,
    labels: Labels,
    open: bool,
}

impl Model {
    fn take(&mut self, event: &SourceEvent) {
        match event {
            SourceEvent::Upsert(Object::Pod(pod)) => drop(self.pods.insert(pod.key.clone(), pod.clone())),
            SourceEvent::Delete(ObjectKey::Pod(key)) => drop(self.pods.remove(key)),
            SourceEvent::Upsert(Object::Namespace(namespace)) => {
                self.labels = namespace.labels.clone();
                self.open = namespace.annotations.values().all(|value| value == "true");
            }
            SourceEvent::Delete(_) if matches!(event, SourceEvent::Delete(ObjectKey::Namespace(_))) => {
                // A Namespace that never was is open; one that goes takes its Pods along.
                self.open &= self.labels.is_empty();
            }
            SourceEvent::Upsert(Object::CiliumEndpoint(e)) => drop(self.endpoints.insert(e.key())),
            SourceEvent::Delete(ObjectKey::CiliumEndpoint(key)) => drop(self.endpoints.remove(key)),
            _ => {}
        }
    }

    /// Pods that count, with their labels.
    fn counting(&self) -> impl Iterator<Item = (&PodObject, LabelSet)> {
        let pods = self.pods.values().filter(|pod| !pod.host_network && !pod.phase.is_terminal());
        let pods = pods.filter(|_| self.open && self.endpoints.is_empty());
        pods.map(|pod| (pod, LabelSet::of_pod(pod, &self.labels, &config().cluster)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_store_is_what_the_pods_are(steps in vec(step(), 1..40)) {
        let mut world = World::new();
        let mut model = Model { open: true, ..Model::default() };
        for step in &steps {
            let event = event(step);
            model.take(&event);
            world.say(event);
            let claimed: BTreeSet<Addr> = model.counting().flat_map(|(pod, _)| pod.ips.clone()).collect();
            let sets: BTreeSet<LabelSet> = model.counting().map(|(_, set)| set).collect();
            if model.endpoints.is_empty() {
                prop_assert_eq!(world.addresses.keys().copied().collect::<BTreeSet<_>>(), claimed);
                let told: Vec<_> = world.identities.values().map(|record| LabelSet::new(record.labels.clone())).collect();
                prop_assert_eq!(told.len(), sets.len());
                prop_assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), sets);
            }
            for (addr, record) in &world.addresses {
                let Some(record_of) = world.identities.get(&record.identity) else { continue };
                let key = PodKey { namespace: record.namespace.clone(), name: record.pod.clone() };
                let holds = model.counting().any(|(pod, set)| {
                    pod.key == key && pod.ips.contains(addr) && set.labels() == record_of.labels
                });
                prop_assert!(holds, "{addr} is not {key}'s");
            }
            let all = world.exporter.all();
            let now: BTreeMap<u32, _> =
                all.identities.iter().filter_map(|n| Some((*n, world.exporter.exported_identity(*n)?))).collect();
            prop_assert_eq!(&now, &world.identities, "everything that changed was said");
            let now: BTreeMap<Addr, _> =
                all.addresses.iter().filter_map(|a| Some((*a, world.exporter.exported_address(*a)?))).collect();
            prop_assert_eq!(&now, &world.addresses, "everything that changed was said");
        }
    }
}
