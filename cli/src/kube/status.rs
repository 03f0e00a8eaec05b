//! `status` of clusters in Kubernetes: what their API says of workloads, peers and certificates.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep_until};
use tombolo_certs::{Role, certificates, inspect, rfc3339};
use tombolo_kube::install::{Found, Workload};
use tombolo_kube::resources::{ADMITTED, CONNECTED, Condition, MeshPeer};

use super::Site;
use super::config::ClusterConfig;
use super::endpoint::{End, NoEndpoint, offered};
use super::leaves::{CA_SECRET, secret_name};
use super::live::View;
use crate::args::StatusContexts;

/// How long `--wait` pauses between two looks.
const WAIT_INTERVAL: Duration = Duration::from_secs(1);
/// A look may take this long.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// A certificate that ends within this time is worth a word.
const SOON_SECONDS: i64 = 30 * 86_400;

/// The status of the clusters that were looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SitesStatus {
    /// No cluster has a problem.
    pub connected: bool,
    /// Each cluster.
    pub clusters: Vec<SiteStatus>,
}

/// The status of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct SiteStatus {
    /// Its context.
    pub context: String,
    /// Its name.
    pub cluster: Option<String>,
    /// Its id.
    pub id: Option<u16>,
    /// Where its store is reached.
    pub store: Option<String>,
    /// The apiservers.
    pub apiserver: Option<Pods>,
    /// The agents.
    pub agents: Option<Pods>,
    /// The peers.
    pub peers: Vec<Peer>,
    /// Certificates that end soon, or have ended, and when.
    pub ending: Vec<Ending>,
    /// What deserves attention and keeps nothing from working.
    pub warnings: Vec<String>,
    /// What keeps it from being connected, for a person.
    pub problems: Vec<String>,
}

/// How far a workload is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Pods {
    /// How many there should be.
    pub wanted: u32,
    /// How many are ready.
    pub ready: u32,
    /// Their image.
    pub image: String,
}

/// A peer as the cluster's apiserver reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Peer {
    /// Its name.
    pub name: String,
    /// Its id, once it is known.
    pub id: Option<u32>,
    /// `connecting`, `ready`, `lost` or `refused`; `unknown` before the apiserver has said anything.
    pub session: String,
    /// Whether the connection is as it should be.
    pub connected: bool,
    /// How many seconds it has been silent.
    pub silent_s: Option<u64>,
    /// Services it exports to this cluster.
    pub services: Option<u32>,
    /// Endpoints of these.
    pub backends: Option<u32>,
    /// Its nodes.
    pub nodes: Option<u32>,
    /// What of it was refused.
    pub refused: Option<u32>,
    /// What the apiserver says.
    pub message: String,
}

/// A certificate and its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Ending {
    /// Its Secret.
    pub secret: String,
    /// Its end, RFC 3339.
    pub until: String,
    /// Whether that is past.
    pub over: bool,
}

/// Looks once, or until all are connected or the time is over.
pub(crate) async fn status(
    args: &StatusContexts,
    wait: Option<Duration>,
    now: impl Fn() -> u64,
    mut view: View,
) -> SitesStatus {
    let deadline = wait.map(|wait| Instant::now() + wait);
    loop {
        let status = look(args, now()).await;
        let next = Instant::now() + WAIT_INTERVAL;
        if status.connected || deadline.is_none_or(|deadline| next > deadline) {
            view.end();
            return status;
        }
        view.show(&status);
        sleep_until(next).await;
    }
}

async fn look(args: &StatusContexts, now: u64) -> SitesStatus {
    let mut clusters = Vec::with_capacity(args.contexts.len());
    for context in &args.contexts {
        let read = async { Site::open(args.kubeconfig.as_deref(), Some(context)).await?.read().await };
        let failed = |why: String| SiteStatus {
            context: context.clone(),
            problems: vec![format!("cannot be read: {why}")],
            ..SiteStatus::default()
        };
        clusters.push(match tokio::time::timeout(LOOK_TIMEOUT, read).await {
            Ok(Ok(found)) => judged(context, &found, now),
            Ok(Err(error)) => failed(told(&error)),
            Err(_) => failed(format!("no answer within {} s", LOOK_TIMEOUT.as_secs())),
        });
    }
    SitesStatus { connected: clusters.iter().all(|c| c.problems.is_empty()), clusters }
}

/// What failed and its first cause, without the context, which stands above.
fn told(error: &dyn std::error::Error) -> String {
    let causes: Vec<String> = std::iter::successors(error.source(), |e| e.source()).map(ToString::to_string).collect();
    match (causes.first(), causes.last()) {
        (Some(first), Some(last)) if !first.contains(last.as_str()) => format!("{first}: {last}"),
        (first, _) => first.cloned().unwrap_or_default(),
    }
}

