//! The leaves of a cluster: whom each stands for, under which names, for how long.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::files::Role;

/// The domain under which every cluster's store is dialled: `<cluster>.mesh.cilium.io`.
pub const MESH_DOMAIN: &str = "mesh.cilium.io";

/// The namespace that Cilium's chart installs into, and with it the default of a server certificate's name.
pub const DEFAULT_NAMESPACE: &str = "kube-system";

/// Which user a cluster's remote certificate stands for in the peers' stores.
///
/// Source: Cilium's Helm value `clustermesh.apiserver.tls.authMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthMode {
    /// One shared user, `remote`.
    Legacy,
    /// Users per cluster exist, `remote` is still shown. The default since Cilium 1.19.
    #[default]
    Migration,
    /// `remote-<cluster>`; needs one authority across the mesh.
    Cluster,
}

/// One leaf of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// The store's listener.
    Server {
        /// The namespace in `clustermesh-apiserver.<namespace>.svc`.
        namespace: String,
        /// Further host names.
        dns: Vec<String>,
        /// Further addresses.
        ips: Vec<IpAddr>,
    },
    /// `admin-<cluster>`: the apiserver towards its own store, and the operator.
    Admin,
    /// `local-<cluster>`: the agents towards the own store.
    Local,
    /// `remote` or `remote-<cluster>`: the mirror towards the peers' stores.
    Remote(AuthMode),
}

/// From when until when, unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before: u64,
    /// Last second.
    pub not_after: u64,
}

/// A leaf that an authority is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafRequest {
    /// The cluster's name.
    pub cluster: String,
    /// Which leaf.
    pub leaf: Leaf,
    /// How long it should be valid; cut to the authority's own end.
    pub validity: Validity,
}

/// What a certificate may be used for in TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Usage {
    /// `serverAuth`
    Server,
    /// `clientAuth`
    Client,
}

impl Validity {
    /// Clocks differ: a certificate is valid from this long before it was made.
    const BACKDATED_SECONDS: u64 = 300;

    /// Beginning now (unix seconds), for this many days.
    pub fn days(now: u64, days: u32) -> Self {
        Self {
            not_before: now.saturating_sub(Self::BACKDATED_SECONDS),
            not_after: now.saturating_add(u64::from(days) * 86_400),
        }
    }
}

impl Leaf {
    /// Its role, hence its file names.
    pub fn role(&self) -> Role {
        match self {
            Self::Server { .. } => Role::Server,
            Self::Admin => Role::Admin,
            Self::Local => Role::Local,
            Self::Remote(_) => Role::Remote,
        }
    }

    /// The subject's common name. For a client certificate this is the etcd user.
    pub fn common_name(&self, cluster: &str) -> String {
        match self {
            Self::Server { namespace, .. } => format!("clustermesh-apiserver.{namespace}.svc"),
            Self::Admin => format!("admin-{cluster}"),
            Self::Local => format!("local-{cluster}"),
            Self::Remote(AuthMode::Cluster) => format!("remote-{cluster}"),
            Self::Remote(AuthMode::Legacy | AuthMode::Migration) => "remote".into(),
        }
    }

    /// Host names and addresses in the subject's alternative names, without repetition; none for client certificates.
    pub fn alternative_names(&self, cluster: &str) -> Vec<String> {
        let Self::Server { dns, ips, .. } = self else { return Vec::new() };
        let fixed = [self.common_name(cluster), format!("*.{MESH_DOMAIN}")];
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let wanted = fixed.into_iter().chain(dns.iter().cloned());
        let wanted = wanted.chain(loopback.iter().chain(ips).map(ToString::to_string));
        let mut names: Vec<String> = Vec::new();
        for name in wanted {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// What it may be used for. A server certificate is a client's too: etcd's gateway shows it when it dials its own
    /// listener (`--client-cert-auth`).
    pub fn usages(&self) -> &'static [Usage] {
        self.role().usages()
    }
}

impl Role {
    /// What a leaf of this role must be usable for.
    pub fn usages(self) -> &'static [Usage] {
        match self {
            Self::Server => &[Usage::Server, Usage::Client],
            Self::Admin | Self::Local | Self::Remote => &[Usage::Client],
        }
    }

    /// The common names that a leaf of this role may have in a cluster; empty when any will do.
    pub fn common_names(self, cluster: &str) -> Vec<String> {
        match self {
            // Cilium to 1.19 and since 1.20 differ, and nobody reads a server's common name.
            Self::Server => Vec::new(),
            Self::Admin => vec![Leaf::Admin.common_name(cluster)],
            Self::Local => vec![Leaf::Local.common_name(cluster)],
            Self::Remote => {
                [AuthMode::Migration, AuthMode::Cluster].map(|m| Leaf::Remote(m).common_name(cluster)).into()
            }
        }
    }
}
