//! Sessions: list and watch, a real compaction, and stores that were emptied.

use std::collections::BTreeMap;

use bytes::Bytes;
use etcd_client::{Client, CompactionOptions, PutOptions, Txn, TxnOp};
use tombolo_core::id::Epoch;
use tombolo_store::{SessionError, SessionEvent, SessionSpec, Watch};

use crate::support::{Etcd, Life, Mirror};

const CANARY: &str = "cilium/synced/we/cilium/state/services/v1";
const CONFIG: &str = "cilium/cluster-config/we";
const BEAT: &str = "cilium/.heartbeat";
const PREFIX: &str = "cilium/state/services/v1/we/";

fn spec(etcd: &Etcd) -> SessionSpec {
    SessionSpec {
        store: etcd.store("remote"),
        heartbeat: Some(BEAT.into()),
        first: Some(CONFIG.into()),
        watches: vec![Watch { prefix: PREFIX.into(), canary: Some(CANARY.into()) }],
    }
}

async fn fill(client: &mut Client, keys: std::ops::Range<usize>, value: &str) -> BTreeMap<String, Bytes> {
    let keys: Vec<String> = keys.map(|n| format!("{PREFIX}ns/svc-{n:05}")).collect();
    for chunk in keys.chunks(128) {
        let puts: Vec<_> = chunk.iter().map(|key| TxnOp::put(key.as_str(), value, None)).collect();
        client.txn(Txn::new().and_then(puts)).await.unwrap();
    }
    keys.into_iter().map(|key| (key, Bytes::from(value.to_owned()))).collect()
}