/// What was found, judged. `now` is in unix seconds.
pub(crate) fn judged(context: &str, found: &Found, now: u64) -> SiteStatus {
    let mut status = SiteStatus { context: context.to_owned(), ..SiteStatus::default() };
    let Some(map) = &found.config else {
        status.problems.push(format!("not enabled: tombolo enable --context {context}"));
        return status;
    };
    match ClusterConfig::parse(&map.data) {
        Ok(config) => {
            status.cluster = Some(config.name.to_string());
            status.id = Some(config.id.get());
            store(&mut status, &config, found);
        }
        Err(error) => status.problems.push(error.to_string()),
    }
    let pods =
        |workload: &Workload| Pods { wanted: workload.wanted, ready: workload.ready, image: workload.image.clone() };
    status.apiserver = found.apiserver.as_ref().map(pods);
    status.agents = found.agents.as_ref().map(pods);
    status.problems.extend(workload("apiserver", found.apiserver.as_ref()));
    status.problems.extend(workload("agents", found.agents.as_ref()));
    secrets(&mut status, found, now);
    for peer in &found.peers {
        let (peer, problem) = judged_peer(peer, found, now);
        status.problems.extend(problem);
        status.peers.push(peer);
    }
    status
}

/// Whether peers can reach the store; a cluster that has none yet is no worse for it.
fn store(status: &mut SiteStatus, config: &ClusterConfig, found: &Found) {
    match offered(&config.name, found.store.as_ref(), &found.nodes, (&status.context, End::Source)) {
        Ok(endpoint) => status.store = Some(endpoint.shown()),
        Err(NoEndpoint::Inside { kind, .. }) => status.store = Some(format!("{kind}, for ways of yours")),
        Err(why) => status.warnings.push(format!("peers cannot reach the store: {why}")),
    }
}

fn workload(what: &str, workload: Option<&Workload>) -> Option<String> {
    let Some(Workload { wanted, ready, updated, observed, .. }) = workload else {
        return Some(format!("{what}: not installed"));
    };
    if !observed {
        return Some(format!("{what}: the newest template is not yet acted upon"));
    }
    if *wanted == 0 {
        return Some(format!("{what}: none is wanted"));
    }
    if ready < wanted {
        return Some(format!("{what}: {ready} of {wanted} ready"));
    }
    (updated < wanted).then(|| format!("{what}: {updated} of {wanted} up to date"))
}

fn secrets(status: &mut SiteStatus, found: &Found, now: u64) {
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    for name in [CA_SECRET].into_iter().chain(Role::ALL.map(secret_name)) {
        let Some(secret) = found.secrets.get(name) else {
            // Without the authority all goes on, until a leaf is to be issued.
            let list = if name == CA_SECRET { &mut status.warnings } else { &mut status.problems };
            list.push(format!("no Secret {name}: tombolo enable --context {}", status.context));
            continue;
        };
        let path = Path::new(name);
        let info = certificates(path, &secret.cert).and_then(|chain| inspect(path, &chain[0]));
        match info {
            Err(error) => status.problems.push(error.to_string()),
            Ok(info) if info.not_after - now < SOON_SECONDS => {
                let (until, over) = (rfc3339(info.not_after), info.not_after < now);
                if over {
                    let enable = format!("tombolo enable --context {}", status.context);
                    status.problems.push(format!("Secret {name} expired at {until}: {enable}"));
                }
                status.ending.push(Ending { secret: name.into(), until, over });
            }
            Ok(_) => {}
        }
    }
}

fn judged_peer(object: &MeshPeer, found: &Found, now: u64) -> (Peer, Option<String>) {
    let name = object.metadata.name.clone().unwrap_or_default();
    let missing = !found.peer_secrets.contains_key(&object.spec.secret_name);
    let missing = missing.then(|| format!("peer {name}: no Secret {} in tombolo-peers", object.spec.secret_name));
    let Some(said) = &object.status else {
        let peer = Peer { name: name.clone(), session: "unknown".into(), ..Peer::default() };
        return (peer, missing.or_else(|| Some(format!("peer {name}: the apiserver has said nothing of it yet"))));
    };
    let holds = |kind: &str| said.conditions.iter().find(|c| c.type_ == kind);
    let is = |condition: Option<&Condition>, status: &str| condition.is_some_and(|c| c.status == status);
    let connected = is(holds(CONNECTED), "True") && !is(holds(ADMITTED), "False");
    let silent = said.silent_since.as_ref().map(|since| since.0.as_second());
    let peer = Peer {
        id: said.cluster_id,
        session: said.session.clone().unwrap_or_else(|| if connected { "ready" } else { "unknown" }.into()),
        connected,
        silent_s: silent.map(|since| now.saturating_sub(u64::try_from(since).unwrap_or_default())),
        services: said.services,
        backends: said.backends,
        nodes: said.nodes,
        refused: said.refused,
        message: said.message.clone(),
        name: name.clone(),
    };
    let stale = said.observed_generation < object.metadata.generation;
    let why = [holds(ADMITTED).filter(|c| c.status == "False"), holds(CONNECTED).filter(|c| c.status != "True")];
    let why = why.into_iter().flatten().next().map(|c| format!("{}: {}", c.reason, c.message));
    let problem = match (missing, connected) {
        (Some(missing), _) => Some(missing),
        (None, false) => Some(format!("peer {name} is not connected: {}", why.unwrap_or_else(|| peer.session.clone()))),
        (None, true) if stale => Some(format!("peer {name}: the apiserver has not taken its change in yet")),
        (None, true) => None,
    };
    (peer, problem)
}

#[cfg(test)]
mod tests;
