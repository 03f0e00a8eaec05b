//! Keeps the own store's users as Cilium has them: one for every peer, none for anybody else.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tombolo_core::id::{ClusterName, Epoch};
use tombolo_store::users::Others;
use tombolo_store::{StoreConfig, WriterStatus, bootstrap_users};

/// The pauses between attempts: doubled from the first, up to the second, each times 0.5 to 1.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Where the users stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UsersState {
    /// Not asked yet.
    #[default]
    Unknown,
    /// As they should be.
    Done,
    /// The last attempt failed, for this reason.
    Failing(String),
}

/// Whose users there should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerUsers {
    /// The peers.
    pub peers: BTreeSet<ClusterName>,
    /// What becomes of other peers' users: before the peers directory was read, nobody knows who is none.
    pub others: Others,
}

/// Makes the users, trying until it works or `cancel` is cancelled.
pub async fn ensure(
    store: &StoreConfig,
    cluster: &ClusterName,
    wanted: &PeerUsers,
    state: &watch::Sender<UsersState>,
    cancel: &CancellationToken,
) {
    let mut pause = RETRY.0;
    loop {
        let attempt = tokio::select! {
            () = cancel.cancelled() => return,
            attempt = bootstrap_users(store, cluster, &wanted.peers, wanted.others) => attempt,
        };
        match attempt {
            Ok(done) => {
                if !done.is_empty() {
                    tracing::info!(?done, "store users");
                }
                state.send_replace(UsersState::Done);
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "store users");
                state.send_replace(UsersState::Failing(error.to_string()));
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(crate::clock::jitter(pause)) => {}
        }
        pause = (pause * 2).min(RETRY.1);
    }
}

/// Makes the users again whenever the peers change, or the store begins a new life.
pub async fn follow(
    store: StoreConfig,
    cluster: ClusterName,
    mut peers: watch::Receiver<PeerUsers>,
    mut writer: watch::Receiver<WriterStatus>,
    state: watch::Sender<UsersState>,
    cancel: CancellationToken,
) {
    let mut done: Option<(PeerUsers, Epoch)> = None;
    loop {
        let wanted = (peers.borrow_and_update().clone(), writer.borrow_and_update().epoch);
        if done.as_ref() != Some(&wanted) {
            ensure(&store, &cluster, &wanted.0, &state, &cancel).await;
            done = Some(wanted);
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            Ok(()) = peers.changed() => {}
            Ok(()) = writer.changed() => {}
            else => return,
        }
    }
}
