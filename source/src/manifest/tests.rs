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
            2 Namespace(NamespaceObject { name: "ns", labels: {}, annotations: {"clustermesh.cilium.io/global": "false"} })
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

#[test]
fn pods() {
    check(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: x-wing-0, namespace: fleet, labels: {app: x-wing, pod-template-hash: abc}}
spec:
  serviceAccountName: pilot
  containers:
  - ports: [{containerPort: 9000}, {name: metrics, containerPort: 9090}, {name: dns, containerPort: 53, protocol: UDP}]
status: {phase: Running, podIP: 10.1.0.7, podIPs: [{ip: 10.1.0.7}, {ip: "fd00:1::7"}], hostIP: 192.0.2.1}
---
apiVersion: v1
kind: Pod
metadata: {name: waits}
spec: {hostNetwork: true, containers: null}
status: {podIP: "", podIPs: null, hostIP: ""}
---
apiVersion: v1
kind: Pod
metadata: {name: odd}
status: {phase: Pondering, podIP: 10.1.0.8}
"#,
        expect![[r#"
            1 Pod(PodObject { key: PodKey { namespace: "fleet", name: "x-wing-0" }, labels: {"app": "x-wing", "pod-template-hash": "abc"}, service_account: "pilot", host_network: false, phase: Running, ips: [10.1.0.7, fd00:1::7], host_ip: Some(192.0.2.1), named_ports: [Port { name: "dns", protocol: Udp, number: 53 }, Port { name: "metrics", protocol: Tcp, number: 9090 }] })
            2 Pod(PodObject { key: PodKey { namespace: "default", name: "waits" }, labels: {}, service_account: "default", host_network: true, phase: Pending, ips: [], host_ip: None, named_ports: [] })
            3 Pod(PodObject { key: PodKey { namespace: "default", name: "odd" }, labels: {}, service_account: "default", host_network: false, phase: Unknown, ips: [10.1.0.8], host_ip: None, named_ports: [] })
            ignored 0
        "#]],
    );
}

#[test]
fn cilium_kinds() {
    check(
        r#"
apiVersion: cilium.io/v2
kind: CiliumNode
metadata: {name: n1, labels: {a: b}, annotations: {network.cilium.io/wg-pub-key: k}}
spec:
  addresses: [{ip: 172.18.0.2, type: InternalIP}, {ip: a-name, type: Hostname}]
  bootid: b-1
  encryption: {key: 7}
  health: {ipv4: 10.244.0.134}
  ingress: {ipv6: "fd00::9"}
  ipam: {podCIDRs: [10.244.0.0/24], pools: {allocated: [{pool: default, cidrs: [10.10.0.0/27]}]}}
---
apiVersion: cilium.io/v2
kind: CiliumIdentity
metadata: {name: "196915"}
security-labels: {"k8s:b": "1", "k8s:a": "x", bare: "", "any:a": "y"}
---
apiVersion: cilium.io/v2
kind: CiliumEndpoint
metadata: {name: p, namespace: test}
status:
  encryption: {key: 5}
  identity: {id: 199475}
  named-ports: [{name: http, port: 8080, protocol: TCP}]
  networking: {addressing: [{ipv4: 10.244.2.74, ipv6: "fd00::74"}], node: 172.18.0.2}
  service-account: default
---
apiVersion: cilium.io/v2
kind: CiliumEndpoint
metadata: {name: empty}
status: {identity: {}}
---
apiVersion: cilium.io/v2alpha1
kind: CiliumEndpointSlice
metadata: {name: ces-1}
namespace: qux
endpoints:
- {name: q, id: 199472, encryption: {}, service-account: sa, networking: {addressing: [{ipv4: 10.244.1.79}], node: 172.18.0.3}}
"#,
        expect![[r#"
            1 CiliumNode(CiliumNodeObject { name: "n1", labels: {"a": "b"}, annotations: {"network.cilium.io/wg-pub-key": "k"}, addresses: [("InternalIP", 172.18.0.2)], pod_cidrs: [10.244.0.0/24, 10.10.0.0/27], boot_id: "b-1", encryption_key: 7, extra_ips: [Some(10.244.0.134), None, None, Some(fd00::9)] })
            2 CiliumIdentity(CiliumIdentityObject { number: 196915, labels: [IdentityLabel { source: "any", key: "a", value: "y" }, IdentityLabel { source: "k8s", key: "a", value: "x" }, IdentityLabel { source: "k8s", key: "b", value: "1" }, IdentityLabel { source: "unspec", key: "bare", value: "" }] })
            3 CiliumEndpoint(CiliumEndpointObject { namespace: "test", endpoint: CiliumEndpointSpec { pod: "p", identity: 199475, ips: [10.244.2.74, fd00::74], host_ip: Some(172.18.0.2), encryption_key: 5, service_account: "default", named_ports: [Port { name: "http", protocol: Tcp, number: 8080 }] } })
            4 CiliumEndpoint(CiliumEndpointObject { namespace: "default", endpoint: CiliumEndpointSpec { pod: "empty", identity: 0, ips: [], host_ip: None, encryption_key: 0, service_account: "", named_ports: [] } })
            5 CiliumEndpointSlice(CiliumEndpointSliceObject { name: "ces-1", namespace: "qux", endpoints: [CiliumEndpointSpec { pod: "q", identity: 199472, ips: [10.244.1.79], host_ip: Some(172.18.0.3), encryption_key: 0, service_account: "sa", named_ports: [] }] })
            ignored 0
        "#]],
    );
}

#[test]
fn a_cilium_identity_is_named_by_its_number() {
    let error = parse("apiVersion: cilium.io/v2\nkind: CiliumIdentity\nmetadata: {name: +5}\n").unwrap_err();
    expect![[r#"line 3, column 18, field metadata.name: "+5" is no identity's number"#]].assert_eq(&error.to_string());
}
