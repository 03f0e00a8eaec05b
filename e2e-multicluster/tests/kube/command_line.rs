//! The command line on three clusters, and nothing else: enabled, connected pairwise, looked at, taken back.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tombolo_e2e::kube::{self, KubeCluster};
use tombolo_e2e::operator::Said;
use tombolo_e2e::run::Run;
use tombolo_e2e::{netns, programs, topology};
use tombolo_kube::objects::{How, Kind, Part};

use crate::lab::Alone;

pub(crate) const CASES: &[Alone] =
    &[Alone { name: "command line: three clusters are enabled and connected pairwise by it alone", body: three }];

const CLUSTERS: [(&str, u8); 3] = [("ne", 1), ("we", 2), ("fc", 3)];

/// What an installation consists of, where no controller writes.
const OURS: [(&str, &str); 7] = [
    ("v1", "Namespace"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "Service"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("tombolo.io/v1alpha1", "MeshPeer"),
];

/// Three API servers, each with one Node.
struct Mesh {
    clusters: Vec<KubeCluster>,
    _run: Run,
}

impl Mesh {
    fn build() -> Result<Self> {
        let run = Run::begin(Path::new(env!("CARGO_BIN_EXE_demo")))?;
        let kit = kube::locate()?;
        let sites = topology::build(&run, &CLUSTERS, 1)?;
        let clusters =
            sites.iter().map(|site| KubeCluster::start(&run, site, &kit, &[])).collect::<Result<Vec<_>>>()?;
        clusters.iter().try_for_each(make_nodes)?;
        Ok(Self { clusters, _run: run })
    }

    fn cluster(&self, name: &str) -> Result<&KubeCluster> {
        self.clusters.iter().find(|cluster| cluster.site.name == name).context("a cluster of that name")
    }

    /// Runs `tombolo` where all API servers are reached, with a context for each.
    fn try_tombolo(&self, args: &str) -> Result<Said> {
        let files: Vec<OsString> = self.clusters.iter().map(|c| c.kubeconfig("admin").into()).collect();
        let program = programs::program("tombolo")?;
        netns::inside(&self.clusters[0].site.control.netns, || {
            let mut command = Command::new(&program);
            command.args(args.split(' ')).env("KUBECONFIG", files.join(OsString::from(":").as_os_str()));
            let output = command.output().context("run tombolo")?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ok(Said { out: text(&output.stdout), err: text(&output.stderr), well: output.status.success() })
        })
    }

    fn tombolo(&self, args: &str) -> Result<String> {
        let said = self.try_tombolo(args)?;
        ensure!(said.well, "`tombolo {args}` failed:\n{}{}", said.out, said.err);
        Ok(said.out)
    }

    fn fails(&self, args: &str, with: &str) -> Result<()> {
        let said = self.try_tombolo(args)?;
        let told = said.out + &said.err;
        ensure!(!said.well && told.contains(with), "`tombolo {args}` should fail with {with:?}, but:\n{told}");
        Ok(())
    }

    /// The versions of all objects of the installation that no controller touches.
    fn versions(&self, cluster: &str) -> Result<BTreeMap<String, String>> {
        let api = self.cluster(cluster)?.admin();
        let mut versions = BTreeMap::new();
        for (api_version, kind) in OURS {
            for object in api.list(&Kind::new(api_version, kind), "", "app.kubernetes.io/part-of=tombolo")? {
                let metadata = &object["metadata"];
                let name = format!("{kind} {}/{}", metadata["namespace"], metadata["name"]);
                versions.insert(name, metadata["resourceVersion"].to_string());
            }
        }
        for (kind, name) in [("Deployment", "tombolo-apiserver"), ("DaemonSet", "tombolo-agent")] {
            let object = api.get(&Kind::new("apps/v1", kind), "tombolo-system", name)?.context(kind)?;
            versions.insert(kind.into(), object["metadata"]["generation"].to_string());
        }
        Ok(versions)
    }

    fn peers(&self, cluster: &str) -> Result<Vec<String>> {
        let peers = self.cluster(cluster)?.admin().list(&Kind::new("tombolo.io/v1alpha1", "MeshPeer"), "", "")?;
        let told =
            |peer: &Value| format!("{} {}", text(&peer["metadata"]["name"]), text(&peer["spec"]["endpoints"][0]));
        let mut told: Vec<String> = peers.iter().map(told).collect();
        told.sort();
        Ok(told)
    }
}

/// The Nodes of a site, without a kubelet: their addresses and ranges are all that is asked for here.
fn make_nodes(cluster: &KubeCluster) -> Result<()> {
    let kind = Kind::new("v1", "Node");
    for node in &cluster.site.nodes {
        let name = kind.named("", &node.name);
        let object = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": node.name },
            "spec": { "podCIDRs": node.pod_ranges(), "podCIDR": node.pod_ranges()[0] },
        });
        let addresses = node.place.address.both().map(|ip| json!({ "type": "InternalIP", "address": ip }));
        let ready = json!([{ "type": "Ready", "status": "True", "reason": "Test", "message": "" }]);
        let status = json!({ "status": { "addresses": addresses, "conditions": ready } });
        cluster.admin().run(async |objects| {
            objects.apply(&name, &object, How::Write).await?;
            Ok(objects.merge(&name, Part::Status, &status).await.map(drop)?)
        })?;
    }
    Ok(())
}

