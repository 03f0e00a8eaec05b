//! What `kubectl get` tells of peers, drains and grants: computed from what the apiserver knows, written where it differs.
//!
//! What an object says is compared with what it should say, so a change by others is put right too, and there is nothing
//! to refresh.

mod peer;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tombolo_core::report::PeerStatus;

pub use self::peer::{PeerFacts, Problem, peer_status};
use crate::lease::Role;
use crate::resources::{
    ADMITTED, CONNECTED, ClusterDrain, ClusterGrant, ConditionStatus, HONOURED, HonouredStatus, MeshPeer, condition,
    same_but_time, set_condition,
};
use crate::watched::Watched;

/// Under this name the fields that we write are known to the API server.
pub const MANAGER: &str = "tombolo-apiserver";
/// How often statuses are compared: no object is written more often.
const ROUND: Duration = Duration::from_secs(1);
/// Counts alone are written at most this often.
const COUNTS: Duration = Duration::from_secs(10);
/// The pause after a write that failed.
const PAUSE: Duration = Duration::from_secs(5);

/// The objects whose statuses are written.
#[derive(Clone, Debug)]
pub struct Objects {
    /// Peers.
    pub peers: watch::Receiver<Watched<MeshPeer>>,
    /// Drains.
    pub drains: watch::Receiver<Watched<ClusterDrain>>,
    /// Grants.
    pub grants: watch::Receiver<Watched<ClusterGrant>>,
}

/// What the apiserver knows of its peers now.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// What the mirror sees.
    pub peers: Vec<PeerStatus>,
    /// What is wrong with a peer's configuration, by its name.
    pub problems: BTreeMap<String, Problem>,
}

/// Writes statuses while this replica is the writer, until `role` is closed.
pub async fn run(
    client: Client,
    mut role: watch::Receiver<Role>,
    objects: Objects,
    facts: impl Fn() -> Facts,
    unix_ms: fn() -> u64,
) {
    let mut counted: BTreeMap<String, Instant> = BTreeMap::new();
    loop {
        let is_writer = *role.borrow_and_update() == Role::Writer;
        let outcome = if is_writer { write(&client, &objects, facts(), unix_ms(), &mut counted).await } else { Ok(()) };
        let pause = outcome.map_or_else(
            |error| {
                tracing::warn!(%error, "status");
                PAUSE
            },
            |()| ROUND,
        );
        tokio::select! {
            changed = role.changed() => if changed.is_err() { return },
            () = sleep(pause) => {}
        }
    }
}

async fn write(
    client: &Client,
    objects: &Objects,
    facts: Facts,
    unix_ms: u64,
    counted: &mut BTreeMap<String, Instant>,
) -> Result<(), kube::Error> {
    let peers = all(&objects.peers);
    counted.retain(|name, _| peers.iter().any(|peer| peer.name_any() == *name));
    for peer in peers {
        let name = peer.name_any();
        let mut before = peer.status.clone().unwrap_or_default();
        // Other writers' conditions are theirs to apply.
        before.conditions.retain(|c| [CONNECTED, ADMITTED].contains(&c.type_.as_str()));
        let facts = PeerFacts {
            seen: facts.peers.iter().find(|seen| seen.name.as_str() == name),
            problem: facts.problems.get(&name),
            grant: peer.spec.grant.as_deref(),
            generation: peer.metadata.generation,
        };
        let after = peer_status(&facts, &before, unix_ms);
        let due = counted.get(&name).is_none_or(|at| at.elapsed() >= COUNTS);
        match peer::news(&before, &after) {
            peer::News::Nothing => continue,
            peer::News::Counts if !due => continue,
            peer::News::Counts | peer::News::Story => {}
        }
        patch::<MeshPeer>(client, &name, &after).await?;
        counted.insert(name, Instant::now());
    }
    for drain in all(&objects.drains) {
        honour(client, &*drain, drain.status.as_ref(), unix_ms).await?;
    }
    for grant in all(&objects.grants) {
        honour(client, &*grant, grant.status.as_ref(), unix_ms).await?;
    }
    Ok(())
}

fn all<K>(watched: &watch::Receiver<Watched<K>>) -> Vec<std::sync::Arc<K>> {
    watched.borrow().objects.values().cloned().collect()
}

async fn honour<K>(
    client: &Client,
    object: &K,
    before: Option<&HonouredStatus>,
    unix_ms: u64,
) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope> + Clone + Debug + DeserializeOwned,
{
    let before = before.cloned().unwrap_or_default();
    match not_honoured(&before, object.meta().generation, unix_ms) {
        Some(after) => patch::<K>(client, &object.name_any(), &after).await,
        None => Ok(()),
    }
}

/// What a drain or a grant says: that nothing acts by it yet. None when it says so already.
fn not_honoured(before: &HonouredStatus, generation: Option<i64>, unix_ms: u64) -> Option<HonouredStatus> {
    let message = "this version of Tombolo reads it and does not act by it";
    let new = condition(HONOURED, (ConditionStatus::False, "NotYetImplemented"), message, generation, unix_ms);
    if before.observed_generation == generation && before.conditions.iter().any(|old| same_but_time(old, &new)) {
        return None;
    }
    let ours = before.conditions.iter().filter(|c| c.type_ == HONOURED);
    let mut conditions = ours.cloned().collect();
    set_condition(&mut conditions, new);
    Some(HonouredStatus { conditions, observed_generation: generation })
}

/// Applies a status: what we no longer say leaves, what others say of the object stays.
async fn patch<K>(client: &Client, name: &str, status: &impl Serialize) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    let body: Value = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": { "name": name }, "status": status,
    });
    match api.patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&body)).await {
        Ok(_) => Ok(()),
        // It was removed in the meantime.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}
