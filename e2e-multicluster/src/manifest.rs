//! The manifests of a cluster's source: Kubernetes YAML, as an operator would write it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::topology::Site;

/// Annotations of an object.
pub type Annotations = BTreeMap<String, String>;

/// A Service with one TCP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its cluster IP.
    pub address: Ipv4Addr,
    /// The port clients dial.
    pub port: u16,
    /// Its annotations.
    pub annotations: Annotations,
}

/// One endpoint of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: Ipv4Addr,
    /// The node it runs on.
    pub node: String,
    /// Whether it is ready.
    pub readiness: Readiness,
}

impl Endpoint {
    /// Its address with the port pods listen on.
    pub fn target(&self) -> String {
        format!("{}:{TARGET_PORT}", self.address)
    }
}

/// The `ready` condition of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// `ready: true`.
    Ready,
    /// `ready: false`.
    NotReady,
}

/// Namespaces of a cluster.
pub fn namespaces(names: &[&str]) -> String {
    let one = |name: &&str| format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n");
    names.iter().map(one).collect::<Vec<_>>().join("---\n")
}

/// The Nodes of a site, each in a zone of its own.
pub fn nodes(site: &Site) -> String {
    let one = |(index, node): (usize, &crate::topology::Node)| {
        let (name, zone) = (&node.name, format!("{}-{}", site.name, char::from(b'a' + (index % 26) as u8)));
        format!(
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n  labels:\n    topology.kubernetes.io/zone: {zone}\n\
             spec:\n  podCIDR: {range}\n  podCIDRs: [{range}]\nstatus:\n  addresses:\n  - type: InternalIP\n    \
             address: {address}\n  - type: Hostname\n    address: {name}\n",
            range = node.pod_range(),
            address = node.place.address,
        )
    };
    site.nodes.iter().enumerate().map(one).collect::<Vec<_>>().join("---\n")
}

impl Service {
    /// The Service's manifest.
    pub fn manifest(&self) -> String {
        let Self { namespace, name, address, port, annotations } = self;
        let mut text = format!("apiVersion: v1\nkind: Service\nmetadata:\n  namespace: {namespace}\n  name: {name}\n");
        if !annotations.is_empty() {
            text.push_str("  annotations:\n");
        }
        for (key, value) in annotations {
            writeln!(text, "    {key}: {value:?}").expect("a string takes all that is written to it");
        }
        text + &format!(
            "spec:\n  clusterIP: {address}\n  clusterIPs: [{address}]\n  selector:\n    app: {name}\n  ports:\n  \
             - name: http\n    protocol: TCP\n    port: {port}\n    targetPort: {TARGET_PORT}\n"
        )
    }

    /// The manifest of one of the Service's EndpointSlices.
    pub fn slice(&self, slice: &str, endpoints: &[Endpoint]) -> String {
        let Self { namespace, name, .. } = self;
        let mut text = format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  namespace: {namespace}\n  name: {slice}\n  \
             labels:\n    kubernetes.io/service-name: {name}\naddressType: IPv4\nports:\n- name: http\n  protocol: TCP\n  \
             port: {TARGET_PORT}\n"
        );
        text.push_str(if endpoints.is_empty() { "endpoints: []\n" } else { "endpoints:\n" });
        for Endpoint { address, node, readiness } in endpoints {
            let ready = *readiness == Readiness::Ready;
            writeln!(text, "- addresses: [{address}]\n  nodeName: {node}\n  conditions:\n    ready: {ready}")
                .expect("a string takes all that is written to it");
        }
        text
    }
}

/// The port that pods listen on.
pub const TARGET_PORT: u16 = 8080;

/// Writes a file so that a reader sees the old or the new text, never a part.
///
/// # Errors
/// It cannot be written.
pub fn write_whole(path: &Path, text: &str) -> Result<()> {
    let name = path.file_name().context("a file has a name")?;
    let draft = path.with_file_name(format!(".{}.new", name.to_string_lossy()));
    fs::write(&draft, text).with_context(|| format!("write {}", draft.display()))?;
    fs::rename(&draft, path).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_service_and_its_slice() {
        let service = Service {
            namespace: "default".into(),
            name: "rebel-base".into(),
            address: Ipv4Addr::new(10, 97, 0, 10),
            port: 80,
            annotations: [("service.cilium.io/global".to_owned(), "true".to_owned())].into(),
        };
        expect![[r#"
            apiVersion: v1
            kind: Service
            metadata:
              namespace: default
              name: rebel-base
              annotations:
                service.cilium.io/global: "true"
            spec:
              clusterIP: 10.97.0.10
              clusterIPs: [10.97.0.10]
              selector:
                app: rebel-base
              ports:
              - name: http
                protocol: TCP
                port: 80
                targetPort: 8080
        "#]]
        .assert_eq(&service.manifest());
        let endpoint =
            Endpoint { address: Ipv4Addr::new(10, 1, 1, 1), node: "ne-1".into(), readiness: Readiness::NotReady };
        expect![[r#"
            apiVersion: discovery.k8s.io/v1
            kind: EndpointSlice
            metadata:
              namespace: default
              name: rebel-base-1
              labels:
                kubernetes.io/service-name: rebel-base
            addressType: IPv4
            ports:
            - name: http
              protocol: TCP
              port: 8080
            endpoints:
            - addresses: [10.1.1.1]
              nodeName: ne-1
              conditions:
                ready: false
        "#]]
        .assert_eq(&service.slice("rebel-base-1", &[endpoint]));
    }
}
