//! Peers' endpoints as EndpointSlices of this cluster, for those who read nothing else: kube-proxy, controllers of
//! Ingress and Gateway, DNS of headless Services.
//!
//! What should be there is computed from what the mirror holds ([`want`]), compared with what is ([`diff`]), and written
//! in that order by one replica. What a peer brought stays while nobody knows better: the slices of a peer that has not
//! been read since the start are not touched, and silence alone removes nothing, for it removes nothing from the mirror.
//!
//! Labels are Cilium's, so its exporters, its agents and ours know these slices for what they are, and export none again.

pub mod diff;
pub mod want;

mod object;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use smol_str::SmolStr;
use tokio::sync::watch;
use tokio::time::sleep;
use tombolo_core::id::{ClusterName, ServiceKey};
use tombolo_core::model::{ServiceSpec, Slice};

use self::diff::{Write, diff};
use self::want::{SliceName, want};

pub use self::want::takes;
use crate::lease::Role;
use crate::status::MANAGER;
use crate::watched::{Watched, follow_labelled};

/// Changes of this long are written together.
const GATHER: Duration = Duration::from_millis(250);
/// The pause after a write that failed.
const PAUSE: Duration = Duration::from_secs(3);

/// Of which global Services peers' endpoints become EndpointSlices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// None; those of an earlier life leave.
    Off,
    /// Of those without a cluster IP, whose DNS names have no other way to peers.
    #[default]
    Headless,
    /// Of all.
    All,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "headless" => Ok(Self::Headless),
            "all" => Ok(Self::All),
            other => Err(format!("{other:?} is none of off, headless and all")),
        }
    }
}

/// What the mirror holds for the own agents: admitted endpoints of peers, and the Services that import them.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// The local global Services.
    pub services: BTreeMap<ServiceKey, ServiceSpec>,
    /// Peers' endpoints of these.
    pub slices: BTreeMap<ServiceKey, BTreeMap<(ClusterName, SmolStr), Slice>>,
    /// The configured peers; none while that is not known.
    pub peers: Option<BTreeSet<ClusterName>>,
    /// The peers of which everything is here.
    pub synced: BTreeSet<ClusterName>,
    /// Whether the source's first complete set is known.
    pub complete: bool,
}

/// Writes what differs while this replica is the writer, until `role` or `held` is closed.
pub async fn run(client: Client, mode: Mode, mut role: watch::Receiver<Role>, held: watch::Receiver<Held>) {
    let (said, there) = watch::channel(Watched::<EndpointSlice>::default());
    let selector = format!("{}=true", object::OURS);
    tokio::select! {
        () = follow_labelled(&client, &selector, said) => {}
        () = keep(&client, mode, &mut role, held, there) => {}
    }
}

async fn keep(
    client: &Client,
    mode: Mode,
    role: &mut watch::Receiver<Role>,
    mut held: watch::Receiver<Held>,
    mut there: watch::Receiver<Watched<EndpointSlice>>,
) {
    loop {
        let is_writer = *role.borrow_and_update() == Role::Writer;
        let writes = {
            let (held, there) = (held.borrow_and_update(), there.borrow_and_update());
            if is_writer && held.complete && there.complete {
                diff(&held, mode, want(&held, mode), &object::read_all(&there.objects))
            } else {
                Vec::new()
            }
        };
        for write in &writes {
            if let Err(error) = perform(client, write).await {
                tracing::warn!(%error, ?write, "mirrored slice");
                sleep(PAUSE).await;
                there.mark_changed();
                break;
            }
        }
        tokio::select! {
            changed = role.changed() => if changed.is_err() { return },
            changed = held.changed() => if changed.is_err() { return },
            changed = there.changed() => if changed.is_err() { return },
        }
        sleep(GATHER).await;
    }
}

async fn perform(client: &Client, write: &Write) -> Result<(), kube::Error> {
    match write {
        Write::Put(name, slice, uid) => {
            let uid = match uid {
                Some(uid) => Some(uid.clone()),
                None => service_uid(client, &name.namespace, &slice.service).await?,
            };
            // Without its Service a slice would be nobody's.
            let Some(uid) = uid else { return Ok(()) };
            let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &name.namespace);
            let body = object::render(name, slice, &uid);
            api.patch(&name.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&body)).await.map(drop)
        }
        Write::Delete(name, uid) => delete(client, name, uid.clone()).await,
    }
}

async fn service_uid(client: &Client, namespace: &str, name: &str) -> Result<Option<String>, kube::Error> {
    let api: Api<Service> = Api::namespaced(client.clone(), namespace);
    Ok(api.get_metadata_opt(name).await?.and_then(|service| service.metadata.uid))
}

async fn delete(client: &Client, name: &SliceName, uid: Option<String>) -> Result<(), kube::Error> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &name.namespace);
    // The one that was seen, not one of the same name that came in the meantime.
    let preconditions = Some(Preconditions { uid, ..Preconditions::default() });
    match api.delete(&name.name, &DeleteParams { preconditions, ..DeleteParams::default() }).await {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}
