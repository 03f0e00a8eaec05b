//! Who a cluster is: the ConfigMap `tombolo-cluster`, and how the cluster was enabled.

use std::collections::BTreeMap;

use clap::ValueEnum;
use ipnet::IpNet;
use serde_json::json;
use tombolo_core::id::{ClusterId, ClusterName, IdError, MaxClusters};
use tombolo_kube::apply::Document;
use tombolo_kube::install::{CLUSTER_CONFIG, ClusterMap, Found, PART_OF, SYSTEM_NAMESPACE};
use tombolo_kube::objects::Kind;

use crate::args::{EnableArgs, Profile, ServiceType};

/// Annotations of the ConfigMap: how the cluster was enabled, so that the next time need not say it.
const PROFILE: &str = "tombolo.io/profile";
const SERVICE_TYPE: &str = "tombolo.io/service-type";
const INTERNAL: &str = "tombolo.io/internal";
const IMAGE: &str = "tombolo.io/image";

/// Why a cluster's configuration cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    /// It was never enabled, and a flag is missing.
    #[error("the cluster was not enabled before: {flag} is needed")]
    Needed {
        /// The flag.
        flag: &'static str,
    },
    /// A cluster with peers cannot become another.
    #[error("the cluster is {was} and has peers ({}): disconnect it before it becomes {becomes}", peers.join(", "))]
    Connected {
        /// Name, id and size of the mesh.
        was: String,
        /// The same, as asked for.
        becomes: String,
        /// Who knows it.
        peers: Vec<String>,
    },
    /// Name, id or size of the mesh is wrong.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A key of the ConfigMap is absent or wrong.
    #[error("ConfigMap {SYSTEM_NAMESPACE}/{CLUSTER_CONFIG}: {key}: {value:?} will not do")]
    Key {
        /// The key.
        key: &'static str,
        /// What stands there.
        value: String,
    },
}

/// Who a cluster is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterConfig {
    /// Its name.
    pub name: ClusterName,
    /// Its id.
    pub id: ClusterId,
    /// The size of its mesh.
    pub max: MaxClusters,
    /// Ranges of its Services.
    pub services: Vec<IpNet>,
    /// Ranges of its Pods beside those of its Nodes.
    pub pods: Vec<IpNet>,
    /// Whether a Namespace that says nothing is global.
    pub global: bool,
}

/// How a cluster is enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The manifests.
    pub profile: Profile,
    /// The type of the store's Service, when not the profile's.
    pub service_type: Option<ServiceType>,
    /// Whether a load balancer is internal, when not as the profile has it.
    pub internal: Option<bool>,
    /// The image, when not the profile's.
    pub image: Option<String>,
}

