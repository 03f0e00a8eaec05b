//! Which crate may know which. The tables here are the "never" list of ARCHITECTURE.md, checked over `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::shell::{self, cargo};

/// Our crates, and which of ours each may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("tombolo-core", &[]),
    ("tombolo-certs", &[]),
    ("tombolo-ebpf-layout", &[]),
    ("tombolo-wire", &["tombolo-core"]),
    ("tombolo-source", &["tombolo-core"]),
    ("tombolo-kube", &["tombolo-source", "tombolo-core"]),
    ("tombolo-store", &["tombolo-core", "tombolo-wire", "tombolo-certs"]),
    ("tombolo-ebpf", &["tombolo-core", "tombolo-ebpf-layout"]),
    (
        "tombolo-apiserver",
        &["tombolo-store", "tombolo-kube", "tombolo-source", "tombolo-wire", "tombolo-certs", "tombolo-core"],
    ),
    ("tombolo-agent", &["tombolo-store", "tombolo-ebpf", "tombolo-wire", "tombolo-certs", "tombolo-core"]),
    (
        "tombolo-cli",
        &["tombolo-kube", "tombolo-source", "tombolo-store", "tombolo-wire", "tombolo-certs", "tombolo-core"],
    ),
    ("tombolo-testkit", &["tombolo-core"]),
    ("tombolo-bench", &["tombolo-ebpf", "tombolo-core"]),
    (
        "tombolo-e2e",
        &[
            "tombolo-bench",
            "tombolo-kube",
            "tombolo-store",
            "tombolo-ebpf",
            "tombolo-wire",
            "tombolo-certs",
            "tombolo-core",
        ],
    ),
    ("xtask", &[]),
];

/// Crates of others that belong to one of ours alone.
const OWNED: &[(&str, &[&str])] = &[
    ("kube", &["tombolo-kube"]),
    ("etcd-client", &["tombolo-store"]),
    ("aya", &["tombolo-ebpf"]),
    ("rcgen", &["tombolo-certs"]),
    ("hickory-resolver", &["tombolo-store"]),
    ("prost", &["tombolo-wire"]),
];

/// What `core` and the layout may use: no std, no async, no clock can come in through these.
const PURE: &[(&str, &[&str])] =
    &[("tombolo-core", &["smol_str", "ipnet", "thiserror", "serde"]), ("tombolo-ebpf-layout", &[])];

/// Never anywhere in the graph: one TLS stack with one crypto provider.
const BANNED: &[&str] = &["openssl", "openssl-sys", "native-tls", "ring"];

/// Only ever a dev-dependency.
const DEV_ONLY: &str = "tombolo-testkit";

/// The dependency graph, reduced to names.
#[derive(Clone, Default)]
struct Graph {
    /// Of each of our crates: the crates it uses, with whether only for development.
    uses: BTreeMap<String, BTreeSet<(String, Use)>>,
    /// Every package in the resolved graph.
    packages: BTreeSet<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    Normal,
    Dev,
}

/// Fails and prints every arrow that should not be.
pub(crate) fn check(root: &Path) -> Result<()> {
    let graph = read(root)?;
    let found = violations(&graph);
    if found.is_empty() {
        println!(
            "arrows: {} crates of ours, {} in the graph, all as they should be",
            ARROWS.len(),
            graph.packages.len()
        );
        return Ok(());
    }
    bail!("{} arrows that should not be:\n  {}", found.len(), found.join("\n  "))
}

fn read(root: &Path) -> Result<Graph> {
    let metadata = MetadataCommand::new().current_dir(root).exec().context("cargo metadata")?;
    let mut graph = Graph::default();
    for package in metadata.workspace_packages() {
        let uses = package.dependencies.iter().map(|dependency| {
            let kind = if dependency.kind == DependencyKind::Development { Use::Dev } else { Use::Normal };
            (dependency.name.clone(), kind)
        });
        graph.uses.insert(package.name.to_string(), uses.collect());
    }
    // `cargo metadata` also lists optional packages that no feature turns on; `cargo tree` lists what is built.
    let mut tree = cargo(root);
    tree.args(["tree", "--workspace", "--target", "all", "--edges", "normal,build,dev", "--prefix", "none"]);
    let tree = shell::read(tree.args(["--format", "{p}"]))?;
    graph.packages = tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    Ok(graph)
}

