use std::collections::BTreeMap;

use clap::ValueEnum;
use expect_test::expect;

use super::*;

fn config() -> ClusterConfig {
    let data = [("name", "ne"), ("id", "1"), ("serviceCIDRs", "10.96.0.0/16")];
    ClusterConfig::parse(&data.map(|(k, v)| (k.to_owned(), v.to_owned())).into_iter().collect::<BTreeMap<_, _>>())
        .unwrap()
}

fn shape(profile: Profile) -> Shape {
    Shape { profile, service_type: None, internal: None, image: None }
}

fn store(shape: &Shape) -> Value {
    let manifests = manifests(shape, &config(), &[]);
    manifests.after.into_iter().find(|d| d.name.name == STORE_SERVICE).unwrap().object
}

/// Definitions and namespaces come first, and what needs them after.
#[test]
fn every_profile_is_whole() {
    for profile in Profile::value_variants() {
        let made = manifests(&shape(*profile), &config(), &[]);
        let kinds = |documents: &[Document]| documents.iter().map(|d| d.name.to_string()).collect::<Vec<_>>();
        assert_eq!(
            kinds(&made.before),
            [
                "CustomResourceDefinition meshpeers.tombolo.io",
                "CustomResourceDefinition clusterdrains.tombolo.io",
                "CustomResourceDefinition clustergrants.tombolo.io",
                "CustomResourceDefinition meshidentities.tombolo.io",
                "Namespace tombolo-system",
                "Namespace tombolo-peers",
            ],
            "{profile:?}"
        );
        let after = kinds(&made.after);
        for needed in [
            "Deployment tombolo-system/tombolo-apiserver",
            "DaemonSet tombolo-system/tombolo-agent",
            "Service tombolo-system/clustermesh-apiserver",
            "Role tombolo-peers/tombolo-apiserver",
        ] {
            assert!(after.iter().any(|name| name == needed), "{profile:?} lacks {needed}");
        }
        assert!(made.after.iter().all(|d| d.name.kind.kind != "Secret"), "{profile:?} has Secrets of its own");
    }
}

#[test]
fn a_service_is_as_asked_for() {
    let with = |profile, service_type, internal| store(&Shape { service_type, internal, ..shape(profile) });
    let told = |service: &Value| {
        let spec = &service["spec"];
        format!("{} {} {}\n", spec["type"], spec["ports"][0]["nodePort"], service["metadata"]["annotations"])
    };
    let rows = [
        with(Profile::Dev, None, None),
        with(Profile::Dev, Some(ServiceType::LoadBalancer), Some(true)),
        with(Profile::Ha, Some(ServiceType::NodePort), None),
        with(Profile::Aks, None, None),
        with(Profile::Aks, Some(ServiceType::ClusterIp), Some(false)),
    ];
    expect![[r#"
        "NodePort" 32379 null
        "LoadBalancer" null {"networking.gke.io/load-balancer-type":"Internal","service.beta.kubernetes.io/aws-load-balancer-scheme":"internal","service.beta.kubernetes.io/azure-load-balancer-internal":"true"}
        "NodePort" null null
        "LoadBalancer" null {"service.beta.kubernetes.io/azure-load-balancer-internal":"true"}
        "ClusterIP" null {"service.beta.kubernetes.io/aws-load-balancer-scheme":"internet-facing","service.beta.kubernetes.io/azure-load-balancer-internal":"false"}
    "#]]
    .assert_eq(&rows.iter().map(told).collect::<String>());
    assert!(rows[4]["spec"]["externalTrafficPolicy"].is_null());
}

#[test]
fn pods_have_the_image_and_start_anew_for_another_cluster() {
    let shape = Shape { image: Some("registry.example/tombolo:1".into()), ..shape(Profile::Ha) };
    let made = manifests(&shape, &config(), &[]);
    let workloads: Vec<&Document> =
        made.after.iter().filter(|d| ["Deployment", "DaemonSet"].contains(&d.name.kind.kind.as_str())).collect();
    let mut told = String::new();
    for Document { name, object, .. } in workloads {
        let template = &object["spec"]["template"];
        told += &format!("{name}: {}\n", template["metadata"]["annotations"][STARTED_FOR]);
        for container in template["spec"]["containers"].as_array().unwrap() {
            assert_eq!(container["image"], "registry.example/tombolo:1");
        }
    }
    expect![[r#"
        DaemonSet tombolo-system/tombolo-agent: "ne (id 1)"
        Deployment tombolo-system/tombolo-apiserver: "defaultGlobalNamespace=true id=1 maxConnectedClusters=255 name=ne serviceCIDRs=10.96.0.0/16; trusts "
    "#]]
    .assert_eq(&told);
}

#[test]
fn agents_leave_their_nodes() {
    let set = leaving(&shape(Profile::Dev), &config()).unwrap().object;
    let pod = &set["spec"]["template"]["spec"];
    let [uninstall, agent] = ["/initContainers/0", "/containers/0"].map(|path| pod.pointer(path).unwrap());
    expect![[r#"
        ["uninstall","--bpffs=/sys/fs/bpf","--state-dir=/var/lib/tombolo","--admin-socket=/run/tombolo/agent.sock"]
        ["--datapath=none","--state-dir=/tmp/state","--admin-socket=/tmp/agent.sock","--store-config=/etc/tombolo/store/store.yaml","--health-listen=127.0.0.1:9881","--log=info"]
    "#]]
    .assert_eq(&format!("{}\n{}\n", uninstall["args"], agent["args"]));
    assert_eq!(agent["securityContext"]["capabilities"], json!({ "drop": ["ALL"] }));
    assert!(uninstall["securityContext"]["capabilities"]["add"].as_array().is_some_and(|add| !add.is_empty()));
    assert!(uninstall["readinessProbe"].is_null() && uninstall["volumeMounts"].is_array());
}
