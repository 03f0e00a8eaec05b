//! What cases with a mesh stand on: Deployments become processes that answer, and a cluster's faults are real.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use tombolo_e2e::answers::Tally;
use tombolo_e2e::clock::{Seen, wait_until};
use tombolo_e2e::load::{self, Dial};
use tombolo_e2e::process::Membership;
use tombolo_kube::objects::{Kind, Part, Selection};

use crate::lab::{Case, Lab, SOON};

pub(crate) const CASES: &[Case] = &[
    Case { name: "kube: a Deployment is scaled, and kube-proxy leads clients to its Pods", body: scaled },
    Case { name: "kube: an agent's token may do nothing", body: nobody },
    Case { name: "kube: an API server that was killed has forgotten old versions", body: killed },
    Case { name: "kube: compaction ends a watch from before with 410", body: compacted },
    Case { name: "kube: a restored state goes back in revisions", body: restored },
];

/// `rebel-base` as a Deployment with a Service.
const REBEL_BASE: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: base}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: base, namespace: base}
data: {galaxy: Alderaan}
---
apiVersion: v1
kind: Service
metadata: {name: rebel-base, namespace: base}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {app: rebel-base}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: rebel-base, namespace: base}
spec:
  replicas: 0
  selector: {matchLabels: {app: rebel-base}}
  template:
    metadata: {labels: {app: rebel-base}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: base
        image: rebel-base
        command: [/rebel-base]
        args: ["--listen=$(POD_IP):8080", --cluster=ne, "--pod=$(POD)", "--galaxy=$(GALAXY)"]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: http}}
        env:
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: GALAXY, valueFrom: {configMapKeyRef: {name: base, key: galaxy}}}
"#;

/// More than an API server, controllers and kubelet write by themselves while they start.
const WRITES: u32 = 500;

fn scaled(lab: &mut Lab) -> Result<()> {
    let api = lab.cluster.admin();
    api.apply(REBEL_BASE)?;
    let service = api.get(&Kind::new("v1", "Service"), "base", "rebel-base")?.context("the Service")?;
    let address = service["spec"]["clusterIP"].as_str().context("it has a cluster IP")?.parse()?;
    let dial = Dial::http(SocketAddr::new(address, 80), 100);
    ensure!(api.endpoints("base", "rebel-base")?.is_empty(), "no replica is no endpoint");
    for replicas in [3, 1] {
        api.scale("base", "rebel-base", replicas)?;
        let count = usize::try_from(replicas)?;
        // One address of each family for each Pod.
        let endpoints = api.wait_endpoints("base", "rebel-base", 2 * count, SOON)?;
        ensure!(endpoints.iter().filter(|ip| ip.starts_with("10.1.")).count() == count, "{endpoints:?}");
        let pods = api.list(&Kind::new("v1", "Pod"), "base", "app=rebel-base")?;
        let ready = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let names: BTreeSet<String> =
            ready.filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)).collect();
        for node in [0, 1] {
            wait_until(&format!("answers from just {replicas} Pods on node {node}"), SOON, || {
                let answers = load::ask(lab.node(node), &dial, 60, Membership::Outside(lab.node(node).cgroup.clone()))?;
                let tally = Tally::of(&answers);
                let from: BTreeSet<String> = answers.into_iter().filter_map(|answer| answer.pod).collect();
                Ok(if tally.failed == 0 && from == names {
                    Seen::Ready(())
                } else {
                    Seen::NotYet(format!("{from:?} of {names:?}, {tally:?}"))
                })
            })?;
        }
    }
    api.scale("base", "rebel-base", 0)?;
    api.wait_endpoints("base", "rebel-base", 0, SOON)?;
    wait_until("the Pods to be gone", SOON, || {
        let pods = api.list(&Kind::new("v1", "Pod"), "base", "")?;
        Ok(if pods.is_empty() { Seen::Ready(()) } else { Seen::NotYet(format!("{} Pods", pods.len())) })
    })
}

fn nobody(lab: &mut Lab) -> Result<()> {
    let nobody = lab.cluster.nobody();
    for kind in ["Service", "Secret", "Pod", "Node"] {
        let error = nobody.list(&Kind::new("v1", kind), "", "").err().context("a list that should be refused")?;
        ensure!(error.to_string().contains("403"), "{kind}: {error:#}");
    }
    Ok(())
}

