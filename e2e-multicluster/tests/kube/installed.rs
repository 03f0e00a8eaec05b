//! The rendered manifests on a cluster: what they describe runs, as the users and with the rights they name.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tombolo_e2e::clock::{Seen, wait_until};
use tombolo_e2e::kube::Api;
use tombolo_e2e::operator::{self, Authority};
use tombolo_kube::objects::Kind;

use crate::lab::{Case, Lab, SOON};

pub(crate) const CASES: &[Case] = &[Case {
    name: "installed: the plain manifests run, an apiserver with its store and an agent on every node",
    body: dev,
}];

const SYSTEM: &str = "tombolo-system";

fn dev(lab: &mut Lab) -> Result<()> {
    let api = lab.cluster.admin();
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
    for file in fs::read_dir(manifests.join("crds"))? {
        api.apply(&fs::read_to_string(file?.path())?)?;
    }
    for namespace in [SYSTEM, "tombolo-peers"] {
        api.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}).to_string())?;
    }
    identity(lab, &api)?;
    api.apply(&fs::read_to_string(manifests.join("plain/dev.yaml"))?)?;
    let nodes = lab.cluster.site.nodes.len();
    wait_until("every Pod to be ready", SOON * 2, || {
        let pods = api.list(&Kind::new("v1", "Pod"), SYSTEM, "")?;
        let waiting: Vec<_> = pods.iter().filter(|pod| !is_ready(pod)).map(why).collect();
        Ok(if pods.len() == nodes + 1 && waiting.is_empty() {
            Seen::Ready(())
        } else {
            Seen::NotYet(format!("{} Pods, {}", pods.len(), waiting.join("; ")))
        })
    })?;
    for (workload, name) in [("DaemonSet", "tombolo-agent"), ("Deployment", "tombolo-apiserver")] {
        api.delete(&Kind::new("apps/v1", workload), SYSTEM, name)?;
    }
    wait_until("the Pods to end", SOON, || {
        let left = api.list(&Kind::new("v1", "Pod"), SYSTEM, "")?.len();
        Ok(if left == 0 { Seen::Ready(()) } else { Seen::NotYet(format!("{left} Pods")) })
    })
}

/// Who the cluster is, and its certificates.
fn identity(lab: &Lab, api: &Api) -> Result<()> {
    let authority = Authority::create(&lab.run.dir().join("installed-ca"))?;
    let tls = lab.run.dir().join("installed-tls");
    let words = ["certs", "issue", "--cluster-name", "ne", "--dns", "clustermesh-apiserver.tombolo-system.svc", "--ca"];
    let mut words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
    words.extend([authority.dir().as_os_str(), "--dir".as_ref(), tls.as_os_str()]);
    operator::tombolo(&words)?;
    let [services, _] = lab.cluster.site.service_ranges();
    let data = json!({"name": "ne", "id": "1", "maxConnectedClusters": "255", "serviceCIDRs": services,
        "podCIDRs": "10.1.0.0/16", "defaultGlobalNamespace": "true"});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tombolo-cluster", "namespace": SYSTEM},
        "data": data});
    api.apply(&map.to_string())?;
    let read =
        |file: String| fs::read_to_string(tls.join(&file)).with_context(|| format!("the certificates have {file}"));
    for role in ["server", "admin", "local"] {
        let data = json!({"ca.crt": read("ca.crt".to_owned())?, "tls.crt": read(format!("{role}.crt"))?,
            "tls.key": read(format!("{role}.key"))?});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": format!("tombolo-{role}"), "namespace": SYSTEM}, "stringData": data});
        api.apply(&secret.to_string())?;
    }
    ensure!(tls.join("remote.crt").is_file(), "peers get a certificate too");
    Ok(())
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.clone().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// What a Pod that is not ready says.
fn why(pod: &Value) -> String {
    let containers = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let said = containers.map(|c| format!("{} ready {} {}", c["name"], c["ready"], c["state"]["waiting"]["message"]));
    format!("{}: {}", pod["metadata"]["name"], said.collect::<Vec<_>>().join(", "))
}
