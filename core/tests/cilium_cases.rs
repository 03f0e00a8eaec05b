//! Cilium's own cases of merging and affinity, by their names in its tests' table (M: merge, A: affinity).
//!
//! Service `test/echo` dials 172.20.0.1:8080, port `tcp`; it is seen from node `n1` of C1. Left out, for they test
//! other parts: A13 (a bug of Cilium up to 1.19). M9's second form and A15–A17's exports are decided before merge, so
//! here they are what then arrives.

use expect_test::{Expect, expect};
use tombolo_core::hold::Standing;
use tombolo_core::id::Millis;
use tombolo_core::mesh::{Change, Mesh};
use tombolo_core::model::{BackendState, Endpoint, Policy, Port, ServiceSpec, Slice};
use tombolo_core::object::{Labels, ServiceKind, ServiceObject};
use tombolo_core::own::MeshSlice;
use tombolo_core::policy;
use tombolo_testkit::fixture::{addr, cluster, endpoint, id, key, ports};

const ECHO: &str = "test/echo";
const GLOBAL: &str = "service.cilium.io/global=true";

/// The mesh of one case; every step is a line of text.
struct Case {
    mesh: Mesh,
    log: String,
}

impl Case {
    fn new() -> Self {
        Self { mesh: Mesh::new("n1".into(), cluster("c1"), id(1)), log: String::new() }
    }

    fn apply(mut self, change: Change) -> Self {
        self.mesh.apply(change, Millis(0));
        self
    }

    /// The local Service has these annotations.
    fn service(self, annotations: &str) -> Self {
        let spec = spec(annotations, "tcp:8080");
        self.apply(Change::Service(key(ECHO), Some(spec)))
    }

    /// The local slice holds these endpoints.
    fn local(self, endpoints: &str) -> Self {
        let value = Some(Slice { endpoints: parse(endpoints) });
        self.apply(Change::Local { service: key(ECHO), slice: "s".into(), value, revision: 1 })
    }

    /// Cluster C`n`'s record holds these endpoints; `None` is a deletion, or `shared: false`.
    fn remote(self, n: u32, endpoints: Option<&str>) -> Self {
        let slice = |text| MeshSlice { cluster_id: id(n), revision: 1, slice: Slice { endpoints: parse(text) } };
        self.apply(Change::Remote {
            service: key(ECHO),
            cluster: cluster(&format!("c{n}")),
            slice: "s".into(),
            value: endpoints.map(slice),
            standing: Standing::Sure,
        })
    }

    /// Writes down what is chosen now, and a `*` behind what serves.
    fn then(mut self, what: &str) -> Self {
        let chosen = self.mesh.select(&key(ECHO)).map_or_else(
            || "no frontend".to_owned(),
            |selection| {
                let of = |f: &tombolo_core::select::FrontendSelection| {
                    let chosen = selection.candidates.iter().zip(&f.verdicts).filter(|(_, v)| v.chosen);
                    let texts = chosen.map(|(c, v)| format!(" {}{}", c.key, if v.slots > 0 { "*" } else { "" }));
                    format!("{}:{}", f.frontend.port, texts.collect::<String>().replace("/TCP", ""))
                };
                selection.frontends.iter().map(of).collect::<Vec<_>>().join(" | ")
            },
        );
        self.log += &format!("{what}: {chosen}\n");
        self
    }

    #[expect(clippy::needless_pass_by_value, reason = "expect![] is a value at every call")]
    fn check(self, expected: Expect) {
        expected.assert_eq(&self.log);
    }
}

fn spec(annotations: &str, on: &str) -> ServiceSpec {
    let pairs = annotations.split_whitespace().filter_map(|pair| pair.split_once('='));
    let ports: Vec<Port> = ports(on).to_vec();
    let object = ServiceObject {
        key: key(ECHO),
        annotations: pairs.map(|(key, value)| (key.into(), value.into())).collect(),
        labels: Labels::new(),
        selector: Labels::new(),
        kind: ServiceKind::ClusterIp,
        cluster_ips: vec![addr("172.20.0.1")],
        ports: ports.clone(),
        internal_traffic_policy: Policy::default().internal_traffic_policy,
        publish_not_ready: false,
        client_ip_seconds: None,
    };
    let (policy, _) = policy::resolve(&object);
    ServiceSpec { key: object.key, cluster_ips: object.cluster_ips, ports, policy }
}

/// Endpoints as `ADDRESS:PORT[=STATE]`, `unhealthy` counting as doubtful; the port's name is `tcp`.
fn parse(text: &str) -> Vec<Endpoint> {
    text.split_whitespace()
        .map(|word| {
            let (target, state) = word.split_once('=').unwrap_or((word, "active"));
            let (address, port) = target.rsplit_once(':').expect("a case's endpoints have ports");
            let plain = endpoint(address, &format!("tcp:{port}"));
            match state {
                "unhealthy" => Endpoint { doubtful: true, ..plain },
                "terminating" => Endpoint { state: BackendState::Terminating, ..plain },
                "gone" => Endpoint { state: BackendState::Gone, ..plain },
                "maintenance" => Endpoint { state: BackendState::Maintenance, ..plain },
                _ => plain,
            }
        })
        .collect()
}

