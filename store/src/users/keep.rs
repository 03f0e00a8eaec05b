//! Users kept right for as long as the store is used: as peers come and go, and when the store was emptied.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tombolo_core::id::{ClusterName, Epoch};
use tracing::{info, warn};

use super::{Others, UsersError, bootstrap_users};
use crate::clock;
use crate::config::StoreConfig;
use crate::random::Random;
use crate::writer::WriterStatus;

/// All is verified this often, whatever happens.
const VERIFY: Duration = Duration::from_secs(60);
/// The waits after a failure: doubled from the first up to the second, each between half of it and all.
const RETRY_MS: (u64, u64) = (250, 10_000);

/// Whose users there should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerUsers {
    /// The peers.
    pub peers: BTreeSet<ClusterName>,
    /// What becomes of other peers' users: before the configured peers were read, nobody knows who is none.
    pub others: Others,
}

/// Where the users stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UsersState {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// As they should be when last looked at, and authentication is on.
    Ready,
    /// Not as they should be; retried.
    Failed(UsersError),
}

/// The users of one store, whose state a channel tells.
#[derive(Debug)]
pub struct UsersKeeper {
    /// The own store, with the certificate `admin-<cluster>`.
    pub store: StoreConfig,
    /// The own cluster.
    pub cluster: ClusterName,
    /// Where the users stand.
    pub state: watch::Sender<UsersState>,
}

impl UsersKeeper {
    /// Makes the users right, trying until it works.
    pub async fn ensure(&self, wanted: &PeerUsers) {
        let mut random = Random::new(clock::seed());
        let mut pause = RETRY_MS.0;
        loop {
            match bootstrap_users(&self.store, &self.cluster, &wanted.peers, wanted.others).await {
                Ok(steps) => {
                    if !steps.is_empty() {
                        info!(steps = steps.join("; "), "users and roles changed");
                    }
                    self.state.send_replace(UsersState::Ready);
                    return;
                }
                Err(error) => {
                    let failed = UsersState::Failed(error.clone());
                    if self.state.send_replace(failed.clone()) != failed {
                        warn!(%error, "users and roles are not as they should be");
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(pause / 2 + random.below(pause / 2 + 1))).await;
            pause = (pause * 2).min(RETRY_MS.1);
        }
    }

    /// Keeps them right, for ever: as `wanted` changes, and when the same store's writer was connected anew, which may
    /// mean that the store was emptied.
    pub async fn keep(self, mut wanted: watch::Receiver<PeerUsers>, mut writer: watch::Receiver<WriterStatus>) {
        loop {
            let life = life(&writer);
            let now = wanted.borrow_and_update().clone();
            tokio::select! {
                () = self.ensure(&now) => {}
                () = changed(&mut wanted) => continue,
            }
            tokio::select! {
                () = tokio::time::sleep(VERIFY) => {}
                () = changed(&mut wanted) => {}
                () = reconnected(&mut writer, life) => {}
            }
        }
    }
}

/// The life of the store and the connection to it, as far as the writer sees them.
fn life(writer: &watch::Receiver<WriterStatus>) -> (bool, Epoch) {
    let status = writer.borrow();
    (status.connected, status.epoch)
}

/// Ends when the writer is connected in another way than `before`.
async fn reconnected(writer: &mut watch::Receiver<WriterStatus>, before: (bool, Epoch)) {
    let mut lost = !before.0;
    loop {
        let now = life(writer);
        lost |= !now.0;
        if now.0 && (lost || now.1 != before.1) {
            return;
        }
        changed(writer).await;
    }
}

/// Ends at a change; never, when the sender is gone.
async fn changed<T>(rx: &mut watch::Receiver<T>) {
    if rx.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
