//! Keeps the peers directory as the cluster's MeshPeers and their Secrets say.
//!
//! The directory is the one place where the rest of the program learns of peers, so restarts, rotated certificates and
//! tombstones work here as they do for files that people write. A MeshPeer that cannot be used changes nothing: the last
//! good file stays, and the object tells what is wrong. Only a MeshPeer that was removed removes its file, and leaves the
//! tombstone that says it was meant.

pub mod want;

mod files;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tombolo_core::id::ClusterName;
use tombolo_kube::Secret;
use tombolo_kube::resources::MeshPeer;
use tombolo_kube::status::Problem;
use tombolo_kube::watched::{ObjectName, Watched};

use self::want::want;
use crate::clock;

pub use self::files::present;

/// How often everything is looked at although nothing changed: certificates end, and disks are full only for a while.
const AGAIN: Duration = Duration::from_secs(60);

/// Where MeshPeers are turned into files.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The peers directory; made when there is something to be in it.
    pub dir: PathBuf,
    /// This cluster.
    pub own: ClusterName,
    /// Where peers' Secrets are.
    pub namespace: String,
}

/// What came of the objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the directory is as the objects say. Until it is, an empty directory means nothing.
    pub settled: bool,
    /// What is wrong with a peer's objects, by the peer's name.
    pub problems: BTreeMap<String, Problem>,
}

/// Follows the objects until nobody listens to `outcome`.
pub async fn run(
    settings: Settings,
    mut peers: watch::Receiver<Watched<MeshPeer>>,
    mut secrets: watch::Receiver<Watched<Secret>>,
    outcome: watch::Sender<Outcome>,
) {
    loop {
        let now = match (&*peers.borrow_and_update(), &*secrets.borrow_and_update()) {
            (peers, secrets) if peers.complete => Some(settle(&settings, peers, secrets)),
            // Nobody can have made a MeshPeer: files that people put into the directory are all there is.
            (peers, _) if peers.undefined => Some(Outcome { settled: true, problems: BTreeMap::new() }),
            _ => None,
        };
        if let Some(now) = now {
            outcome.send_if_modified(|outcome| {
                let changed = *outcome != now;
                *outcome = now;
                changed
            });
        }
        tokio::select! {
            () = outcome.closed() => return,
            changed = peers.changed() => if changed.is_err() { return },
            changed = secrets.changed() => if changed.is_err() { return },
            () = sleep(AGAIN) => {}
        }
    }
}

/// Makes the directory as the objects say, as far as they can be used.
fn settle(settings: &Settings, peers: &Watched<MeshPeer>, secrets: &Watched<Secret>) -> Outcome {
    let mut outcome = Outcome { settled: secrets.complete, problems: BTreeMap::new() };
    for ((_, name), peer) in &peers.objects {
        let secret = secret_of(settings, peer, secrets);
        let put = want(name, &peer.spec, secret, (&settings.own, &settings.namespace));
        let problem = match put.map(|wanted| wanted.map(|wanted| files::put(&settings.dir, &wanted, clock::unix_ms())))
        {
            Ok(None | Some(Ok(None))) => continue,
            Ok(Some(Ok(Some(warning)))) => Problem { reason: "CertificateEndsSoon", message: warning },
            Ok(Some(Err(problem))) | Err(problem) => problem,
        };
        tracing::debug!(peer = %name, reason = problem.reason, message = %problem.message, "meshpeer");
        outcome.problems.insert(name.clone(), problem);
    }
    for name in present(&settings.dir) {
        let key: ObjectName = (String::new(), name.to_string());
        if peers.objects.contains_key(&key) || peers.unconfirmed.contains(&key) {
            continue;
        }
        tracing::info!(peer = %name, "meshpeer removed");
        if let Err(error) = files::remove(&settings.dir, &name) {
            tracing::warn!(peer = %name, %error, "its file cannot be removed");
            outcome.settled = false;
        }
    }
    if outcome.settled
        && let Err(error) = std::fs::create_dir_all(&settings.dir)
    {
        tracing::warn!(dir = %settings.dir.display(), %error, "peers directory");
    }
    outcome
}

fn secret_of<'a>(settings: &Settings, peer: &MeshPeer, secrets: &'a Watched<Secret>) -> want::Lookup<'a> {
    let key = (settings.namespace.clone(), peer.spec.secret_name.clone());
    match secrets.objects.get(&key) {
        Some(secret) => want::Lookup::Found(secret),
        None if secrets.complete && !secrets.unconfirmed.contains(&key) => want::Lookup::Missing,
        None => want::Lookup::Unknown(secrets.fault.as_deref()),
    }
}

/// Waits until the directory means something: it has files of an earlier life, or is as the objects say.
pub async fn ready(dir: &Path, mut outcome: watch::Receiver<Outcome>) {
    if !present(dir).is_empty() {
        return;
    }
    let _nobody_will_say = outcome.wait_for(|outcome| outcome.settled).await;
}
