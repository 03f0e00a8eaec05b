use expect_test::{Expect, expect};

use super::*;

#[expect(clippy::needless_pass_by_value, reason = "fixtures are written in place")]
fn check(kind: Kind, line: &str, expected: Expect) {
    let read = event(kind, line.as_bytes()).map_err(|e| e.to_string());
    expected.assert_eq(&format!("{read:?}"));
}

#[test]
fn a_service_is_reduced_and_its_managed_fields_are_never_held() {
    check(
        Kind::Service,
        r#"{"type":"ADDED","object":{"kind":"Service","apiVersion":"v1","metadata":{"name":"rebel-base","namespace":"default","uid":"u","resourceVersion":"41","annotations":{"service.cilium.io/global":"true"},"managedFields":[{"manager":"kubectl","fieldsV1":{"f:spec":{".":{}}}}]},"spec":{"ports":[{"name":"http","protocol":"TCP","port":80,"targetPort":8080}],"clusterIP":"10.96.0.7","clusterIPs":["10.96.0.7"],"type":"ClusterIP","sessionAffinity":"None","internalTrafficPolicy":"Cluster"},"status":{"loadBalancer":{}}}}"#,
        expect![[
            r#"Ok(Put(Item { name: Name { namespace: Some("default"), name: "rebel-base" }, revision: "41", object: Ok(Some(Service(ServiceObject { key: ServiceKey { namespace: "default", name: "rebel-base" }, annotations: {"service.cilium.io/global": "true"}, labels: {}, selector: {}, kind: ClusterIp, cluster_ips: [10.96.0.7], ports: [Port { name: "http", protocol: Tcp, number: 80 }], internal_traffic_policy: Cluster, publish_not_ready: false, client_ip_seconds: None }))) }))"#
        ]],
    );
}

#[test]
fn a_bad_object_has_a_name_a_revision_and_the_field() {
    check(
        Kind::Service,
        r#"{"type":"MODIFIED","object":{"metadata":{"name":"a","namespace":"x","resourceVersion":"9"},"spec":{"ports":[{"port":1},{"port":70000}]}}}"#,
        expect![[
            r#"Ok(Put(Item { name: Name { namespace: Some("x"), name: "a" }, revision: "9", object: Err("field spec.ports[1].port: invalid value: integer `70000`, expected u16") }))"#
        ]],
    );
}

#[test]
fn a_deletion_needs_no_shape_and_a_slice_of_names_is_of_no_use() {
    check(
        Kind::Slice,
        r#"{"type":"DELETED","object":{"metadata":{"name":"s-1","namespace":"x","resourceVersion":"12"},"addressType":"Nonsense"}}"#,
        expect![[r#"Ok(Gone { name: Name { namespace: Some("x"), name: "s-1" }, revision: "12" })"#]],
    );
    check(
        Kind::Slice,
        r#"{"type":"ADDED","object":{"metadata":{"name":"s-1","namespace":"x","resourceVersion":"12"},"addressType":"FQDN","endpoints":null}}"#,
        expect![[
            r#"Ok(Put(Item { name: Name { namespace: Some("x"), name: "s-1" }, revision: "12", object: Ok(None) }))"#
        ]],
    );
}

#[test]
fn bookmarks_and_errors() {
    let bookmark =
        |metadata: &str| format!(r#"{{"type":"BOOKMARK","object":{{"kind":"Node","metadata":{metadata}}}}}"#);
    check(
        Kind::Node,
        &bookmark(r#"{"resourceVersion":"77","creationTimestamp":null}"#),
        expect![[r#"Ok(Bookmark { revision: "77" })"#]],
    );
    check(
        Kind::Node,
        &bookmark(r#"{"resourceVersion":"77","annotations":{"k8s.io/initial-events-end":"true"}}"#),
        expect![[r#"Ok(ListEnd { revision: "77" })"#]],
    );
    check(
        Kind::Node,
        r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version: 1 (500)","reason":"Expired","code":410}}"#,
        expect![[r#"Ok(Failed { code: 410, message: "too old resource version: 1 (500)" })"#]],
    );
}

#[test]
fn what_is_no_line_is_an_error() {
    for line in ["", "{", "[]", r#"{"type":"ADDED"}"#, r#"{"type":"ADDED","object":{"metadata":{}}}"#] {
        assert!(event(Kind::Node, line.as_bytes()).is_err(), "{line:?}");
    }
    assert!(event(Kind::Node, br#"{"type":"WHATEVER","object":{}}"#).is_err());
}

#[test]
fn a_page_keeps_its_good_objects_beside_a_bad_one() {
    let body = r#"{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"500","continue":"tok","remainingItemCount":3},
        "items":[{"metadata":{"name":"a","resourceVersion":"3"}},
                 {"metadata":{"name":"b","resourceVersion":"4"},"spec":{"podCIDRs":["10.0.0.0/8","x"]}}]}"#;
    let page = page(Kind::Node, body.as_bytes()).unwrap();
    assert_eq!((page.revision.as_str(), page.more.as_deref()), ("500", Some("tok")));
    assert!(matches!(page.items[0].object.as_ref().unwrap().as_deref(), Some(Object::Node(node)) if node.name == "a"));
    assert_eq!(page.items[1].object, Err(r#"field spec.podCIDRs[1]: "x" is no CIDR"#.to_owned()));
}

#[test]
fn a_page_that_is_cut_or_none_is_an_error() {
    let whole = r#"{"metadata":{"resourceVersion":"5","continue":""},"items":[{"metadata":{"name":"a"}}]}"#;
    assert_eq!(page(Kind::Node, whole.as_bytes()).unwrap().more, None);
    for end in 0..whole.len() {
        assert!(page(Kind::Node, &whole.as_bytes()[..end]).is_err(), "{end}");
    }
    assert!(page(Kind::Node, br#"{"kind":"Status","metadata":{},"code":500}"#).is_err());
    assert_eq!(page(Kind::Node, br#"{"metadata":{"resourceVersion":"5"},"items":null}"#).unwrap().items, []);
}

#[test]
fn words_of_a_refusal() {
    assert_eq!(
        status_message(br#"{"kind":"Status","message":"nodes is forbidden"}"#).as_deref(),
        Some("nodes is forbidden")
    );
    assert_eq!(status_message(b"Too many requests"), None);
}