fn violations(graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for (name, uses) in &graph.uses {
        let Some((_, allowed)) = ARROWS.iter().find(|(ours, _)| ours == name) else {
            found.push(format!("{name} is not in the table of arrows"));
            continue;
        };
        let pure = PURE.iter().find(|(ours, _)| ours == name).map(|(_, pure)| *pure);
        for (used, kind) in uses {
            found.extend(judge(name, used, *kind, allowed, pure));
        }
    }
    for banned in BANNED.iter().filter(|banned| graph.packages.contains(**banned)) {
        found.push(format!("{banned} is in the graph: one TLS stack (rustls) with one provider (aws-lc-rs)"));
    }
    found
}

/// What is wrong with one arrow, if anything.
fn judge(name: &str, used: &str, kind: Use, allowed: &[&str], pure: Option<&[&str]>) -> Option<String> {
    if used == DEV_ONLY {
        return (kind == Use::Normal).then(|| format!("{name} → {used}: a dev-dependency only"));
    }
    if ARROWS.iter().any(|(ours, _)| *ours == used) {
        let may = allowed.contains(&used) || kind == Use::Dev && !is_program(used) && is_program(name);
        return (!may).then(|| format!("{name} → {used}: not an arrow of ARCHITECTURE.md"));
    }
    if let Some((_, owners)) = OWNED.iter().find(|(owned, _)| *owned == used)
        && !owners.contains(&name)
    {
        return Some(format!("{name} → {used}: only {} may", owners.join(", ")));
    }
    let pure = pure?;
    (kind == Use::Normal && !pure.contains(&used)).then(|| format!("{name} → {used}: {name} stays pure"))
}

/// The crates that are whole programs: nothing depends on them.
fn is_program(name: &str) -> bool {
    ["tombolo-apiserver", "tombolo-agent", "tombolo-cli", "tombolo-e2e", "xtask"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, used: &str, kind: Use) -> Vec<String> {
        let mut graph = Graph::default();
        graph.uses.entry(name.to_owned()).or_default().insert((used.to_owned(), kind));
        graph.packages.extend([name.to_owned(), used.to_owned()]);
        violations(&graph)
    }

    #[test]
    fn each_rule_fires() {
        for (name, used, word) in [
            ("tombolo-core", "tombolo-wire", "not an arrow"),
            ("tombolo-apiserver", "tombolo-agent", "not an arrow"),
            ("tombolo-agent", "tombolo-apiserver", "not an arrow"),
            ("tombolo-source", "tombolo-store", "not an arrow"),
            ("tombolo-agent", "tombolo-testkit", "dev-dependency only"),
            ("tombolo-source", "kube", "only tombolo-kube may"),
            ("tombolo-agent", "etcd-client", "only tombolo-store may"),
            ("tombolo-agent", "aya", "only tombolo-ebpf may"),
            ("tombolo-cli", "rcgen", "only tombolo-certs may"),
            ("tombolo-apiserver", "hickory-resolver", "only tombolo-store may"),
            ("tombolo-apiserver", "prost", "only tombolo-wire may"),
            ("tombolo-core", "tokio", "stays pure"),
            ("tombolo-certs", "ring", "one TLS stack"),
            ("tombolo-certs", "openssl", "one TLS stack"),
            ("tombolo-certs", "native-tls", "one TLS stack"),
            ("tombolo-new", "serde", "not in the table"),
        ] {
            let found = with(name, used, Use::Normal);
            assert!(found.iter().any(|line| line.contains(word)), "{name} → {used}: {found:?}");
        }
    }

    #[test]
    fn what_is_allowed_passes() {
        assert_eq!(with("tombolo-wire", "tombolo-core", Use::Normal), Vec::<String>::new());
        assert_eq!(with("tombolo-core", "tombolo-testkit", Use::Dev), Vec::<String>::new());
        assert_eq!(with("tombolo-core", "proptest", Use::Dev), Vec::<String>::new());
        assert_eq!(with("tombolo-store", "etcd-client", Use::Normal), Vec::<String>::new());
    }
}
