//! Objects in, records out. The first cases are those that Cilium 1.20.2's own apiserver was run on, by their names.

mod fixture;

use expect_test::expect;
use fixture::{Case, endpoint, namespace, node, service, slice};
use tombolo_core::export::Dirty;
use tombolo_core::id::{Addr, ServiceKey};
use tombolo_core::model::{Conditions, InternalTrafficPolicy};
use tombolo_core::object::{Object, ObjectKey, ServiceKind, SourceEvent};

const GLOBAL: (&str, &str) = ("service.cilium.io/global", "true");
const SHARED: (&str, &str) = ("service.cilium.io/shared", "false");

fn key() -> ServiceKey {
    ServiceKey::new("test", "echo")
}

fn slice_key(name: &str) -> ObjectKey {
    ObjectKey::Slice { namespace: "test".into(), name: name.into() }
}

/// The slice of most cases: one endpoint ready with zone and hints, one not ready.
fn echo_1() -> Object {
    let ready = endpoint("10.244.1.1").conditions(true, true, false).node("worker").zone("zone1", &["zone1"]);
    let not = endpoint("10.244.1.2").conditions(false, false, false).node("worker");
    slice("echo-1").endpoints([ready, not]).port("http/TCP/8080").into()
}

fn echo() -> Object {
    service().annotations(&[GLOBAL]).into()
}

