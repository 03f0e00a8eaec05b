//! The plain manifests, read as the objects they are: what a template may get wrong without an error of Helm's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tombolo_e2e::programs;
use tombolo_kube::apply;

/// The objects of each profile.
fn profiles() -> BTreeMap<String, Vec<Value>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../manifests/plain");
    let files = std::fs::read_dir(folder)
        .expect("the manifests are as they are rendered")
        .map(|entry| entry.expect("the manifests are as they are rendered").path());
    let profiles: BTreeMap<_, _> = files
        .map(|path| {
            let name = path
                .file_stem()
                .expect("the manifests are as they are rendered")
                .to_str()
                .expect("the manifests are as they are rendered")
                .to_owned();
            let documents =
                apply::read(&std::fs::read_to_string(&path).expect("the manifests are as they are rendered"))
                    .expect("the manifests are as they are rendered");
            (name, documents.into_iter().map(|document| document.object).collect())
        })
        .collect();
    let names: Vec<_> = profiles.keys().map(String::as_str).collect();
    assert_eq!(names, ["aks", "cert-manager", "dev", "eks", "external-etcd", "ha"]);
    profiles
}

/// Asserts something of each profile's objects.
fn each(check: impl Fn(&str, &[Value])) {
    profiles().iter().for_each(|(profile, objects)| check(profile, objects));
}

fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn texts(value: &Value) -> Vec<&str> {
    list(value).filter_map(Value::as_str).collect()
}

/// The Pod of the one workload of a kind.
fn pod<'a>(objects: &'a [Value], kind: &'a str) -> &'a Value {
    &of_kind(objects, kind).next().expect("the manifests are as they are rendered")["spec"]["template"]["spec"]
}

