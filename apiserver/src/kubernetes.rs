//! What is read and written in Kubernetes beside the source: peers as objects, their statuses, who of the replicas writes.
//!
//! Nothing here decides what agents or peers get, and nothing waits for it: with the API server gone, the peers directory
//! stays as it is and statuses grow old.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tombolo_core::id::{ClusterName, ServiceKey};
use tombolo_core::own::RefusedExample;
use tombolo_core::report::ApiserverStatus;
use tombolo_kube::client::Access;
use tombolo_kube::events::{self, Warning};
use tombolo_kube::mirroring::{self, Held, Mode};
use tombolo_kube::resources::{ClusterDrain, ClusterGrant, MeshPeer};
use tombolo_kube::status::{self, Facts, Objects};
use tombolo_kube::watched::{self, Watched};
use tombolo_kube::{Client, Secret, lease};
use tombolo_wire::cilium::key::Kind;

use crate::clock;
use crate::peer_objects::{self, Outcome, Settings};
use crate::view::Views;

/// The Lease that decides which replica writes; the chart's Role names it.
const LEASE: &str = "tombolo-apiserver";
/// How soon a kubeconfig that cannot be read is read again.
const AGAIN: Duration = Duration::from_secs(5);

/// What is needed to begin.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    /// The API server, and as whom it is asked.
    pub access: Access,
    /// This cluster.
    pub cluster: ClusterName,
    /// The peers directory.
    pub peers_dir: PathBuf,
    /// Where peers' Secrets are.
    pub peers_namespace: String,
    /// What is told of peers.
    pub views: Views,
    /// What becomes EndpointSlices, and what there is of it.
    pub mirroring: (Mode, watch::Receiver<Held>),
}

/// Runs until nobody listens to `outcome`, which says what came of the MeshPeers.
pub async fn run(settings: Kubernetes, outcome: watch::Sender<Outcome>) {
    let client = connect(&settings.access).await;
    let known = peer_objects::present(&settings.peers_dir);
    let unconfirmed = known.iter().map(|name| (String::new(), name.to_string())).collect();
    let (peers, peers_seen) = watch::channel(Watched { unconfirmed, ..Watched::<MeshPeer>::default() });
    let (secrets, secrets_seen) = watch::channel(Watched::<Secret>::default());
    let (drains, drains_seen) = watch::channel(Watched::<ClusterDrain>::default());
    let (grants, grants_seen) = watch::channel(Watched::<ClusterGrant>::default());
    let (role, role_seen) = watch::channel(lease::Role::Reader);
    let said = outcome.subscribe();
    let files = Settings {
        dir: settings.peers_dir.clone(),
        own: settings.cluster.clone(),
        namespace: settings.peers_namespace.clone(),
    };
    let objects = Objects { peers: peers_seen.clone(), drains: drains_seen, grants: grants_seen };
    let views = settings.views.clone();
    let (mode, held) = settings.mirroring;
    let facts = move || Facts { peers: views.told().peers, problems: said.borrow().problems.clone() };
    let views = settings.views.clone();
    let warnings = move || warnings(&views.told());
    let holder = holder();
    let place = (client.default_namespace().to_owned(), LEASE.to_owned());
    // Each of these ends only when its listeners have: one that ends takes the others with it.
    tokio::select! {
        () = watched::follow_all(&client, peers) => {}
        () = watched::follow_in(&client, &settings.peers_namespace, secrets) => {}
        () = watched::follow_all(&client, drains) => {}
        () = watched::follow_all(&client, grants) => {}
        () = peer_objects::run(files, peers_seen, secrets_seen, outcome) => {}
        () = lease::run(client.clone(), place, holder.clone(), clock::unix_ms, role) => {}
        () = events::run(client.clone(), holder, role_seen.clone(), warnings) => {}
        () = mirroring::run(client.clone(), mode, role_seen.clone(), held) => {}
        () = status::run(client.clone(), role_seen, objects, facts, clock::unix_ms) => {}
    }
}

/// A client; what stands in the way can only be files, which may come.
async fn connect(access: &Access) -> Client {
    loop {
        match access.client().await {
            Ok(client) => return client,
            Err(error) => tracing::warn!(%error, "no client for Kubernetes"),
        }
        sleep(AGAIN).await;
    }
}

/// This replica's name: its host's, and what tells two lives of it apart.
fn holder() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{:016x}", host.trim(), RandomState::new().build_hasher().finish())
}

/// What people are told at Services: annotations that mean nothing, and peers' records that were refused.
fn warnings(status: &ApiserverStatus) -> Vec<Warning> {
    let annotations = status.faults.iter().filter_map(|fault| {
        let service = ServiceKey::parse(fault.place.strip_prefix("Service ")?)?;
        Some(Warning { service, reason: "BadAnnotation", note: fault.message.clone() })
    });
    let refused = status.peers.iter().flat_map(|peer| {
        let told = move |example: &RefusedExample| {
            // A slice's key does not say whose it is; the record of the whole Service does.
            let prefixes = [Kind::Services.state_prefix(&peer.name), Kind::Services.cache_prefix(&peer.name)];
            let service = prefixes.iter().find_map(|prefix| ServiceKey::parse(example.key.strip_prefix(prefix)?))?;
            let note = format!("refused from {}: {}: {}", peer.name, example.rule, example.detail);
            let imported = !peer.unused_imports.contains(&service);
            imported.then_some(Warning { service, reason: "PeerRefused", note })
        };
        peer.refused.examples.iter().filter_map(told)
    });
    annotations.chain(refused).collect()
}
