//! Users kept right for as long as the store is used: as peers come and go, and when the store was emptied.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tombolo_core::id::{ClusterName, Epoch};
use tracing::{Instrument, info, info_span, warn};

use super::{Others, UsersError, bootstrap_users};
use crate::clock;
use crate::config::StoreConfig;
use crate::random::Random;
use crate::writer::WriterStatus;

/// All is verified this often, whatever happens.
const VERIFY: Duration = Duration::from_secs(60);
/// The waits after a failure, between half of it and all.
const RETRY_MS: u64 = 1_000;

/// Whose users to keep.
#[derive(Clone, Debug)]
pub struct UsersSpec {
    /// The own store, with the certificate `admin-<cluster>`.
    pub store: StoreConfig,
    /// The own cluster.
    pub cluster: ClusterName,
    /// The configured peers.
    pub peers: watch::Receiver<BTreeSet<ClusterName>>,
    /// The writer of the same store: a reconnect of it may mean that the store was emptied.
    pub writer: watch::Receiver<WriterStatus>,
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

/// Keeps the users right until `cancel` is cancelled.
pub fn keep_users(spec: UsersSpec, tasks: &TaskTracker, cancel: CancellationToken) -> watch::Receiver<UsersState> {
    let (tx, rx) = watch::channel(UsersState::Unknown);
    tasks.spawn(
        async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = run(spec, &tx) => {}
            }
        }
        .instrument(info_span!("users")),
    );
    rx
}

async fn run(mut spec: UsersSpec, tx: &watch::Sender<UsersState>) {
    let mut random = Random::new(clock::seed());
    loop {
        let life = life(&spec.writer);
        let peers = spec.peers.borrow_and_update().clone();
        let wait = match bootstrap_users(&spec.store, &spec.cluster, &peers, Others::Removed).await {
            Ok(steps) => {
                if !steps.is_empty() {
                    info!(steps = steps.join("; "), "users and roles changed");
                }
                tx.send_replace(UsersState::Ready);
                VERIFY
            }
            Err(error) => {
                let failed = UsersState::Failed(error.clone());
                if tx.send_replace(failed.clone()) != failed {
                    warn!(%error, "users and roles are not as they should be");
                }
                Duration::from_millis(RETRY_MS / 2 + random.below(RETRY_MS / 2 + 1))
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = changed(&mut spec.peers) => {}
            () = reconnected(&mut spec.writer, life) => {}
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
