//! The Helm chart: what it renders for each profile, and whether Helm and its schema find it good.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::Files;
use crate::shell::{command, read};

/// The chart's folder.
const CHART: &str = "manifests/charts/tombolo";

/// What Helm is told of the cluster; without it, it takes a version of its own.
const KUBERNETES: &str = "1.36.0";

/// The namespace that the plain manifests are for.
const NAMESPACE: &str = "tombolo-system";

/// The plain manifests: one file a profile. They have their Namespaces; the definitions are files of their own.
pub(super) fn render(root: &Path, helm: &Path) -> Result<Files> {
    let profiles = profiles(root)?;
    ensure!(!profiles.is_empty(), "{CHART}/profiles is empty");
    let one = |name: String| {
        let head = format!("# Rendered from {CHART} with profiles/{name}.yaml by `cargo xtask manifests`.\n");
        let sets = ["namespaces.system=true", "crds.install=false"];
        let text = read(&mut template(root, helm, Some(&name), &sets)).with_context(|| format!("profile {name}"))?;
        Ok((format!("{name}.yaml"), head + &text))
    };
    profiles.into_iter().map(one).collect()
}

/// Has Helm lint the chart, and its schema refuse what it should and take what it should.
pub(super) fn check(root: &Path, helm: &Path) -> Result<()> {
    read(command(root, helm).args(["lint", "--strict", "--kube-version", KUBERNETES, CHART]))?;
    for profile in profiles(root)? {
        let values = format!("{CHART}/profiles/{profile}.yaml");
        let lint = ["lint", "--strict", "--kube-version", KUBERNETES, "--values", &values, CHART];
        read(command(root, helm).args(lint)).with_context(|| values.clone())?;
    }
    for (value, why) in REFUSED {
        match read(&mut template(root, helm, None, &[value])) {
            Ok(_) => bail!("the chart takes --set {value}: {why}"),
            Err(error) => {
                ensure!(format!("{error:#}").contains("values don't meet"), "--set {value}: {error:#}");
            }
        }
    }
    for (values, there, absent) in TAKEN {
        let text = read(&mut template(root, helm, None, values)).with_context(|| format!("--set {values:?}"))?;
        for part in *there {
            ensure!(text.contains(part), "with {values:?} the chart does not render {part:?}");
        }
        for part in *absent {
            ensure!(!text.contains(part), "with {values:?} the chart renders {part:?}");
        }
    }
    println!("chart: Helm finds nothing; {} mistakes refused, {} choices taken", REFUSED.len(), TAKEN.len());
    Ok(())
}

/// Values that are mistakes.
const REFUSED: &[(&str, &str)] = &[
    ("agnet.log=debug", "nothing is called so"),
    ("apiserver.replica=2", "nothing is called so"),
    ("apiserver.replicas=0", "an apiserver there must be"),
    ("apiserver.replicas=two", "it is a number"),
    ("service.type=Loadbalancer", "Kubernetes writes it LoadBalancer"),
    ("service.cloud=azure", "it is called aks"),
    ("cluster.name=We", "names have no capitals"),
    ("cluster.name=we", "a cluster with a name has an id"),
    ("cluster.serviceCIDRs={10.0.0.0}", "it is no range"),
    ("certificates.mode=cert-manager", "its certificates bear the cluster's name"),
    ("etcd.external.enabled=true", "it has an address"),
    ("etcd.external.enabled=true,etcd.external.endpoints={http://a:2379}", "it is dialled with TLS"),
    (
        "etcd.external.enabled=true,etcd.external.endpoints={https://a:2379},apiserver.replicas=2",
        "two apiservers on one store repair each other's keys",
    ),
    ("image.digest=sha256:12", "a digest has 64 digits"),
    ("agent.maxUnavailable=0", "no agent would ever be replaced"),
];

/// Choices: values, what they bring, and what they do not.
type Choice = (&'static [&'static str], &'static [&'static str], &'static [&'static str]);

