//! What the apiserver makes of a real API server, and what it does not make of its faults: a watcher of its store sees
//! every key that goes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tombolo_e2e::clock;
use tombolo_e2e::kube::Api;
use tombolo_e2e::recorder::{self, Backends, Recorder, service_key};
use tombolo_kube::objects::Kind;

use crate::lab::{Case, Lab, SOON};

pub(crate) const CASES: &[Case] = &[
    Case { name: "source: a Deployment is scaled, and its Pods are in the store", body: scaled },
    Case { name: "source: an annotation and a Namespace flip what is exported", body: flipped },
    Case { name: "source: an API server that is away takes nothing away", body: away },
    Case { name: "source: a compaction and an ended watch take nothing away", body: compacted },
    Case { name: "source: a restored older state is what counts, and only that", body: restored },
];

/// How long the API server is away; `TOMBOLO_E2E_AWAY` has other seconds.
const AWAY: u64 = 60;

/// The Namespace of these cases.
const NAMESPACE: &str = "galaxy";

fn base(name: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {NAMESPACE}, annotations: {{service.cilium.io/global: "true"}}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: base
        image: rebel-base
        command: [/rebel-base]
        args: ["--listen=$(POD_IP):8080", --cluster=ne, "--pod=$(POD)"]
        readinessProbe: {{httpGet: {{path: /, port: 8080}}}}
        env:
        - {{name: POD, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
        - {{name: POD_IP, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}
"#
    )
}

/// Waits until the store has what the API's EndpointSlices have: `count` endpoints.
fn follows(api: &Api, recorder: &Recorder, service: &str, count: usize) -> Result<Backends> {
    let endpoints: Backends = api.wait_endpoints(NAMESPACE, service, count, SOON)?.into_iter().collect();
    recorder.wait_backends(&service_key("ne", NAMESPACE, service), &endpoints, SOON)?;
    Ok(endpoints)
}

fn scaled(lab: &mut Lab) -> Result<()> {
    let api = lab.cluster.admin();
    let recorder = &lab.member()?.recorder;
    api.apply(&base("rebel-base"))?;
    for replicas in [2_u8, 5, 1, 3] {
        api.scale(NAMESPACE, "rebel-base", replicas.into())?;
        follows(&api, recorder, "rebel-base", replicas.into())?;
    }
    recorder.nothing_lost(NAMESPACE, 0)
}

fn flipped(lab: &mut Lab) -> Result<()> {
    let api = lab.cluster.admin();
    let recorder = &lab.member()?.recorder;
    api.apply(&base("rebel-base"))?;
    let (service, namespace) = (Kind::new("v1", "Service"), Kind::new("v1", "Namespace"));
    let key = service_key("ne", NAMESPACE, "rebel-base");
    let there = |wanted: bool| {
        let what = if wanted { "the service to be exported" } else { "the service to be withdrawn" };
        recorder::wait_keys(recorder, what, SOON, |keys| keys.contains(&key) == wanted)
    };
    there(true)?;
    recorder.mark();
    let annotated = |key: &str, value: Option<&str>| json!({"metadata": {"annotations": {key: value}}});
    for (value, wanted) in [("false", false), ("true", true)] {
        api.merge(&service, NAMESPACE, "rebel-base", &annotated("service.cilium.io/global", Some(value)))?;
        there(wanted)?;
    }
    for (value, wanted) in [(Some("false"), false), (None, true)] {
        api.merge(&namespace, "", NAMESPACE, &annotated("clustermesh.cilium.io/global", value))?;
        there(wanted)?;
    }
    // What other cases rely on: a key that went and returned is written down.
    let gone = recorder.losses().gone.into_iter().filter(|gone| *gone == key).count();
    ensure!(gone == 2, "the service was withdrawn twice, the recorder saw it {gone} times");
    Ok(())
}

fn away(lab: &mut Lab) -> Result<()> {
    let api = lab.cluster.admin();
    api.apply(&base("rebel-base"))?;
    api.scale(NAMESPACE, "rebel-base", 3)?;
    let recorder = &lab.member()?.recorder;
    follows(&api, recorder, "rebel-base", 3)?;
    recorder.mark();
    let seconds = std::env::var("TOMBOLO_E2E_AWAY").ok().and_then(|text| text.parse().ok()).unwrap_or(AWAY);
    lab.cluster.kill_apiserver()?;
    clock::let_pass(Duration::from_secs(seconds))?;
    lab.member()?.recorder.nothing_lost("/", 0).context("while the API server was away")?;
    lab.cluster.restart_apiserver()?;
    lab.cluster.restart_controllers()?;
    let recorder = &lab.member()?.recorder;
    api.scale(NAMESPACE, "rebel-base", 4)?;
    follows(&api, recorder, "rebel-base", 4)?;
    recorder.nothing_lost("/", 0).context("when the API server returned")?;
    recorder.nothing_lost(NAMESPACE, 3)
}

fn compacted(lab: &mut Lab) -> Result<()> {
    let api = lab.cluster.admin();
    api.apply(&base("rebel-base"))?;
    api.scale(NAMESPACE, "rebel-base", 3)?;
    let recorder = &lab.member()?.recorder;
    follows(&api, recorder, "rebel-base", 3)?;
    recorder.mark();
    lab.cluster.compact()?;
    // A new API server remembers nothing before its start: the watches of its clients end with 410.
    lab.cluster.restart_apiserver()?;
    lab.cluster.compact()?;
    let recorder = &lab.member()?.recorder;
    api.scale(NAMESPACE, "rebel-base", 4)?;
    follows(&api, recorder, "rebel-base", 4)?;
    recorder.nothing_lost("/", 0)?;
    recorder.nothing_lost(NAMESPACE, 3)
}

fn restored(lab: &mut Lab) -> Result<()> {
    let api = lab.cluster.admin();
    api.apply(&base("rebel-base"))?;
    api.scale(NAMESPACE, "rebel-base", 2)?;
    follows(&api, &lab.member()?.recorder, "rebel-base", 2)?;
    let saved = lab.cluster.save("with-two")?;
    api.apply(&base("late-base"))?;
    api.scale(NAMESPACE, "rebel-base", 5)?;
    let recorder = &lab.member()?.recorder;
    follows(&api, recorder, "rebel-base", 5)?;
    follows(&api, recorder, "late-base", 2)?;
    recorder.mark();
    lab.restore(&saved)?;
    ensure!(api.get(&Kind::new("v1", "Service"), NAMESPACE, "late-base")?.is_none(), "the state is not the older one");
    let recorder = &lab.member()?.recorder;
    let late = service_key("ne", NAMESPACE, "late-base");
    recorder::wait_keys(recorder, "what the state has not to leave", SOON, |keys| !keys.contains(&late))?;
    follows(&api, recorder, "rebel-base", 2)?;
    // The revisions are those of other writes now; all that follows is told just the same.
    api.scale(NAMESPACE, "rebel-base", 3)?;
    follows(&api, recorder, "rebel-base", 3)?;
    recorder.nothing_lost("/rebel-base", 1)
}