fn three() -> Result<()> {
    let mut mesh = Mesh::build()?;
    enable(&mesh)?;
    connect(&mesh)?;
    take_back(&mut mesh)
}

fn enable(mesh: &Mesh) -> Result<()> {
    mesh.fails("enable --context ne", "--cluster-name is needed")?;
    mesh.fails("connect --context ne --destination-context we", "tombolo enable --context ne")?;
    mesh.tombolo("enable --context ne --cluster-name ne --cluster-id 1")?;
    mesh.tombolo("enable --context we --cluster-name we --cluster-id 2 --ca-from ne")?;
    let before = mesh.versions("ne")?;
    ensure!(before.len() > 12, "{before:#?}");
    let again: Value = serde_json::from_str(&mesh.tombolo("enable --context ne -o json")?)?;
    let written = |put: &&Value| put["outcome"] != "unchanged";
    let put = again["objects"].as_array().context("objects")?;
    ensure!(!put.iter().any(|put| written(&put)), "{:#?}", put.iter().filter(written).collect::<Vec<_>>());
    ensure!(mesh.versions("ne")? == before, "the second time wrote something");
    // A third cluster with an authority of its own, and an id that is taken.
    mesh.tombolo("enable --context fc --cluster-name fc --cluster-id 2")?;
    mesh.fails("connect --context we --destination-context fc", "we and fc both have id 2")?;
    mesh.fails("connect --context ne --destination-context fc", "--ca-from")?;
    ensure!(mesh.peers("ne")?.is_empty(), "nothing is written where something is in the way");
    mesh.tombolo("enable --context fc --cluster-id 3 --ca-from ne").map(drop)
}

fn connect(mesh: &Mesh) -> Result<()> {
    let connect = "connect --context ne --destination-context we,fc --connection-mode mesh";
    mesh.tombolo(&format!("{connect} --dry-run"))?;
    ensure!(mesh.peers("ne")?.is_empty(), "--dry-run writes nothing");
    let said = mesh.tombolo(connect)?;
    ensure!(said.matches("nothing is in the way").count() == 3, "three pairs are looked at:\n{said}");
    let at = |name: &str| format!("{name} https://{name}.mesh.cilium.io:32379");
    for (cluster, _) in CLUSTERS {
        let mut others: Vec<String> = CLUSTERS.iter().map(|c| c.0).filter(|c| *c != cluster).map(at).collect();
        others.sort();
        ensure!(mesh.peers(cluster)? == others, "{cluster}: {:?}", mesh.peers(cluster)?);
    }
    let secret = Kind::new("v1", "Secret");
    let secret = mesh.cluster("we")?.admin().get(&secret, "tombolo-peers", "tombolo-peer-fc")?.context("a Secret")?;
    ensure!(secret["metadata"]["labels"]["tombolo.io/peer"] == "fc", "{:?}", secret["metadata"]["labels"]);
    let before = CLUSTERS.map(|(name, _)| mesh.versions(name));
    mesh.tombolo(connect)?;
    for ((name, _), before) in CLUSTERS.into_iter().zip(before) {
        ensure!(mesh.versions(name)? == before?, "the second time wrote something in {name}");
    }
    mesh.fails("enable --context we --cluster-id 9", "disconnect it before")?;
    // No Pod runs here.
    mesh.fails("status --context ne,we,fc", "the apiserver has said nothing of it yet")?;
    mesh.fails("status --context ne --wait=2s -o json", "\"connected\": false")
}

fn take_back(mesh: &mut Mesh) -> Result<()> {
    mesh.tombolo("disconnect --context ne --destination-context fc")?;
    ensure!(mesh.peers("fc")?.len() == 1 && mesh.peers("ne")?.len() == 1, "both sides have forgotten");
    let Some(we) = mesh.clusters.iter_mut().find(|cluster| cluster.site.name == "we") else { bail!("no we") };
    we.kill_apiserver()?;
    mesh.fails("disconnect --context ne --destination-context we", "--peer NAME disconnects this side without it")?;
    mesh.fails("disconnect --context ne --peer ew", "it has we")?;
    mesh.fails("disable --context ne --keep-nodes", "disconnect them first")?;
    mesh.tombolo("disconnect --context ne --peer we")?;
    ensure!(mesh.peers("ne")?.is_empty(), "{:?}", mesh.peers("ne"));
    mesh.tombolo("disable --context ne --keep-nodes")?;
    let api = mesh.cluster("ne")?.admin();
    for (api_version, kind) in [("apiextensions.k8s.io/v1", "CustomResourceDefinition"), OURS[0], OURS[4]] {
        let left = api.list(&Kind::new(api_version, kind), "", "")?;
        let ours: Vec<&str> =
            left.iter().map(|o| text(&o["metadata"]["name"])).filter(|n| n.contains("tombolo")).collect();
        ensure!(ours.is_empty(), "{kind}: {ours:?}");
    }
    mesh.tombolo("disable --context ne --keep-nodes").map(drop)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
