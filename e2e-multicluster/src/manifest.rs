//! The manifests of a cluster's source: Kubernetes YAML, as an operator would write it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result};
use tombolo_core::id::Family;
use tombolo_core::model::Port;

use crate::topology::{Dual, Site};

/// Annotations of an object.
pub type Annotations = BTreeMap<String, String>;

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its cluster IPs, the first of the family it prefers.
    pub addresses: Vec<IpAddr>,
    /// The ports clients dial.
    pub ports: Vec<Port>,
    /// For how long a client keeps its backend (`sessionAffinity: ClientIP`); absent without affinity.
    pub client_ip_seconds: Option<u32>,
    /// Its annotations.
    pub annotations: Annotations,
}

/// One endpoint of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// The node it runs on.
    pub node: String,
    /// Whether it is ready.
    pub readiness: Readiness,
}

impl Endpoint {
    /// What it is as a backend of one of these ports, as tables name it.
    pub fn target(&self, port: &Port) -> String {
        format!("{}/{}", SocketAddr::new(self.address, TARGET_PORT), port.protocol)
    }

    /// The family of its address.
    pub fn family(&self) -> Family {
        if self.address.is_ipv4() { Family::V4 } else { Family::V6 }
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
        let ([range, range6], Dual { v4, v6 }) = (node.pod_ranges(), node.place.address);
        format!(
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n  labels:\n    topology.kubernetes.io/zone: {zone}\n\
             spec:\n  podCIDR: {range}\n  podCIDRs: [{range}, {range6:?}]\nstatus:\n  addresses:\n  - type: InternalIP\n    \
             address: {v4}\n  - type: InternalIP\n    address: {v6:?}\n  - type: Hostname\n    address: {name}\n",
            v6 = v6.to_string(),
        )
    };
    site.nodes.iter().enumerate().map(one).collect::<Vec<_>>().join("---\n")
}

impl Service {
    /// The Service's manifest.
    pub fn manifest(&self) -> String {
        let Self { namespace, name, addresses, ports, client_ip_seconds, annotations } = self;
        let mut text = format!("apiVersion: v1\nkind: Service\nmetadata:\n  namespace: {namespace}\n  name: {name}\n");
        if !annotations.is_empty() {
            text.push_str("  annotations:\n");
        }
        for (key, value) in annotations {
            add(&mut text, format_args!("    {key}: {value:?}"));
        }
        let quoted: Vec<_> = addresses.iter().map(|ip| format!("\"{ip}\"")).collect();
        add(&mut text, format_args!("spec:\n  clusterIP: {}\n  clusterIPs: [{}]", quoted[0], quoted.join(", ")));
        add(&mut text, format_args!("  selector:\n    app: {name}"));
        if let Some(seconds) = client_ip_seconds {
            let config = format_args!("  sessionAffinityConfig:\n    clientIP:\n      timeoutSeconds: {seconds}");
            add(&mut text, format_args!("  sessionAffinity: ClientIP\n{config}"));
        }
        text.push_str("  ports:\n");
        for Port { name, protocol, number } in ports {
            add(&mut text, format_args!("  - name: {name}\n    protocol: {protocol}\n    port: {number}"));
            add(&mut text, format_args!("    targetPort: {TARGET_PORT}"));
        }
        text
    }

    /// The manifest of one of the Service's EndpointSlices: what of these endpoints is of a family.
    pub fn slice(&self, slice: &str, family: Family, endpoints: &[Endpoint]) -> String {
        let Self { namespace, name, ports, .. } = self;
        let kind = match family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        let mut text = format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  namespace: {namespace}\n  name: {slice}\n  \
             labels:\n    kubernetes.io/service-name: {name}\naddressType: {kind}\nports:\n"
        );
        for Port { name, protocol, .. } in ports {
            add(&mut text, format_args!("- name: {name}\n  protocol: {protocol}\n  port: {TARGET_PORT}"));
        }
        let of_family: Vec<_> = endpoints.iter().filter(|e| e.family() == family).collect();
        text.push_str(if of_family.is_empty() { "endpoints: []\n" } else { "endpoints:\n" });
        for Endpoint { address, node, readiness } in of_family {
            let ready = *readiness == Readiness::Ready;
            add(&mut text, format_args!("- addresses: [\"{address}\"]\n  nodeName: {node}"));
            add(&mut text, format_args!("  conditions:\n    ready: {ready}"));
        }
        text
    }
}

fn add(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes all that is written to it");
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
    use tombolo_core::model::Protocol;

    use super::*;

    fn port(name: &str, protocol: Protocol) -> Port {
        Port { name: name.into(), protocol, number: 80 }
    }

    #[test]
    fn a_service_and_its_slices() {
        let service = Service {
            namespace: "default".into(),
            name: "rebel-base".into(),
            addresses: ["10.97.0.10", "fd7b:1:5e00::a"].map(|ip| ip.parse().unwrap()).to_vec(),
            ports: vec![port("http", Protocol::Tcp), port("datagrams", Protocol::Udp)],
            client_ip_seconds: Some(30),
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
              clusterIP: "10.97.0.10"
              clusterIPs: ["10.97.0.10", "fd7b:1:5e00::a"]
              selector:
                app: rebel-base
              sessionAffinity: ClientIP
              sessionAffinityConfig:
                clientIP:
                  timeoutSeconds: 30
              ports:
              - name: http
                protocol: TCP
                port: 80
                targetPort: 8080
              - name: datagrams
                protocol: UDP
                port: 80
                targetPort: 8080
        "#]]
        .assert_eq(&service.manifest());
        let endpoint =
            |ip: &str| Endpoint { address: ip.parse().unwrap(), node: "ne-1".into(), readiness: Readiness::NotReady };
        let endpoints = ["10.1.1.1", "fd7b:1:1::1"].map(endpoint);
        assert_eq!(endpoints[1].target(&service.ports[1]), "[fd7b:1:1::1]:8080/UDP");
        expect![[r#"
            apiVersion: discovery.k8s.io/v1
            kind: EndpointSlice
            metadata:
              namespace: default
              name: rebel-base-v4
              labels:
                kubernetes.io/service-name: rebel-base
            addressType: IPv4
            ports:
            - name: http
              protocol: TCP
              port: 8080
            - name: datagrams
              protocol: UDP
              port: 8080
            endpoints:
            - addresses: ["10.1.1.1"]
              nodeName: ne-1
              conditions:
                ready: false
        "#]]
        .assert_eq(&service.slice("rebel-base-v4", Family::V4, &endpoints));
        expect![[r#"
            apiVersion: discovery.k8s.io/v1
            kind: EndpointSlice
            metadata:
              namespace: default
              name: rebel-base-v6
              labels:
                kubernetes.io/service-name: rebel-base
            addressType: IPv6
            ports:
            - name: http
              protocol: TCP
              port: 8080
            - name: datagrams
              protocol: UDP
              port: 8080
            endpoints: []
        "#]]
        .assert_eq(&service.slice("rebel-base-v6", Family::V6, &endpoints[..1]));
    }
}