/// All values of a key, at any depth.
fn all<'a>(value: &'a Value, key: &str) -> Vec<&'a Value> {
    match value {
        Value::Object(fields) => {
            let here = fields.iter().filter(|(name, _)| *name == key).map(|(_, value)| value);
            here.chain(fields.values().flat_map(|field| all(field, key))).collect()
        }
        Value::Array(items) => items.iter().flat_map(|item| all(item, key)).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn an_agent_has_no_right_and_no_token() {
    each(|profile, objects| {
        for kind in ["RoleBinding", "ClusterRoleBinding"] {
            for binding in of_kind(objects, kind) {
                let subjects: Vec<_> = list(&binding["subjects"]).map(|subject| &subject["name"]).collect();
                assert_eq!(subjects, ["tombolo-apiserver"], "{profile}");
            }
        }
        let pod = pod(objects, "DaemonSet");
        assert_eq!(pod["serviceAccountName"], "tombolo-agent");
        assert_eq!(pod["automountServiceAccountToken"], false, "{profile}");
        assert!(all(pod, "serviceAccountToken").is_empty(), "{profile}");
    });
}

#[test]
fn only_the_apiservers_container_has_a_token() {
    each(|profile, objects| {
        let pod = pod(objects, "Deployment");
        assert_eq!(pod["automountServiceAccountToken"], false, "{profile}");
        let holders: Vec<_> = list(&pod["containers"])
            .filter(|container| list(&container["volumeMounts"]).any(|mount| mount["name"] == "token"))
            .map(|container| &container["name"])
            .collect();
        assert_eq!(holders, ["apiserver"], "{profile}");
    });
}

#[test]
fn secrets_are_read_in_one_namespace_alone() {
    each(|profile, objects| {
        let roles = of_kind(objects, "ClusterRole").chain(of_kind(objects, "Role"));
        for role in roles {
            for rule in list(&role["rules"]) {
                let words = [texts(&rule["apiGroups"]), texts(&rule["resources"]), texts(&rule["verbs"])].concat();
                assert!(!words.contains(&"*"), "{profile}: {rule}");
                if texts(&rule["resources"]).contains(&"secrets") {
                    assert_eq!(role["kind"], "Role", "{profile}");
                    assert_eq!(role["metadata"]["namespace"], "tombolo-peers", "{profile}");
                    assert_eq!(texts(&rule["verbs"]), ["get", "list", "watch"], "{profile}");
                }
            }
        }
    });
}

/// What may be written: verbs that change something, by resource.
#[test]
fn what_is_written_is_this() {
    each(|profile, objects| {
        let mut written = BTreeSet::new();
        for role in of_kind(objects, "ClusterRole").chain(of_kind(objects, "Role")) {
            for rule in list(&role["rules"]) {
                let changes = texts(&rule["verbs"]).iter().any(|verb| !["get", "list", "watch"].contains(verb));
                written.extend(texts(&rule["resources"]).into_iter().filter(|_| changes));
            }
        }
        let expected = [
            "clusterdrains/status",
            "clustergrants/status",
            "endpointslices",
            "events",
            "leases",
            "meshidentities",
            "meshpeers/status",
        ];
        assert_eq!(written.into_iter().collect::<Vec<_>>(), expected, "{profile}");
    });
}

#[test]
fn what_is_mounted_is_what_the_cli_writes() {
    each(|profile, objects| {
        for workload in ["Deployment", "DaemonSet"] {
            let pod = pod(objects, workload);
            for secret in all(pod, "secret") {
                let name = secret["name"]
                    .as_str()
                    .or(secret["secretName"].as_str())
                    .expect("the manifests are as they are rendered");
                assert!(["tombolo-server", "tombolo-admin", "tombolo-local"].contains(&name), "{profile}: {name}");
                // Without items everything in it would be mounted, also what somebody adds.
                assert!(list(&secret["items"]).count() > 0, "{profile}: {name}");
                for item in list(&secret["items"]) {
                    assert!(
                        ["ca.crt", "tls.crt", "tls.key"]
                            .contains(&item["key"].as_str().expect("the manifests are as they are rendered")),
                        "{item}"
                    );
                }
            }
            // 0400. It would be 400 to a reader that takes no leading zero for octal.
            assert!(all(pod, "defaultMode").iter().all(|mode| **mode == 256), "{profile}");
            let keys: BTreeSet<_> = all(pod, "configMapKeyRef")
                .into_iter()
                .map(|key| {
                    (
                        key["name"].as_str().expect("the manifests are as they are rendered"),
                        key["key"].as_str().expect("the manifests are as they are rendered"),
                    )
                })
                .collect();
            let known = ["name", "id", "maxConnectedClusters", "serviceCIDRs", "podCIDRs", "defaultGlobalNamespace"];
            for (map, key) in keys {
                assert!(map == "tombolo-cluster" && known.contains(&key), "{profile}: {map} {key}");
            }
        }
    });
}

#[test]
fn containers_are_confined() {
    each(|profile, objects| {
        let apiserver = pod(objects, "Deployment");
        assert_eq!(apiserver["securityContext"]["runAsNonRoot"], true, "{profile}");
        assert_eq!(apiserver["securityContext"]["runAsUser"], 65532, "{profile}");
        assert!(apiserver["hostNetwork"].is_null() && all(apiserver, "hostPath").is_empty(), "{profile}");
        let agent = pod(objects, "DaemonSet");
        assert_eq!((&agent["hostNetwork"], &agent["dnsPolicy"]), (&true.into(), &"ClusterFirstWithHostNet".into()));
        for container in list(&apiserver["containers"]).chain(list(&agent["containers"])) {
            let context = &container["securityContext"];
            assert_eq!(context["readOnlyRootFilesystem"], true, "{profile}");
            assert_eq!(context["allowPrivilegeEscalation"], false, "{profile}");
            assert!(context["privileged"].is_null(), "{profile}");
            assert_eq!(texts(&context["capabilities"]["drop"]), ["ALL"], "{profile}");
            let agents = ["BPF", "NET_ADMIN", "DAC_READ_SEARCH", "SYS_RESOURCE", "SYS_ADMIN", "SYS_PTRACE"];
            let expected: &[&str] = if container["name"] == "agent" { &agents } else { &[] };
            assert_eq!(texts(&context["capabilities"]["add"]), expected, "{profile}");
        }
    });
}

#[test]
fn a_budget_is_there_when_it_can_hold() {
    each(|profile, objects| {
        let replicas =
            of_kind(objects, "Deployment").next().expect("the manifests are as they are rendered")["spec"]["replicas"]
                .as_u64()
                .expect("the manifests are as they are rendered");
        let budgets = of_kind(objects, "PodDisruptionBudget").count();
        assert_eq!(budgets, usize::from(replicas > 1), "{profile}");
    });
}

#[test]
fn every_flag_and_variable_is_one_of_the_programs() {
    let help = |program: &str| {
        let output = Command::new(programs::program(program).expect("the manifests are as they are rendered"))
            .arg("--help")
            .output()
            .expect("the manifests are as they are rendered");
        assert!(output.status.success());
        let help = String::from_utf8(output.stdout).expect("the manifests are as they are rendered");
        // Lines are wrapped anywhere.
        help.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let known = BTreeMap::from(["tombolo-apiserver", "tombolo-agent"].map(|name| (name, help(name))));
    each(|profile, objects| {
        for workload in ["Deployment", "DaemonSet"] {
            for container in list(&pod(objects, workload)["containers"]) {
                let command = texts(&container["command"]).concat();
                let Some(help) = known.get(command.trim_start_matches('/')) else {
                    assert_eq!(command, "/etcd", "{profile}");
                    continue;
                };
                for arg in texts(&container["args"]) {
                    let flag = arg.split('=').next().expect("the manifests are as they are rendered");
                    assert!(help.split_whitespace().any(|word| word == flag), "{profile}: {command} has no {flag}");
                }
                for variable in list(&container["env"]) {
                    let name = variable["name"].as_str().expect("the manifests are as they are rendered");
                    assert!(help.contains(&format!("[env: {name}=")), "{profile}: {command} reads no {name}");
                }
            }
        }
    });
}

#[test]
fn one_image_without_a_host() {
    each(|profile, objects| {
        for workload in ["Deployment", "DaemonSet"] {
            for image in all(pod(objects, workload), "image") {
                assert_eq!(image, &format!("tombolo-mesh/tombolo:{}", env!("CARGO_PKG_VERSION")), "{profile}");
            }
        }
    });
}
