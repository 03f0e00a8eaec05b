//! Who may do what, asked of a real etcd.

use std::collections::BTreeSet;

use etcd_client::{Client, PutOptions};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tombolo_core::id::{ClusterName, Epoch};
use tombolo_store::users::{Others, PeerUsers, UsersKeeper, UsersState};
use tombolo_store::{SessionError, SessionEvent, SessionSpec, Watch, WriterStatus, bootstrap_users};

use crate::support::{Etcd, Life, Mirror, until, until_event};

fn name(text: &str) -> ClusterName {
    ClusterName::new(text).unwrap()
}

fn peers(names: &[&str]) -> BTreeSet<ClusterName> {
    names.iter().map(|n| name(n)).collect()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Allowed,
    Denied,
}

fn judged<T>(answer: Result<T, etcd_client::Error>) -> Is {
    match answer {
        Ok(_) => Is::Allowed,
        Err(etcd_client::Error::GRpcStatus(s)) if s.code() == tonic::Code::PermissionDenied => Is::Denied,
        Err(other) => panic!("neither allowed nor denied: {other}"),
    }
}

async fn reads(client: &Client, key: &str) -> Is {
    judged(client.kv_client().get(key, None).await)
}

async fn puts(client: &Client, key: &str) -> Is {
    judged(client.kv_client().put(key, "x", None).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_certificate_may_do_what_its_role_says() {
    let Some(etcd) = Etcd::start().await else { return };
    let (store, we) = (etcd.store("admin"), name("we"));
    assert_eq!(puts(&etcd.client("remote").await, "tombolo/v1/x").await, Is::Allowed, "before auth is on");
    let steps = bootstrap_users(&store, &we, &peers(&["ne"]), Others::Removed).await.unwrap();
    assert!(steps.contains(&"add user remote-ne".to_owned()), "{steps:?}");
    assert_eq!(bootstrap_users(&store, &we, &peers(&["ne"]), Others::Removed).await.unwrap(), Vec::<String>::new());

    for remote in ["remote", "remote-ne"] {
        let client = etcd.client(remote).await;
        for key in
            ["cilium/.heartbeat", "cilium/state/services/v1/we/a/b", "cilium/cluster-config/we", "cilium/synced/we/x"]
        {
            assert_eq!(reads(&client, key).await, Is::Allowed, "{remote} {key}");
            assert_eq!(puts(&client, key).await, Is::Denied, "{remote} {key}");
        }
        for key in ["tombolo/v1/agents/x", "cilium/cluster-config/ne", "cilium/cache/x", "cilium/synced/ne/x", "other"]
        {
            assert_eq!(reads(&client, key).await, Is::Denied, "{remote} {key}");
        }
        assert_eq!(judged(client.kv_client().compact(2, None).await), Is::Denied, "{remote} compacts");
        assert_eq!(judged(client.auth_client().user_list().await), Is::Denied, "{remote} lists users");
    }

    let local = etcd.client("local").await;
    for key in ["tombolo/v1/agents/x", "cilium/cache/x", "cilium/cluster-config/ne", "cilium/synced/ne/x"] {
        assert_eq!(reads(&local, key).await, Is::Allowed, "{key}");
        assert_eq!(puts(&local, key).await, Is::Denied, "{key}");
    }
    assert_eq!(reads(&local, "cilium/state/x").await, Is::Denied);
    let lease = local.lease_client().grant(60, None).await.unwrap().id();
    let leased = Some(PutOptions::new().with_lease(lease));
    let report = local.kv_client().put("tombolo/v1/control/reports/node-1", "x", leased).await;
    assert_eq!(judged(report), Is::Allowed);
    assert_eq!(puts(&etcd.client("admin").await, "tombolo/v1/x").await, Is::Allowed);

    bootstrap_users(&store, &we, &peers(&[]), Others::Removed).await.unwrap();
    let gone = etcd.client("remote-ne").await.kv_client().get("cilium/.heartbeat", None).await;
    assert!(gone.is_err(), "ne is no longer a peer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_says_that_it_is_not_permitted() {
    let Some(etcd) = Etcd::start().await else { return };
    bootstrap_users(&etcd.store("admin"), &name("we"), &peers(&[]), Others::Removed).await.unwrap();
    let watches = vec![Watch { prefix: "tombolo/v1/agents/".into(), canary: None }];
    let mut mirror = Mirror::start(SessionSpec { store: etcd.store("remote"), heartbeat: None, first: None, watches });
    let denied = |what: &str| SessionError::PermissionDenied { what: what.into() };
    let reason = until_event(&mut mirror.rx, lost).await;
    assert_eq!(reason, denied("tombolo/v1/agents/"));

    // A watch alone is accepted at first, and cancelled by its first message.
    let spec = SessionSpec {
        store: etcd.store("remote"),
        heartbeat: Some("cilium/.heartbeat".into()),
        first: None,
        watches: vec![Watch { prefix: "cilium/state/".into(), canary: Some("cilium/synced/ne/x".into()) }],
    };
    let mut mirror = Mirror::start(spec);
    assert_eq!(until_event(&mut mirror.rx, lost).await, denied("cilium/synced/ne/x"));
}

fn lost(event: SessionEvent) -> Option<SessionError> {
    match event {
        SessionEvent::Lost { reason } => Some(reason),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_follow_peers_and_come_back_after_the_store_was_emptied() {
    let Some(mut etcd) = Etcd::start().await else { return };
    let wanted = |names: &[&str]| PeerUsers { peers: peers(names), others: Others::Removed };
    let (wanted_tx, wanted_rx) = watch::channel(wanted(&[]));
    let (writer_tx, writer_rx) =
        watch::channel(WriterStatus { connected: true, epoch: Epoch(1), ..Default::default() });
    let (told, mut state) = watch::channel(UsersState::Unknown);
    let keeper = UsersKeeper { store: etcd.store("admin"), cluster: name("we"), state: told };
    let mut tasks = JoinSet::new();
    tasks.spawn(keeper.keep(wanted_rx, writer_rx));
    state.wait_for(|s| *s == UsersState::Ready).await.unwrap();

    wanted_tx.send_replace(wanted(&["ne"]));
    let ne = etcd.client("remote-ne").await;
    until("ne may read", async || ne.kv_client().get("cilium/.heartbeat", None).await.is_ok()).await;

    etcd.kill();
    writer_tx.send_modify(|status| status.connected = false);
    etcd.restart(Life::New).await;
    writer_tx.send_modify(|status| (status.connected, status.epoch) = (true, Epoch(2)));
    let remote = etcd.client("remote").await;
    until("a peer may no longer write", async || puts(&remote, "tombolo/v1/x").await == Is::Denied).await;
    assert_eq!(reads(&etcd.client("remote-ne").await, "cilium/.heartbeat").await, Is::Allowed);
}