#[test]
fn service_without_slices() {
    Case::default()
        .put(echo())
        .legacy(expect![[r#"
        test/echo labels selector name=echo
        frontend 10.96.50.104 http/TCP/80"#]])
        .slices(expect![]);
}

#[test]
fn service_lifecycle() {
    let mut case = Case::default();
    case.put(echo())
        .put(echo_1())
        .legacy(expect![[r#"
        test/echo labels selector name=echo
        frontend 10.96.50.104 http/TCP/80
        backend 10.244.1.1 http/TCP/8080 zone=zone1 for Some(["zone1"])"#]])
        .slices(expect![[r#"
        test/echo-1 V4 http/TCP/8080 labels kubernetes.io/service-name=echo
          ["10.244.1.1"] true,true,false - worker zone1 for ["zone1"]
          ["10.244.1.2"] false,false,false - worker - for []"#]]);
    let moved = endpoint("10.244.1.9").conditions(true, true, false);
    case.put(slice("echo-1").endpoints([moved]).port("http/TCP/8081").into()).legacy(expect![[r#"
        test/echo labels selector name=echo
        frontend 10.96.50.104 http/TCP/80
        backend 10.244.1.9 http/TCP/8081"#]]);
    case.delete(slice_key("echo-1"))
        .legacy(expect![[r#"
        test/echo labels selector name=echo
        frontend 10.96.50.104 http/TCP/80"#]])
        .slices(expect![]);
    case.delete(ObjectKey::Service(key())).legacy(expect!["absent"]).own(expect!["absent"]);
}

#[test]
fn slice_before_service() {
    let mut case = Case::default();
    case.put(echo_1()).legacy(expect!["absent"]).slices(expect![]).own(expect!["absent"]);
    case.put(echo())
        .legacy(expect![[r#"
        test/echo labels selector name=echo
        frontend 10.96.50.104 http/TCP/80
        backend 10.244.1.1 http/TCP/8080 zone=zone1 for Some(["zone1"])"#]])
        .own(expect![[r#"
        test/echo [10.96.50.104] http/TCP/80 Mesh
        echo-1
          10.244.1.1 http/TCP/8080 Active, was ready, 100 worker zone1 for ["zone1"]
          10.244.1.2 http/TCP/8080 Maintenance, never ready, 100 worker - for []"#]]);
}

#[test]
fn toggling_global_and_shared() {
    let mut case = Case::default();
    case.put(echo_1()).put(service().into()).legacy(expect!["absent"]).own(expect!["absent"]);
    case.put(service().annotations(&[GLOBAL, SHARED]).into());
    case.legacy(expect!["absent"]).slices(expect![]).own(expect![[r#"
        test/echo [10.96.50.104] http/TCP/80 Import
        echo-1
          10.244.1.1 http/TCP/8080 Active, was ready, 100 worker zone1 for ["zone1"]
          10.244.1.2 http/TCP/8080 Maintenance, never ready, 100 worker - for []"#]]);
    case.put(service().annotations(&[("io.cilium/global-service", "True")]).into()).legacy(expect![[r#"
        test/echo labels selector name=echo
        frontend 10.96.50.104 http/TCP/80
        backend 10.244.1.1 http/TCP/8080 zone=zone1 for Some(["zone1"])"#]]);
}

#[test]
fn namespace_global_flip() {
    let mut case = Case::default();
    case.put(namespace(Some("false"))).put(echo_1()).put(echo());
    case.legacy(expect!["absent"]).slices(expect![]).own(expect![[r#"
        test/echo [10.96.50.104] http/TCP/80 Mesh
        echo-1
          10.244.1.1 http/TCP/8080 Active, was ready, 100 worker zone1 for ["zone1"]
          10.244.1.2 http/TCP/8080 Maintenance, never ready, 100 worker - for []"#]]);
    case.put(namespace(Some("true"))).dirty(expect!["test/echo"]).legacy(expect![[r#"
        test/echo labels selector name=echo
        frontend 10.96.50.104 http/TCP/80
        backend 10.244.1.1 http/TCP/8080 zone=zone1 for Some(["zone1"])"#]]);
    case.put(namespace(None)).dirty(expect![]).legacy(expect![[r#"
        test/echo labels selector name=echo
        frontend 10.96.50.104 http/TCP/80
        backend 10.244.1.1 http/TCP/8080 zone=zone1 for Some(["zone1"])"#]]);
    case.put(namespace(Some("no"))).dirty(expect!["test/echo"]).legacy(expect!["absent"]).slices(expect![]);
}

#[test]
fn namespace_default_not_global() {
    let mut case = Case::cluster_by_default();
    case.put(namespace(None)).put(echo_1()).put(echo()).legacy(expect!["absent"]);
    case.put(namespace(Some("true"))).legacy(expect![[r#"
        test/echo labels selector name=echo
        frontend 10.96.50.104 http/TCP/80
        backend 10.244.1.1 http/TCP/8080 zone=zone1 for Some(["zone1"])"#]]);
}

#[test]
fn namespace_deleted() {
    let mut case = Case::default();
    case.put(namespace(None)).put(echo_1()).put(echo()).delete(ObjectKey::Namespace("test".into()));
    case.dirty(expect!["test/echo"])
        .legacy(expect![[r#"
        test/echo labels selector name=echo
        frontend 10.96.50.104 http/TCP/80
        backend 10.244.1.1 http/TCP/8080 zone=zone1 for Some(["zone1"])"#]])
        .slices(expect![])
        .own(expect![[r#"
        test/echo [10.96.50.104] http/TCP/80 Mesh
        echo-1
          10.244.1.1 http/TCP/8080 Active, was ready, 100 worker zone1 for ["zone1"]
          10.244.1.2 http/TCP/8080 Maintenance, never ready, 100 worker - for []"#]]);
    case.put(namespace(None)).dirty(expect!["test/echo"]).slices(expect![[r#"
        test/echo-1 V4 http/TCP/8080 labels kubernetes.io/service-name=echo
          ["10.244.1.1"] true,true,false - worker zone1 for ["zone1"]
          ["10.244.1.2"] false,false,false - worker - for []"#]]);
    case.put(namespace(Some("false"))).delete(ObjectKey::Namespace("test".into())).legacy(expect!["absent"]);
    case.delete(ObjectKey::Namespace("test".into())).dirty(expect![]).legacy(expect!["absent"]);
}

#[test]
fn conditions_matrix() {
    let of = |ready, serving, terminating| Conditions { ready, serving, terminating };
    let matrix = [
        of(Some(true), Some(true), Some(false)),
        of(Some(false), Some(true), Some(true)),
        of(Some(false), Some(false), Some(true)),
        of(Some(false), Some(true), Some(false)),
        of(None, None, None),
        of(None, None, None),
        of(Some(true), None, Some(true)),
        of(None, Some(false), None),
        of(Some(false), None, None),
    ];
    let endpoints = matrix.into_iter().zip(1..).map(|(conditions, n)| {
        let mut endpoint = endpoint(&format!("10.244.1.{n}"));
        endpoint.0.conditions = conditions;
        endpoint
    });
    let slice = slice("echo-1").endpoints(endpoints).port("http/TCP/8080");
    let mut case = Case::default();
    case.put(echo())
        .put(slice.into())
        .legacy(expect![[r#"
        test/echo labels selector name=echo
        frontend 10.96.50.104 http/TCP/80
        backend 10.244.1.1 http/TCP/8080
        backend 10.244.1.2 http/TCP/8080
        backend 10.244.1.4 http/TCP/8080
        backend 10.244.1.5 http/TCP/8080
        backend 10.244.1.6 http/TCP/8080
        backend 10.244.1.7 http/TCP/8080
        backend 10.244.1.8 http/TCP/8080
        backend 10.244.1.9 http/TCP/8080"#]])
        .slices(expect![[r#"
        test/echo-1 V4 http/TCP/8080 labels kubernetes.io/service-name=echo
          ["10.244.1.1"] true,true,false - - - for []
          ["10.244.1.2"] false,true,true - - - for []
          ["10.244.1.3"] false,false,true - - - for []
          ["10.244.1.4"] false,true,false - - - for []
          ["10.244.1.5"] -,-,- - - - for []
          ["10.244.1.6"] -,-,- - - - for []
          ["10.244.1.7"] true,-,true - - - for []
          ["10.244.1.8"] -,false,- - - - for []
          ["10.244.1.9"] false,-,- - - - for []"#]])
        .own(expect![[r#"
            test/echo [10.96.50.104] http/TCP/80 Mesh
            echo-1
              10.244.1.1 http/TCP/8080 Active, was ready, 100 - - for []
              10.244.1.2 http/TCP/8080 Terminating, was ready, 100 - - for []
              10.244.1.3 http/TCP/8080 Gone, never ready, 100 - - for []
              10.244.1.4 http/TCP/8080 Maintenance, never ready, 100 - - for []
              10.244.1.5 http/TCP/8080 Active, was ready, 100 - - for []
              10.244.1.6 http/TCP/8080 Active, was ready, 100 - - for []
              10.244.1.7 http/TCP/8080 Active, was ready, 100 - - for []
              10.244.1.8 http/TCP/8080 Active, was ready, 100 - - for []
              10.244.1.9 http/TCP/8080 Maintenance, never ready, 100 - - for []"#]]);
}

#[test]
fn dual_stack() {
    let mut case = Case::default();
    let ports = ["http/TCP/80", "dns/UDP/53"];
    case.put(service().annotations(&[GLOBAL]).ips(&["10.96.50.104", "fd00:10:96::68"]).ports(&ports).into());
    let v4 = slice("echo-4").endpoints([endpoint("10.244.1.1")]).port("http/TCP/8080").port("dns/UDP/5353");
    let v6 = slice("echo-6").endpoints([endpoint("fd00:10:244::1")]).port("http/TCP/8080").port("dns/UDP/5353");
    case.put(v4.into())
        .put(v6.into())
        .legacy(expect![[r#"
        test/echo labels selector name=echo
        frontend 10.96.50.104 dns/UDP/53 http/TCP/80
        frontend fd00:10:96::68 dns/UDP/53 http/TCP/80
        backend 10.244.1.1 dns/UDP/5353 http/TCP/8080
        backend fd00:10:244::1 dns/UDP/5353 http/TCP/8080"#]])
        .own(expect![[r#"
        test/echo [10.96.50.104, fd00:10:96::68] http/TCP/80 dns/UDP/53 Mesh
        echo-4
          10.244.1.1 http/TCP/8080 dns/UDP/5353 Active, was ready, 100 - - for []
        echo-6
          fd00:10:244::1 http/TCP/8080 dns/UDP/5353 Active, was ready, 100 - - for []"#]]);
}

#[test]
fn headless() {
    let mut case = Case::default();
    let mut db = service().annotations(&[GLOBAL]).ips(&[]).ports(&["db/TCP/5432"]);
    db.0.kind = ServiceKind::Headless;
    let endpoints = [endpoint("10.244.1.1").hostname("db-0"), endpoint("10.244.1.2").hostname("db-1")];
    case.put(db.into()).put(slice("echo-1").endpoints(endpoints).port("db/TCP/5432").into());
    case.legacy(expect![[r#"
        test/echo labels selector name=echo
        backend 10.244.1.1 db/TCP/5432 host=db-0
        backend 10.244.1.2 db/TCP/5432 host=db-1"#]])
        .own(expect![[r#"
        test/echo [] db/TCP/5432 Mesh
        echo-1
          10.244.1.1 db/TCP/5432 Active, was ready, 100 - - for []
          10.244.1.2 db/TCP/5432 Active, was ready, 100 - - for []"#]]);
}

#[test]
fn labels_are_copied() {
    let mut labelled = service().annotations(&[GLOBAL]);
    labelled.0.labels = fixture::labels(&[("app", "echo"), ("team", "é<&>")]);
    Case::default().put(labelled.into()).legacy(expect![[r#"
        test/echo labels app=echo team=é<&> selector name=echo
        frontend 10.96.50.104 http/TCP/80"#]]);
}

#[test]
fn unnamed_port() {
    let unnamed = slice("echo-1").endpoints([endpoint("10.244.1.1")]).port("/TCP/8080");
    let mut case = Case::default();
    case.put(service().annotations(&[GLOBAL]).ports(&["/TCP/80"]).into()).put(unnamed.into());
    case.legacy(expect![[r#"
        test/echo labels selector name=echo
        frontend 10.96.50.104 /TCP/80
        backend 10.244.1.1 /TCP/8080"#]])
        .slices(expect![[r#"
        test/echo-1 V4 /TCP/8080 labels kubernetes.io/service-name=echo
          ["10.244.1.1"] true,-,- - - - for []"#]]);
}

#[test]
fn same_address_two_slices() {
    let mut case = Case::default();
    case.put(echo());
    case.put(slice("echo-2").endpoints([endpoint("10.244.1.1")]).port("https/TCP/8443").into());
    case.put(slice("echo-1").endpoints([endpoint("10.244.1.1")]).port("http/TCP/8080").into());
    case.legacy(expect![[r#"
        test/echo labels selector name=echo
        frontend 10.96.50.104 http/TCP/80
        backend 10.244.1.1 https/TCP/8443"#]])
        .own(expect![[r#"
        test/echo [10.96.50.104] http/TCP/80 Mesh
        echo-1
          10.244.1.1 http/TCP/8080 Active, was ready, 100 - - for []
        echo-2
          10.244.1.1 https/TCP/8443 Active, was ready, 100 - - for []"#]]);
}

#[test]
fn slice_weight_annotation() {
    let weighted = |weight| {
        let mut weighted = slice("echo-1").endpoints([endpoint("10.244.1.1")]).port("http/TCP/8080");
        weighted.0.annotations = fixture::labels(&[("other", "x"), ("service.cilium.io/weight", weight)]);
        Object::from(weighted)
    };
    let mut case = Case::default();
    case.put(echo())
        .put(weighted("50"))
        .slices(expect![[r#"
        test/echo-1 V4 http/TCP/8080 labels kubernetes.io/service-name=echo other=x service.cilium.io/weight=50
          ["10.244.1.1"] true,-,- - - - for []"#]])
        .own(expect![[r#"
        test/echo [10.96.50.104] http/TCP/80 Mesh
        echo-1
          10.244.1.1 http/TCP/8080 Active, was ready, 50 - - for []"#]]);
    case.put(weighted("0")).own(expect![[r#"
        test/echo [10.96.50.104] http/TCP/80 Mesh
        echo-1
          10.244.1.1 http/TCP/8080 Maintenance, was ready, 0 - - for []"#]]);
    case.put(weighted("much"))
        .own(expect![[r#"
        test/echo [10.96.50.104] http/TCP/80 Mesh
        echo-1
          10.244.1.1 http/TCP/8080 Active, was ready, 100 - - for []"#]])
        .warnings(expect![[r#"annotation service.cilium.io/weight: "much" is not 0 to 65535; 100 applies"#]]);
}

#[test]
fn zones_without_hints_and_hints_without_a_zone() {
    let endpoints = [endpoint("10.244.1.1").zone("zone1", &[]), endpoint("10.244.1.2").zone("", &["zone1"])];
    let mut case = Case::default();
    case.put(echo()).put(slice("echo-1").endpoints(endpoints).port("http/TCP/8080").into());
    case.legacy(expect![[r#"
        test/echo labels selector name=echo
        frontend 10.96.50.104 http/TCP/80
        backend 10.244.1.1 http/TCP/8080 zone=zone1 for Some([])
        backend 10.244.1.2 http/TCP/8080"#]]);
}

#[test]
fn an_external_name_is_never_a_source() {
    let mut external = service().annotations(&[GLOBAL]);
    external.0.kind = ServiceKind::ExternalName;
    let mut case = Case::default();
    case.put(external.into()).put(echo_1()).legacy(expect!["absent"]).slices(expect![]).own(expect!["absent"]);
}

#[test]
fn what_mirrors_a_peer_is_never_a_source() {
    let mut case = Case::default();
    case.put(echo()).put(echo_1());
    let mirror = |label: &str, value: &str| {
        let mut mirror = slice("echo-1").endpoints([endpoint("10.9.9.9")]).port("http/TCP/8080");
        mirror.0.labels.insert(label.into(), value.into());
        Object::from(mirror)
    };
    // The label on a slice that was a source takes it back.
    case.put(mirror("multicluster.kubernetes.io/source-cluster", "east")).dirty(expect!["test/echo"]);
    case.slices(expect![]).own(expect!["test/echo [10.96.50.104] http/TCP/80 Mesh"]);
    let managed_by = "endpointslice.kubernetes.io/managed-by";
    case.put(mirror(managed_by, "endpointslice-mesh-controller.cilium.io")).slices(expect![]);
    case.put(mirror(managed_by, "endpointslice-controller.k8s.io")).legacy(expect![[r#"
        test/echo labels selector name=echo
        frontend 10.96.50.104 http/TCP/80
        backend 10.9.9.9 http/TCP/8080"#]]);
}

#[test]
fn a_slice_that_changes_its_service_dirties_both() {
    let mut case = Case::default();
    case.put(echo()).put(echo_1());
    let mut other = slice("echo-1").endpoints([endpoint("10.244.1.1")]).port("http/TCP/8080");
    other.0.labels.insert("kubernetes.io/service-name".into(), "other".into());
    case.put(other.into()).dirty(expect!["test/echo test/other"]).slices(expect![]);
}

#[test]
fn once_ready_in_an_earlier_life_is_remembered_until_the_first_complete_set() {
    let unready = |name: &str, addr: &str| {
        Object::from(slice(name).endpoints([endpoint(addr).conditions(false, false, false)]).port("http/TCP/8080"))
    };
    let mut case = Case::default();
    let ready = ["10.244.1.1", "10.244.1.2", "10.244.1.3"].map(|addr| addr.parse().unwrap());
    case.exporter.remember(key(), ready.into());
    case.put(echo()).put(unready("echo-1", "10.244.1.1")).put(unready("echo-2", "10.244.1.2"));
    case.exporter.apply(SourceEvent::Complete);
    case.put(unready("echo-3", "10.244.1.3")).own(expect![[r#"
        test/echo [10.96.50.104] http/TCP/80 Mesh
        echo-1
          10.244.1.1 http/TCP/8080 Maintenance, was ready, 100 - - for []
        echo-2
          10.244.1.2 http/TCP/8080 Maintenance, was ready, 100 - - for []
        echo-3
          10.244.1.3 http/TCP/8080 Maintenance, never ready, 100 - - for []"#]]);
}

#[test]
fn once_ready_is_remembered_while_the_address_is_there() {
    let at = |ready| {
        let endpoint = endpoint("10.244.1.1").conditions(ready, ready, false);
        Object::from(slice("echo-1").endpoints([endpoint]).port("http/TCP/8080"))
    };
    let mut case = Case::default();
    case.put(echo()).put(at(false)).own(expect![[r#"
        test/echo [10.96.50.104] http/TCP/80 Mesh
        echo-1
          10.244.1.1 http/TCP/8080 Maintenance, never ready, 100 - - for []"#]]);
    case.put(at(true)).put(at(false)).own(expect![[r#"
        test/echo [10.96.50.104] http/TCP/80 Mesh
        echo-1
          10.244.1.1 http/TCP/8080 Maintenance, was ready, 100 - - for []"#]]);
    case.delete(slice_key("echo-1")).put(at(false)).own(expect![[r#"
        test/echo [10.96.50.104] http/TCP/80 Mesh
        echo-1
          10.244.1.1 http/TCP/8080 Maintenance, never ready, 100 - - for []"#]]);
}

#[test]
fn policy_reaches_the_own_agents() {
    let mut sticky = service().annotations(&[GLOBAL, ("service.cilium.io/affinity", "local")]);
    sticky.0.client_ip_seconds = Some(42);
    sticky.0.internal_traffic_policy = InternalTrafficPolicy::Local;
    let mut case = Case::default();
    case.put(sticky.into()).policy(expect![[r#"
        Policy {
            reach: Mesh,
            affinity: Local,
            internal_traffic_policy: Local,
            no_backend: Refuse,
            on_stale: LastResort,
            stale_after_ms: None,
            publish_not_ready: false,
            client_ip_seconds: Some(
                42,
            ),
        }
    "#]]);
    assert!(case.exporter.imports(&key()));
}

#[test]
fn said_again_nothing_is_dirty() {
    let mut case = Case::default();
    case.put(namespace(None)).put(echo()).put(echo_1()).put(node("n1").into());
    for object in [namespace(None), echo(), echo_1(), node("n1").into()] {
        case.put(object).dirty(expect![]);
    }
    case.delete(ObjectKey::Node("unknown".into())).dirty(expect![]);
    assert_eq!(case.exporter.apply(SourceEvent::Complete), Dirty::default());
    assert_eq!(case.exporter.all().services.len() + case.exporter.all().nodes.len(), 2);
}

#[test]
fn nodes() {
    let mut n1 = node("n1");
    n1.0.labels = fixture::labels(&[("kubernetes.io/hostname", "n1"), ("topology.kubernetes.io/zone", "zone1")]);
    let key = ("network.cilium.io/wg-pub-key", "VRksOB6ZNds4oXWIGfSVpvc0gBhcOWFmzvTDcyvULlI=");
    n1.0.annotations = fixture::labels(&[key, ("volumes.kubernetes.io/controller-managed-attach-detach", "true")]);
    n1.0.addresses = vec![
        ("InternalIP".into(), "172.18.0.2".parse().unwrap()),
        ("ExternalIP".into(), "203.0.113.5".parse().unwrap()),
    ];
    n1.0.pod_cidrs = ["10.244.0.0/24", "fd00:10:244::/64", "10.245.0.0/24"].map(|net| net.parse().unwrap()).into();
    n1.0.boot_id = "b-1".into();
    let mut case = Case::default();
    case.put(n1.into()).put(node("n2").into()).dirty(expect!["n2"]);
    case.node(
        "n1",
        expect![[r#"
        n1 [("InternalIP", "172.18.0.2"), ("ExternalIP", "203.0.113.5")]
        pods 10.244.0.0/24 10.245.0.0/24
        pods fd00:10:244::/64
        labels kubernetes.io/hostname=n1 topology.kubernetes.io/zone=zone1
        annotations network.cilium.io/wg-pub-key=VRksOB6ZNds4oXWIGfSVpvc0gBhcOWFmzvTDcyvULlI=
        key "VRksOB6ZNds4oXWIGfSVpvc0gBhcOWFmzvTDcyvULlI=" boot "b-1"
        own NodeInfo { zone: Some("zone1"), addresses: [172.18.0.2, 203.0.113.5] }"#]],
    )
    .node(
        "n2",
        expect![[r#"
        n2 []
        pods
        pods
        labels null
        annotations null
        key "" boot ""
        own NodeInfo { zone: None, addresses: [] }"#]],
    );
    assert_eq!(case.exporter.pod_cidrs().len(), 3);
    assert!(case.exporter.node_addresses().contains(&"172.18.0.2".parse::<Addr>().unwrap()));
    case.delete(ObjectKey::Node("n1".into())).dirty(expect!["n1"]).node("n1", expect!["absent"]);
}