fn m1() -> Case {
    Case::new().service(GLOBAL).local("10.1.0.1:8080").remote(2, Some("20.0.0.2:9090")).remote(3, Some("30.0.0.3:9090"))
}

fn affinity(value: &str) -> Case {
    Case::new().service(&format!("{GLOBAL} service.cilium.io/affinity={value}"))
}

#[test]
fn m1_to_m7_records_come_change_and_go() {
    m1().then("M1")
        .remote(2, Some("20.0.0.2:9090 20.0.0.3:9090"))
        .then("M2")
        .service("service.cilium.io/global=false")
        .then("M3")
        .service(GLOBAL)
        .then("M4")
        .remote(2, None)
        .then("M5")
        .remote(3, None)
        .then("M6")
        .remote(3, Some("30.0.0.3:9090"))
        .remote(3, None)
        .then("M7")
        .check(expect![[r#"
            M1: 8080: 10.1.0.1:8080* 20.0.0.2:9090* 30.0.0.3:9090*
            M2: 8080: 10.1.0.1:8080* 20.0.0.2:9090* 20.0.0.3:9090* 30.0.0.3:9090*
            M3: 8080: 10.1.0.1:8080*
            M4: 8080: 10.1.0.1:8080* 20.0.0.2:9090* 20.0.0.3:9090* 30.0.0.3:9090*
            M5: 8080: 10.1.0.1:8080* 30.0.0.3:9090*
            M6: 8080: 10.1.0.1:8080*
            M7: 8080: 10.1.0.1:8080*
        "#]]);
}

#[test]
fn m8_a_service_without_endpoints_of_its_own() {
    Case::new()
        .service(GLOBAL)
        .remote(2, Some("20.0.0.2:9090"))
        .then("M8")
        .remote(2, None)
        .then("deleted")
        .remote(2, Some("20.0.0.2:9090 20.0.0.3:9090"))
        .then("written again")
        .check(expect![[r#"
            M8: 8080: 20.0.0.2:9090*
            deleted: 8080:
            written again: 8080: 20.0.0.2:9090* 20.0.0.3:9090*
        "#]]);
}

#[test]
fn m9_slices_of_a_peer_join() {
    let piece = |slice: &str, endpoints: &str| Change::Remote {
        service: key(ECHO),
        cluster: cluster("c2"),
        slice: slice.into(),
        value: Some(MeshSlice { cluster_id: id(2), revision: 1, slice: Slice { endpoints: parse(endpoints) } }),
        standing: Standing::Sure,
    };
    m1().apply(piece("s", "20.0.0.2:9090"))
        .then("M1")
        .apply(piece("t", "20.0.0.3:9090"))
        .then("M2")
        .apply(Change::Peer(cluster("c2"), None))
        .then("M5")
        .check(expect![[r#"
            M1: 8080: 10.1.0.1:8080* 20.0.0.2:9090* 30.0.0.3:9090*
            M2: 8080: 10.1.0.1:8080* 20.0.0.2:9090* 20.0.0.3:9090* 30.0.0.3:9090*
            M5: 8080: 10.1.0.1:8080* 30.0.0.3:9090*
        "#]]);
}

#[test]
fn m10_several_names_on_one_port_number() {
    let on = ports("http-alt:80 http-direct:80 http-remapped:80 https:443");
    let at = |address: &str| Endpoint { ports: on.clone(), ..endpoint(address, "") };
    let service = spec(GLOBAL, "http-direct:80 http-remapped:8080 http-alt:9090 https:443");
    Case::new()
        .apply(Change::Service(key(ECHO), Some(service)))
        .apply(Change::Remote {
            service: key(ECHO),
            cluster: cluster("c2"),
            slice: "s".into(),
            value: Some(MeshSlice {
                cluster_id: id(2),
                revision: 1,
                slice: Slice { endpoints: vec![at("20.0.0.2"), at("20.0.0.3")] },
            }),
            standing: Standing::Sure,
        })
        .then("M10")
        .check(expect![[r#"
            M10: 80: 20.0.0.2:80* 20.0.0.3:80* | 443: 20.0.0.2:443* 20.0.0.3:443* | 8080: 20.0.0.2:80* 20.0.0.3:80* | 9090: 20.0.0.2:80* 20.0.0.3:80*
        "#]]);
}

#[test]
fn m11_a_port_name_excludes_for_its_frontend_only() {
    let service = spec(GLOBAL, "tcp:8080 other:8081");
    m1().apply(Change::Service(key(ECHO), Some(service))).then("M11").check(expect![[r#"
        M11: 8080: 10.1.0.1:8080* 20.0.0.2:9090* 30.0.0.3:9090* | 8081:
    "#]]);
}

#[test]
fn m12_a_record_without_a_local_service() {
    let case = Case::new().remote(2, Some("20.0.0.2:9090")).then("M12");
    let unused: Vec<String> = case.mesh.unused_imports().map(|(key, by)| format!("{key} {by:?}")).collect();
    expect![[r#"test/echo {ClusterName("c2")}"#]].assert_eq(&unused.join("\n"));
    case.check(expect![[r#"
        M12: no frontend
    "#]]);
}

#[test]
fn m13_an_address_claimed_twice() {
    Case::new()
        .service(GLOBAL)
        .local("10.1.0.1:8080=terminating")
        .remote(3, Some("10.1.0.1:8080 40.0.0.4:8080"))
        .remote(2, Some("40.0.0.4:8080"))
        .then("M13")
        .local("")
        .remote(2, None)
        .then("hidden, not removed")
        .check(expect![[r#"
            M13: 8080: 10.1.0.1:8080 40.0.0.4:8080*
            hidden, not removed: 8080: 10.1.0.1:8080* 40.0.0.4:8080*
        "#]]);
}

#[test]
fn a1_to_a3_local_first() {
    affinity("local")
        .local("10.1.0.1:8080")
        .remote(2, Some("20.0.0.2:9090"))
        .then("A1")
        .local("")
        .then("A2")
        .local("10.1.0.1:8080")
        .then("A3")
        .check(expect![[r#"
            A1: 8080: 10.1.0.1:8080*
            A2: 8080: 20.0.0.2:9090*
            A3: 8080: 10.1.0.1:8080*
        "#]]);
}

#[test]
fn a4_to_a6_remote_first() {
    affinity("remote")
        .local("10.1.0.1:8080")
        .remote(2, Some("20.0.0.2:9090"))
        .then("A4")
        .remote(2, None)
        .then("A5")
        .remote(2, Some("20.0.0.2:9090"))
        .service(GLOBAL)
        .then("A6")
        .check(expect![[r#"
            A4: 8080: 20.0.0.2:9090*
            A5: 8080: 10.1.0.1:8080*
            A6: 8080: 10.1.0.1:8080* 20.0.0.2:9090*
        "#]]);
}

#[test]
fn a7_to_a9_local_first_and_no_local_one_is_well() {
    affinity("local")
        .remote(2, Some("20.0.0.2:9090"))
        .local("10.1.0.1:8080=terminating")
        .then("A7")
        .local("10.1.0.1:8080=unhealthy")
        .then("A8")
        .remote(2, None)
        .local("10.1.0.1:8080=gone 10.1.0.2:8080=maintenance")
        .then("A9")
        .check(expect![[r#"
            A7: 8080: 10.1.0.1:8080 20.0.0.2:9090*
            A8: 8080: 10.1.0.1:8080 20.0.0.2:9090*
            A9: 8080: 10.1.0.1:8080 10.1.0.2:8080
        "#]]);
}

#[test]
fn a10_and_a11_remote_first_and_no_remote_one_is_well() {
    affinity("remote")
        .remote(2, Some("20.0.0.2:9090=unhealthy"))
        .local("10.1.0.1:8080")
        .then("A10")
        .local("10.1.0.1:8080=maintenance")
        .then("A11")
        .check(expect![[r#"
            A10: 8080: 10.1.0.1:8080* 20.0.0.2:9090
            A11: 8080: 20.0.0.2:9090*
        "#]]);
}

#[test]
fn a12_and_a14_annotations_that_mean_nothing() {
    let both = |case: Case| case.local("10.1.0.1:8080").remote(2, Some("20.0.0.2:9090"));
    both(Case::new().service("service.cilium.io/affinity=remote")).then("A12").check(expect![[r#"
        A12: 8080: 10.1.0.1:8080*
    "#]]);
    both(affinity("bogus")).then("A14").check(expect![[r#"
        A14: 8080: 10.1.0.1:8080* 20.0.0.2:9090*
    "#]]);
}

#[test]
fn a15_to_a17_each_cluster_reads_its_own_service() {
    let here = |annotations: &str| Case::new().service(annotations).local("10.1.0.1:8080");
    let unshared = "service.cilium.io/global=true service.cilium.io/shared=false";
    here(GLOBAL).remote(2, None).then("A15 in C1").check(expect![[r#"
        A15 in C1: 8080: 10.1.0.1:8080*
    "#]]);
    here("").remote(2, Some("20.0.0.2:9090")).then("A15 in C2").check(expect![[r#"
        A15 in C2: 8080: 10.1.0.1:8080*
    "#]]);
    here(unshared).remote(2, Some("20.0.0.2:9090")).then("A16 in C1").check(expect![[r#"
        A16 in C1: 8080: 10.1.0.1:8080* 20.0.0.2:9090*
    "#]]);
    here(GLOBAL).remote(2, None).then("A16 in C2").check(expect![[r#"
        A16 in C2: 8080: 10.1.0.1:8080*
    "#]]);
    here(unshared).remote(2, None).then("A17").check(expect![[r#"
        A17: 8080: 10.1.0.1:8080*
    "#]]);
}