const TAKEN: &[Choice] = &[
    (
        &[],
        &["kind: CustomResourceDefinition", "helm.sh/resource-policy: keep", "- SYS_ADMIN", "- SYS_PTRACE"],
        &["kind: PodDisruptionBudget", "name: tombolo-cluster\n", "kind: Certificate", "kind: ServiceMonitor"],
    ),
    (&["crds.install=false"], &[], &["kind: CustomResourceDefinition"]),
    (&["apiserver.replicas=2"], &["kind: PodDisruptionBudget", "sessionAffinity: ClientIP"], &[]),
    (
        &["cluster.name=we", "cluster.id=2", "cluster.podCIDRs={10.1.0.0/16,fd00::/64}"],
        &["name: tombolo-cluster\n", "id: \"2\"", "podCIDRs: \"10.1.0.0/16,fd00::/64\""],
        &["  serviceCIDRs:"],
    ),
    (&["agent.endSocketsInPods=false"], &["hostPID: false", "- BPF", "- NET_ADMIN"], &["- SYS_ADMIN", "- SYS_PTRACE"]),
    (&["agent.mode=uninstall"], &["args: [uninstall,", "--datapath=none"], &["--allow-root-cgroup"]),
    (
        &["apiserver.mirrorEndpointSlices=all"],
        &[
            "[endpointslices]\n  verbs: [get, list, watch, create, update, patch, delete]",
            "--mirror-endpoint-slices=all",
        ],
        &[],
    ),
    (
        &["apiserver.mirrorEndpointSlices=off"],
        &["[endpointslices]\n  verbs: [get, list, watch]", "--mirror-endpoint-slices=off"],
        &[],
    ),
    (&["image.repository=r.example/t", "image.tag=v1"], &["\"r.example/t:v1\""], &["tombolo-mesh/tombolo:"]),
    (
        &["service.type=LoadBalancer", "service.cloud=aks", "service.aks.subnet=mesh"],
        &["azure-load-balancer-internal: \"true\"", "azure-load-balancer-internal-subnet: mesh"],
        &["aws-load-balancer"],
    ),
    (
        &["service.type=LoadBalancer", "service.cloud=aks", "service.exposure=external"],
        &[],
        &["azure-load-balancer-internal"],
    ),
    (
        &["service.type=LoadBalancer", "service.cloud=eks", "service.exposure=external"],
        &["aws-load-balancer-scheme: internet-facing", "aws-load-balancer-nlb-target-type: ip"],
        &["azure-load-balancer"],
    ),
    (&["listenAddress=[::]"], &["--listen-client-urls=https://[::]:2379", "--health-listen=[::]:9880"], &["0.0.0.0"]),
    (&["networkPolicy.enabled=false"], &[], &["kind: NetworkPolicy"]),
    (
        &[
            "certificates.mode=cert-manager",
            "certificates.certManager.authMode=cluster",
            "cluster.name=we",
            "cluster.id=2",
        ],
        &["\"remote-we\"", "\"admin-we\"", "\"local-we\"", "\"clustermesh-apiserver.tombolo-system.svc\""],
        &["commonName: \"remote\""],
    ),
];

/// The names of the profiles, in order.
fn profiles(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join(CHART).join("profiles"))? {
        let name = entry?.file_name();
        names.extend(name.to_str().and_then(|name| name.strip_suffix(".yaml")).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

fn template(root: &Path, helm: &Path, profile: Option<&str>, sets: &[&str]) -> Command {
    let mut template = command(root, helm);
    template.args(["template", "tombolo", CHART, "--namespace", NAMESPACE, "--kube-version", KUBERNETES]);
    if let Some(profile) = profile {
        template.args(["--values", &format!("{CHART}/profiles/{profile}.yaml")]);
    }
    for set in sets {
        template.args(["--set", set]);
    }
    template
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_chart_has_the_version_of_the_programs() {
        let chart = std::fs::read_to_string(crate::shell::root().unwrap().join(super::CHART).join("Chart.yaml"));
        let chart = chart.unwrap();
        for key in ["version", "appVersion"] {
            assert!(chart.contains(&format!("\n{key}: {}\n", env!("CARGO_PKG_VERSION"))), "{key} of {chart}");
        }
    }
}
