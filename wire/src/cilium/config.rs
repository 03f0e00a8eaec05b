//! `cluster-config/<cluster>`: a cluster's id and what it can do; the only negotiation there is.
//!
//! Source: Cilium `pkg/clustermesh/types/types.go`.

use bytes::Bytes;
use tombolo_core::id::{ClusterId, IdError, MaxClusters};
use tombolo_core::record::{ClusterConfig, ExportMode};

use super::json::{self, JsonError, Ptr, go_struct};

go_struct!(
    /// `CiliumClusterConfig`.
    ConfigJson {
        id: u32 = "id" omitempty,
        capabilities: CapabilitiesJson = "capabilities",
    }
);

go_struct!(
    /// `CiliumClusterConfigCapabilities`.
    CapabilitiesJson {
        synced_canaries: bool = "syncedCanaries" omitempty,
        cached: bool = "cached" omitempty,
        max_connected_clusters: u32 = "maxConnectedClusters" omitempty,
        service_exports_enabled: Ptr<bool> = "serviceExportsEnabled" omitempty,
        export_mode: String = "endpointSlicesExportMode" omitempty,
    }
);

/// Why a cluster-config is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The value is not the JSON that Cilium reads.
    #[error("not a cluster-config: {0}")]
    Json(#[from] JsonError),
    /// The id is 0, absent, or above the reader's largest.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The peer's mesh size is not the reader's, which a mesh of 511 does not forgive.
    #[error("the peer's max-connected-clusters is {got}, this mesh's is {expected}: it must be one value everywhere")]
    MaxClusters {
        /// The peer's.
        got: u32,
        /// The reader's.
        expected: u16,
    },
    /// The peer exports services in a way this release does not know.
    #[error("the peer's endpointSlicesExportMode {0:?} is unknown: it may be newer than this program")]
    ExportMode(String),
}

/// The cluster-config's JSON, byte-equal to Cilium's.
pub fn encode_config(config: &ClusterConfig) -> Bytes {
    let capabilities = CapabilitiesJson {
        synced_canaries: config.synced_canaries,
        cached: config.cached,
        max_connected_clusters: config.max_connected_clusters,
        service_exports_enabled: Ptr(config.service_exports_enabled),
        export_mode: mode_text(config.export_mode).to_owned(),
    };
    json::write(&ConfigJson { id: config.id, capabilities }).into()
}

/// Decodes a cluster-config; an unknown export mode is refused, all else is [`validate_config`]'s.
pub fn decode_config(value: &[u8]) -> Result<ClusterConfig, ConfigError> {
    let ConfigJson { id, capabilities } = read(value)?;
    let modes = [ExportMode::ServicesOnly, ExportMode::Both, ExportMode::SlicesOnly];
    let export_mode = modes
        .into_iter()
        .find(|mode| mode_text(*mode) == capabilities.export_mode)
        .ok_or(ConfigError::ExportMode(capabilities.export_mode))?;
    Ok(ClusterConfig {
        id,
        synced_canaries: capabilities.synced_canaries,
        cached: capabilities.cached,
        max_connected_clusters: capabilities.max_connected_clusters,
        service_exports_enabled: capabilities.service_exports_enabled.0,
        export_mode,
    })
}

/// Cilium's `ValidateRemoteConfig` for a reader of a mesh of this size: the peer's id.
///
/// A mesh of 255 accepts any size in the peer, as Cilium does.
pub fn validate_config(config: &ClusterConfig, max: MaxClusters) -> Result<ClusterId, ConfigError> {
    let id = ClusterId::new(config.id, max)?;
    if max == MaxClusters::C511 && config.max_connected_clusters != u32::from(max.largest()) {
        return Err(ConfigError::MaxClusters { got: config.max_connected_clusters, expected: max.largest() });
    }
    Ok(id)
}

pub(super) fn read(value: &[u8]) -> Result<ConfigJson, JsonError> {
    let mut json = ConfigJson::default();
    json::read(value, &mut json)?;
    Ok(json)
}

fn mode_text(mode: ExportMode) -> &'static str {
    match mode {
        ExportMode::ServicesOnly => "",
        ExportMode::Both => "services-and-endpointslices",
        ExportMode::SlicesOnly => "endpointslices-only",
    }
}