fn config_maps() -> Kind {
    Kind::new("v1", "ConfigMap")
}

/// Writes a ConfigMap and gives its version.
fn write(lab: &Lab, name: &str, value: u32) -> Result<String> {
    let yaml = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"},
        "data": {"value": value.to_string()},
    });
    let written = lab.cluster.admin().apply(&yaml.to_string())?;
    let version = written[0]["metadata"]["resourceVersion"].as_str().context("an object has a version")?;
    Ok(version.to_owned())
}

/// The HTTP status of a watch from a version on: what it is refused with, or what ends it at once; 200 when it goes on.
fn watch_from(lab: &Lab, kind: &Kind, version: &str) -> Result<u16> {
    let selection = Selection { namespace: Some("default".to_owned()), ..Selection::default() };
    lab.cluster.admin().run(async |objects| {
        use futures_util::StreamExt as _;
        let stream = match objects.watch(kind, &selection, version).await {
            Ok(stream) => stream,
            Err(error) => return error.code().context("the API server answers"),
        };
        let mut stream = std::pin::pin!(stream);
        match tokio::time::timeout(Duration::from_secs(10), stream.next()).await {
            Ok(Some(Err(error))) => error.code().with_context(|| format!("{error}")),
            Ok(Some(Ok(_))) => Ok(200),
            Ok(None) => bail!("the watch ended without a word"),
            Err(_) => bail!("the watch says nothing of a change that was made after its version"),
        }
    })
}

fn killed(lab: &mut Lab) -> Result<()> {
    let api = lab.cluster.admin();
    let services = Kind::new("v1", "Service");
    let one = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "one", "namespace": "default"},
        "spec": {"ports": [{"port": 80}]}});
    let written = api.apply(&one.to_string())?;
    let version = written[0]["metadata"]["resourceVersion"].as_str().context("a version")?.to_owned();
    let label = |value: &str| json!({"metadata": {"labels": {"value": value}}});
    api.merge(&services, "default", "one", &label("1"))?;
    ensure!(watch_from(lab, &services, &version)? == 200, "a watch goes on from a version that is remembered");
    let pid = lab.cluster.apiserver_pid();
    lab.cluster.kill_apiserver()?;
    ensure!(api.ready().is_err(), "a killed API server answers");
    lab.cluster.restart_apiserver()?;
    ensure!(lab.cluster.apiserver_pid() != pid && api.get(&services, "default", "one")?.is_some());
    // What was written before its start is in no cache of this life.
    api.merge(&services, "default", "one", &label("2"))?;
    let code = watch_from(lab, &services, &version)?;
    ensure!(code == 410, "a watch from before the restart: {code}");
    api.delete(&services, "default", "one")
}

fn compacted(lab: &mut Lab) -> Result<()> {
    let before = write(lab, "compacted", 1)?;
    write(lab, "compacted", 2)?;
    ensure!(watch_from(lab, &config_maps(), &before)? == 200, "history is there before it is compacted");
    write(lab, "compacted", 3)?;
    lab.cluster.compact()?;
    let code = watch_from(lab, &config_maps(), &before)?;
    ensure!(code == 410, "a watch from before the compaction: {code}");
    Ok(())
}

fn restored(lab: &mut Lab) -> Result<()> {
    let api = lab.cluster.admin();
    write(lab, "restored", 1)?;
    let saved = lab.cluster.save("before")?;
    write(lab, "late", 1)?;
    let name = config_maps().named("default", "restored");
    let later: i64 = api.run(async |objects| {
        let mut last = serde_json::Value::Null;
        for value in 2..=WRITES {
            last = objects.merge(&name, Part::Main, &json!({"data": {"value": value.to_string()}})).await?;
        }
        Ok(last["metadata"]["resourceVersion"].as_str().context("a version")?.parse()?)
    })?;
    ensure!(later > saved.revision + i64::from(WRITES) / 2, "{saved:?}, then {later}");
    lab.restore(&saved)?;
    let value = |name: &str| -> Result<_> {
        Ok(api.get(&config_maps(), "default", name)?.map(|object| object["data"]["value"].clone()))
    };
    ensure!(value("restored")? == Some(json!("1")) && value("late")?.is_none(), "the state is not the older one");
    let again: i64 = write(lab, "again", 1)?.parse()?;
    ensure!(saved.revision < again && again < later, "saved {saved:?}, written {later}, after it {again}");
    Ok(())
}
