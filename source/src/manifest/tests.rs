use std::fmt::Write as _;

use expect_test::{Expect, expect};

use super::*;

#[expect(clippy::needless_pass_by_value, reason = "fixtures are written in place")]
fn check(text: &str, expected: Expect) {
    let mut out = String::new();
    match parse(text) {
        Ok(manifest) => {
            for (document, object) in &manifest.objects {
                writeln!(out, "{document} {object:?}").unwrap();
            }
            writeln!(out, "ignored {}", manifest.ignored).unwrap();
        }
        Err(e) => writeln!(out, "document {}: {e}", e.document).unwrap(),
    }
    expected.assert_eq(&out);
}

#[test]
fn a_service_with_everything() {
    check(
        r#"
# comments and an empty document are nothing
---
---
apiVersion: v1
kind: Service
metadata:
  name: rebel-base
  labels: {app: rebel-base}
  annotations:
    service.cilium.io/global: "true"
spec:
  clusterIP: 10.96.0.7
  clusterIPs: [10.96.0.7, "fd00::7"]
  selector: {app: rebel-base}
  ports:
  - {name: http, port: 80, targetPort: web}
  - {name: dns, port: 53, protocol: UDP}
  internalTrafficPolicy: Local
  sessionAffinity: ClientIP
"#,
        expect![[r#"
            1 Service(ServiceObject { key: ServiceKey { namespace: "default", name: "rebel-base" }, annotations: {"service.cilium.io/global": "true"}, labels: {"app": "rebel-base"}, selector: {"app": "rebel-base"}, kind: ClusterIp, cluster_ips: [10.96.0.7, fd00::7], ports: [Port { name: "http", protocol: Tcp, number: 80 }, Port { name: "dns", protocol: Udp, number: 53 }], internal_traffic_policy: Local, publish_not_ready: false, client_ip_seconds: Some(10800) })
            ignored 0
        "#]],
    );
}

#[test]
fn headless_by_ip_by_label_and_external() {
    check(
        "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: x}
spec: {clusterIP: None, ports: [{port: 1}]}
---
kind: Service
apiVersion: v1
metadata: {name: b, namespace: x, labels: {service.kubernetes.io/headless: ''}}
spec: {clusterIP: 10.0.0.1}
--- {apiVersion: v1, kind: Service, metadata: {name: c}, spec: {type: ExternalName, externalName: e.org}}
",
        expect![[r#"
            1 Service(ServiceObject { key: ServiceKey { namespace: "x", name: "a" }, annotations: {}, labels: {}, selector: {}, kind: Headless, cluster_ips: [], ports: [Port { name: "", protocol: Tcp, number: 1 }], internal_traffic_policy: Cluster, publish_not_ready: false, client_ip_seconds: None })
            2 Service(ServiceObject { key: ServiceKey { namespace: "x", name: "b" }, annotations: {}, labels: {"service.kubernetes.io/headless": ""}, selector: {}, kind: Headless, cluster_ips: [], ports: [], internal_traffic_policy: Cluster, publish_not_ready: false, client_ip_seconds: None })
            3 Service(ServiceObject { key: ServiceKey { namespace: "default", name: "c" }, annotations: {}, labels: {}, selector: {}, kind: ExternalName, cluster_ips: [], ports: [], internal_traffic_policy: Cluster, publish_not_ready: false, client_ip_seconds: None })
            ignored 0
        "#]],
    );
}

#[test]
fn slices_of_lists_and_other_kinds() {
    check(
        "
apiVersion: v1
kind: List
items:
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: s1, namespace: x, labels: {kubernetes.io/service-name: a}}
  addressType: IPv4
  ports: [{name: http, port: 8080}, {name: any}]
  endpoints:
  - addresses: [10.1.0.1]
    conditions: {ready: true, serving: null}
    nodeName: n1
    zone: z1
    hints: {forZones: [{name: z1}]}
  - {addresses: [10.1.0.2]}
- apiVersion: apps/v1
  kind: Deployment
  spec: {selector: {matchLabels: {a: b}}}
---
apiVersion: v1
kind: NamespaceList
items:
- metadata: {name: ns, annotations: {clustermesh.cilium.io/global: 'false'}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: names}
addressType: FQDN
endpoints: [{addresses: [a.example.org]}]
",
        expect![[r#"
            1 Slice(SliceObject { namespace: "x", name: "s1", labels: {"kubernetes.io/service-name": "a"}, annotations: {}, family: V4, endpoints: [EndpointObject { addresses: [10.1.0.1], conditions: Conditions { ready: Some(true), serving: None, terminating: None }, hostname: None, node: Some("n1"), zone: Some("z1"), hints: ["z1"] }, EndpointObject { addresses: [10.1.0.2], conditions: Conditions { ready: None, serving: None, terminating: None }, hostname: None, node: None, zone: None, hints: [] }], ports: [Port { name: "http", protocol: Tcp, number: 8080 }] })
            2 Namespace(NamespaceObject { name: "ns", annotations: {"clustermesh.cilium.io/global": "false"} })
            ignored 2
        "#]],
    );
}

#[test]
fn nodes() {
    check(
        r#"
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/zone: z1}}
spec: {podCIDR: 10.1.0.0/24, podCIDRs: [10.1.0.0/24, "fd00:1::/64"]}
status:
  addresses: [{type: InternalIP, address: 192.0.2.1}, {type: Hostname, address: n1}]
  nodeInfo: {bootID: b-1}
"#,
        expect![[r#"
            1 Node(NodeObject { name: "n1", labels: {"topology.kubernetes.io/zone": "z1"}, annotations: {}, addresses: [("InternalIP", 192.0.2.1)], pod_cidrs: [10.1.0.0/24, fd00:1::/64], boot_id: "b-1" })
            ignored 0
        "#]],
    );
}

#[test]
fn errors_have_their_place() {
    let service =
        "kind: Namespace\nmetadata: {name: ok}\n---\napiVersion: v1\nkind: Service\nmetadata:\n  name: a\nspec:\n";
    check(
        &format!("{service}  ports:\n  - name: http\n    port: many\n"),
        expect![[r#"
            document 2: line 11, column 11, field spec.ports.port: not a whole number from 0 to 65535
        "#]],
    );
    check(
        &format!("{service}  ports:\n    - {{name: http, port: 70000}}\n"),
        expect![[r#"
            document 2: line 10, column 26, field spec.ports.port: not a whole number from 0 to 65535
        "#]],
    );
    check(
        &format!("{service}  clusterIPs: [10.0.0.1, 10.0.0.300]\n"),
        expect![[r#"
        document 2: line 9, column 26, field spec.clusterIPs: "10.0.0.300" is no IP address
    "#]],
    );
    check(
        &format!("{service}  ports:\n  - name: http\n"),
        expect![[r#"
            document 2: line 10, column 5, field spec.ports: missing field `port`
        "#]],
    );
    check(
        &format!("{service}  sessionAffinity: Sometimes\n"),
        expect![[r#"
        document 2: line 9, column 20, field spec.sessionAffinity: unknown variant `Sometimes`, expected one of None, ClientIP
    "#]],
    );
    check(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: Bad/Name\n",
        expect![[r#"
        document 1: line 4, column 9, field metadata.name: "Bad/Name" is no Kubernetes name: 1 to 253 of a-z, 0-9, '-', '.'
    "#]],
    );
    check(
        "apiVersion: v1\nkind: Service\nmetadata:\n\tname: tab\n",
        expect![[r#"
        document 1: line 4, column 2, field name: tabs disallowed within this context (block indentation)
    "#]],
    );
    check(
        "metadata: {name: x}\n",
        expect![[r#"
            document 1: line 1, column 1: missing field `kind`
        "#]],
    );
    check(
        "just words\n",
        expect![[r#"
        document 1: line 1, column 1: expected mapping start
    "#]],
    );
    check(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, name: b}\n",
        expect![[r#"
            document 1: line 3, column 21, field metadata.name: duplicate mapping key: name
        "#]],
    );
    check(
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Node\n  metadata: {name: n}\n  spec:\n    podCIDRs:\n    - 10.0.0.0/33\n",
        expect![[r#"
            document 1: line 9, column 7, field items.spec.podCIDRs: "10.0.0.0/33" is no CIDR
        "#]],
    );
}

#[test]
fn json_is_yaml() {
    check(
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"a","namespace":"b"},"spec":{"ports":[{"port":"x"}]}}"#,
        expect![[r#"
            document 1: line 1, column 102, field spec.ports.port: not a whole number from 0 to 65535
        "#]],
    );
}

#[test]
fn more_documents_than_the_readers_default_budget() {
    let text: String = (0..3_000).map(|n| format!("---\nkind: Namespace\nmetadata: {{name: n{n}}}\n")).collect();
    assert_eq!(parse(&text).unwrap().objects.len(), 3_000);
}