async fn announce(client: &mut Client) {
    client.put(CONFIG, r#"{"id":1}"#, None).await.unwrap();
    client.put(CANARY, "now", None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_in_pages_after_config_and_canary_and_then_follows() {
    let Some(etcd) = Etcd::start().await else { return };
    let mut admin = etcd.client("admin").await;
    let mut mirror = Mirror::start(spec(&etcd));
    let mut expected = fill(&mut admin, 0..2_500, "1").await;
    mirror.until("connected", |m| m.epoch == Epoch(1)).await;
    assert!(mirror.state.is_empty(), "nothing is read before the config");
    announce(&mut admin).await;
    mirror.until_state(&expected).await;
    let config = SessionEvent::Config { key: CONFIG.into(), value: r#"{"id":1}"#.into() };
    assert!(mirror.events.contains(&config));

    expected.extend(fill(&mut admin, 0..300, "2").await);
    admin.delete(format!("{PREFIX}ns/svc-00500"), None).await.unwrap();
    expected.remove(&format!("{PREFIX}ns/svc-00500"));
    mirror.until_state(&expected).await;

    assert!(!mirror.events.contains(&SessionEvent::Heartbeat));
    admin.put(BEAT, "now", None).await.unwrap();
    mirror.until("a heartbeat", |m| m.events.contains(&SessionEvent::Heartbeat)).await;
    admin.delete(CANARY, None).await.unwrap();
    mirror.until("no canary", |m| m.events.contains(&SessionEvent::CanaryGone { watch: 0 })).await;
    let lost = mirror.events.iter().any(|e| matches!(e, SessionEvent::Lost { .. }));
    assert!(!lost, "{:?}", mirror.events);
}

/// The consumer stops reading until etcd can no longer keep what it has not sent, and compacts.
#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_with_deletes_in_the_gap_is_made_up() {
    let Some(etcd) = Etcd::start().await else { return };
    let mut admin = etcd.client("admin").await;
    announce(&mut admin).await;
    let mut mirror = Mirror::start(spec(&etcd));
    let mut expected = fill(&mut admin, 0..200, "1").await;
    mirror.until_state(&expected).await;

    let large = "x".repeat(100_000);
    for round in 0..400 {
        let key = format!("{PREFIX}ns/svc-{:05}", round % 100);
        admin.put(key.as_str(), format!("{round}{large}"), None).await.unwrap();
    }
    for n in 0..150 {
        let key = format!("{PREFIX}ns/svc-{n:05}");
        admin.delete(key.as_str(), None).await.unwrap();
        expected.remove(&key);
    }
    let revision = admin.get("/", None).await.unwrap().header().unwrap().revision();
    admin.compact(revision, Some(CompactionOptions::new().with_physical())).await.unwrap();
    mirror.until_state(&expected).await;
    let lost = SessionEvent::Lost { reason: SessionError::Compacted };
    assert!(mirror.events.contains(&lost), "{:?}", mirror.events);
}

/// Puts `keys` keys with this lease.
async fn lease(client: &mut Client, lease: i64, keys: std::ops::Range<usize>) -> Vec<String> {
    let keys: Vec<String> = keys.map(|n| format!("{PREFIX}ns/leased-{n:05}")).collect();
    for key in &keys {
        client.put(key.as_str(), "1", Some(PutOptions::new().with_lease(lease))).await.unwrap();
    }
    keys
}

/// A session that follows what these leases carry: one key, three, and three that have none.
async fn leased(etcd: &Etcd, admin: &mut Client, leases: [i64; 2]) -> (Mirror, Vec<String>, Vec<String>) {
    announce(admin).await;
    let alone = lease(admin, leases[0], 0..1).await;
    let before = lease(admin, leases[1], 1..3).await;
    fill(admin, 0..3, "1").await;
    let mut mirror = Mirror::start(spec(etcd));
    mirror.until("the listed keys", |m| m.state.len() == 6).await;
    let mut together = lease(admin, leases[1], 3..4).await;
    mirror.until("the put key", |m| m.state.len() == 7).await;
    together.extend(before);
    (mirror, alone, together)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_revoked_lease_are_expired_and_one_alone_is_deleted() {
    let Some(etcd) = Etcd::start().await else { return };
    let mut admin = etcd.client("admin").await;
    let mut leases = admin.lease_client();
    let ids = [leases.grant(900, None).await.unwrap().id(), leases.grant(900, None).await.unwrap().id()];
    let (mut mirror, alone, together) = leased(&etcd, &mut admin, ids).await;
    leases.revoke(ids[1]).await.unwrap();
    leases.revoke(ids[0]).await.unwrap();
    mirror.until("both are gone", |m| m.state.len() == 3).await;
    assert_eq!(mirror.expired, together.into_iter().collect());
    assert!(!mirror.expired.contains(&alone[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_lease_that_nobody_renews_are_expired() {
    let Some(etcd) = Etcd::start().await else { return };
    let mut admin = etcd.client("admin").await;
    let mut leases = admin.lease_client();
    let ids = [leases.grant(900, None).await.unwrap().id(), leases.grant(6, None).await.unwrap().id()];
    let (mut mirror, _alone, together) = leased(&etcd, &mut admin, ids).await;
    mirror.until("the lease has ended", |m| m.state.len() == 4).await;
    assert_eq!(mirror.expired, together.into_iter().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_somebody_deletes_are_not_expired() {
    let Some(etcd) = Etcd::start().await else { return };
    let mut admin = etcd.client("admin").await;
    let mut leases = admin.lease_client();
    let ids = [leases.grant(900, None).await.unwrap().id(), leases.grant(900, None).await.unwrap().id()];
    let (mut mirror, alone, together) = leased(&etcd, &mut admin, ids).await;
    // Keys of one lease one after the other, then one of each lease, and those without, in one transaction.
    for key in &together[..2] {
        admin.delete(key.as_str(), None).await.unwrap();
    }
    let plain = (0..3).map(|n| format!("{PREFIX}ns/svc-{n:05}"));
    let deletes = plain.chain([alone[0].clone(), together[2].clone()]).map(|key| TxnOp::delete(key, None));
    admin.txn(Txn::new().and_then(deletes.collect::<Vec<_>>())).await.unwrap();
    mirror.until("all are gone", |m| m.state.is_empty()).await;
    assert!(mirror.expired.is_empty(), "{:?}", mirror.expired);
}

async fn check_emptied(life: Life) {
    let Some(mut etcd) = Etcd::start().await else { return };
    let mut admin = etcd.client("admin").await;
    announce(&mut admin).await;
    admin.put(BEAT, "1", None).await.unwrap();
    let first = fill(&mut admin, 0..300, "1").await;
    let mut mirror = Mirror::start(spec(&etcd));
    mirror.until_state(&first).await;
    assert_eq!(mirror.epoch, Epoch(1));

    etcd.kill();
    mirror.until("lost", |m| matches!(m.events.last(), Some(SessionEvent::Lost { .. }))).await;
    etcd.restart(life).await;
    let same = life == Life::Same;
    mirror.until("connected", |m| matches!(m.events.last(), Some(SessionEvent::Connected { .. })) || same).await;
    if !same {
        assert_eq!(mirror.epoch, Epoch(2));
        assert_eq!(mirror.state, first, "an emptied store says nothing before its config and canary");
        let mut admin = etcd.client("admin").await;
        let second = fill(&mut admin, 100..200, "2").await;
        announce(&mut admin).await;
        mirror.until_state(&second).await;
        return;
    }
    mirror.until("listed", |m| matches!(m.events.last(), Some(SessionEvent::Listed { .. }))).await;
    assert_eq!((mirror.epoch, mirror.state), (Epoch(1), first));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_its_data_is_the_same_epoch() {
    check_emptied(Life::Same).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_store_with_another_id_is_a_new_epoch() {
    check_emptied(Life::New).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_store_with_the_same_id_is_a_new_epoch() {
    check_emptied(Life::NewWithSameId).await;
}

/// The hard case: same id, and the revision is past the old one before the session is back.
#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_store_that_ran_ahead_is_a_new_epoch() {
    let Some(mut etcd) = Etcd::start().await else { return };
    let mut admin = etcd.client("admin").await;
    announce(&mut admin).await;
    for n in 0..20 {
        admin.put(BEAT, n.to_string(), None).await.unwrap();
    }
    let spec = spec(&etcd);
    let mut mirror = Mirror::start(spec);
    mirror.until("seen", |m| m.events.contains(&SessionEvent::CanarySeen { watch: 0 })).await;
    // A session that does not get its socket back while the new life runs ahead: its certificate is unreadable.
    let files = etcd.pki.files("remote");
    let kept = files.cert.with_extension("kept");
    std::fs::rename(&files.cert, &kept).unwrap();
    etcd.kill();
    etcd.restart(Life::NewWithSameId).await;
    let mut admin = etcd.client("admin").await;
    // As a writer does: a heartbeat first, the canary last.
    admin.put(BEAT, "1", None).await.unwrap();
    let expected = fill(&mut admin, 0..6_000, "2").await;
    announce(&mut admin).await;
    std::fs::rename(&kept, &files.cert).unwrap();
    mirror.until("a new epoch", |m| m.epoch == Epoch(2)).await;
    mirror.until_state(&expected).await;
}