impl ClusterConfig {
    /// Reads the ConfigMap.
    pub(crate) fn parse(data: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let text = |key: &'static str| data.get(key).map_or("", |text| text.trim());
        let wrong = |key: &'static str| ConfigError::Key { key, value: text(key).to_owned() };
        let number = |key: &'static str| text(key).parse::<u32>().map_err(|_| wrong(key));
        let max = if text("maxConnectedClusters").is_empty() {
            MaxClusters::default()
        } else {
            MaxClusters::new(number("maxConnectedClusters")?)?
        };
        let ranges = |key: &'static str| {
            let texts = text(key).split(',').map(str::trim).filter(|text| !text.is_empty());
            texts.map(|text| text.parse::<IpNet>().map_err(|_| wrong(key))).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            name: ClusterName::new(text("name")).map_err(|_| wrong("name"))?,
            id: ClusterId::new(number("id")?, max)?,
            max,
            services: ranges("serviceCIDRs")?,
            pods: ranges("podCIDRs")?,
            global: text("defaultGlobalNamespace") != "false",
        })
    }

    /// What is asked for, over what is there.
    pub(crate) fn wanted(args: &EnableArgs, found: &Found) -> Result<Self, ConfigError> {
        // What cannot be read is replaced by what is said now.
        let before = found.config.as_ref().and_then(|map| Self::parse(&map.data).ok());
        let kept = before.as_ref();
        let name = args.cluster_name.clone().or_else(|| kept.map(|c| c.name.clone()));
        let id = args.cluster_id.or_else(|| kept.map(|c| c.id.get().into()));
        let max = match args.max_connected_clusters {
            Some(n) => MaxClusters::new(n)?,
            None => kept.map_or_else(MaxClusters::default, |c| c.max),
        };
        let or = |said: &[IpNet], kept: Option<&Vec<IpNet>>, found: &[IpNet]| {
            let kept = kept.filter(|kept| !kept.is_empty()).map(Vec::as_slice);
            let mut ranges = if said.is_empty() { kept.unwrap_or(found) } else { said }.to_vec();
            ranges.sort();
            ranges.dedup();
            ranges
        };
        let wanted = Self {
            name: name.ok_or(ConfigError::Needed { flag: "--cluster-name" })?,
            id: ClusterId::new(id.ok_or(ConfigError::Needed { flag: "--cluster-id" })?, max)?,
            max,
            services: or(&args.service_cidrs, kept.map(|c| &c.services), &found.service_cidrs),
            pods: or(&args.pod_cidrs, kept.map(|c| &c.pods), &[]),
            global: args.default_global_namespace.or(kept.map(|c| c.global)).unwrap_or(true),
        };
        match before {
            Some(before) if before.who() != wanted.who() && !found.peers.is_empty() => {
                let name = |peer: &tombolo_kube::resources::MeshPeer| peer.metadata.name.clone().unwrap_or_default();
                let peers = found.peers.iter().map(name).collect();
                Err(ConfigError::Connected { was: before.who(), becomes: wanted.who(), peers })
            }
            _ => Ok(wanted),
        }
    }

    /// What peers know it by.
    fn who(&self) -> String {
        format!("{} (id {} of {})", self.name, self.id, self.max.largest())
    }

    /// The ConfigMap's data.
    pub(crate) fn data(&self) -> BTreeMap<&'static str, String> {
        let list = |ranges: &[IpNet]| ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut data = BTreeMap::from([
            ("name", self.name.to_string()),
            ("id", self.id.to_string()),
            ("maxConnectedClusters", self.max.largest().to_string()),
            ("defaultGlobalNamespace", self.global.to_string()),
        ]);
        // An empty list is an absent key: an empty text is no CIDR.
        for (key, ranges) in [("serviceCIDRs", &self.services), ("podCIDRs", &self.pods)] {
            if !ranges.is_empty() {
                data.insert(key, list(ranges));
            }
        }
        data
    }

    /// The ConfigMap.
    pub(crate) fn document(&self, shape: &Shape) -> Document {
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": CLUSTER_CONFIG,
                "namespace": SYSTEM_NAMESPACE,
                "labels": { PART_OF.0: PART_OF.1 },
                "annotations": shape.annotations(),
            },
            "data": self.data(),
        });
        Document { line: 1, name: Kind::new("v1", "ConfigMap").named(SYSTEM_NAMESPACE, CLUSTER_CONFIG), object }
    }
}

impl Shape {
    /// What is asked for, over how it was enabled before, over what suits the nodes.
    pub(crate) fn wanted(args: &EnableArgs, found: &Found) -> Self {
        let before = |key: &str| found.config.as_ref().and_then(|ClusterMap { annotations, .. }| annotations.get(key));
        fn chosen<T: ValueEnum>(text: Option<&String>) -> Option<T> {
            text.and_then(|text| T::from_str(text, false).ok())
        }
        let clouds: Vec<&str> = found.nodes.iter().map(|node| node.provider.as_str()).collect();
        let suits = match clouds.first() {
            Some(&"azure") => Profile::Aks,
            Some(&"aws") => Profile::Eks,
            _ => Profile::Dev,
        };
        Self {
            profile: args.profile.or_else(|| chosen(before(PROFILE))).unwrap_or(suits),
            service_type: args.service_type.or_else(|| chosen(before(SERVICE_TYPE))),
            internal: args.internal.or_else(|| before(INTERNAL)?.parse().ok()),
            image: args.image.clone().or_else(|| before(IMAGE).cloned()),
        }
    }

    fn annotations(&self) -> BTreeMap<&'static str, String> {
        let profile = self.profile.to_possible_value().map(|value| value.get_name().to_owned());
        let said = [
            (PROFILE, profile),
            (SERVICE_TYPE, self.service_type.map(|kind| kind.as_str().to_owned())),
            (INTERNAL, self.internal.map(|internal| internal.to_string())),
            (IMAGE, self.image.clone()),
        ];
        said.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

#[cfg(test)]
mod tests;
