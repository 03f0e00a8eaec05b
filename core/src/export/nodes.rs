//! Nodes, and CiliumNodes, which say more of them where Cilium runs.

use alloc::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use smol_str::SmolStr;

use super::{ExportedNode, ExporterConfig, records};
use crate::id::Addr;
use crate::object::{CiliumNodeObject, NodeObject};

/// What is known of nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    nodes: BTreeMap<SmolStr, NodeObject>,
    ciliums: BTreeMap<SmolStr, CiliumNodeObject>,
    /// Whether Cilium's objects counted when nodes were last judged.
    cilium: bool,
    changed: BTreeSet<SmolStr>,
}

impl Nodes {
    pub(super) fn put(&mut self, node: NodeObject) {
        if self.nodes.get(&node.name) != Some(&node) {
            self.changed.insert(node.name.clone());
            self.nodes.insert(node.name.clone(), node);
        }
    }

    pub(super) fn remove(&mut self, name: &SmolStr) {
        self.changed.extend(self.nodes.remove(name).map(|node| node.name));
    }

    pub(super) fn put_cilium(&mut self, node: CiliumNodeObject) {
        if self.ciliums.get(&node.name) != Some(&node) {
            self.changed.insert(node.name.clone());
            self.ciliums.insert(node.name.clone(), node);
        }
    }

    pub(super) fn remove_cilium(&mut self, name: &SmolStr) {
        self.changed.extend(self.ciliums.remove(name).map(|node| node.name));
    }

    /// Whether any CiliumNode is there.
    pub(super) fn has_ciliums(&self) -> bool {
        !self.ciliums.is_empty()
    }

    /// Which nodes may have changed. `cilium`: Cilium's objects count.
    pub(super) fn settle(&mut self, cilium: bool) -> BTreeSet<SmolStr> {
        if self.cilium != cilium {
            self.cilium = cilium;
            self.changed.extend(self.nodes.keys().chain(self.ciliums.keys()).cloned());
        }
        core::mem::take(&mut self.changed)
    }

    /// Where a node is its Node says, which has the zone; its CiliumNode alone, where there is no Node.
    pub(super) fn exported(&self, config: &ExporterConfig, name: &str) -> Option<ExportedNode> {
        let (node, of_cilium) = (self.nodes.get(name), self.ciliums.get(name).filter(|_| self.cilium));
        let own = match (node, of_cilium) {
            (Some(node), _) => records::node_info(&node.labels, &node.addresses),
            (None, Some(node)) => records::node_info(&node.labels, &node.addresses),
            (None, None) => return None,
        };
        let record = match self.cilium {
            true => of_cilium.map(|node| records::cilium_node(config, node)),
            false => node.map(|node| records::node(config, node)),
        };
        Some(ExportedNode { record, own })
    }

    pub(super) fn names(&self) -> BTreeSet<SmolStr> {
        self.nodes.keys().chain(self.ciliums.keys()).cloned().collect()
    }

    pub(super) fn pod_cidrs(&self) -> BTreeSet<IpNet> {
        let ciliums = self.ciliums.values().flat_map(|node| &node.pod_cidrs);
        self.nodes.values().flat_map(|node| &node.pod_cidrs).chain(ciliums).copied().collect()
    }

    pub(super) fn addresses(&self) -> BTreeSet<Addr> {
        let ciliums = self.ciliums.values().flat_map(|node| &node.addresses);
        self.nodes.values().flat_map(|node| &node.addresses).chain(ciliums).map(|(_, addr)| *addr).collect()
    }
}
