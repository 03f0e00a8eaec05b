//! The writer on a real etcd: canaries, repairs, lost leases, emptied stores.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{Client, GetOptions};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tombolo_core::id::Epoch;
use tombolo_store::{LEASE_TTL, SessionSpec, Surplus, Watch, Writer, WriterSpec, WriterStatus};

use crate::support::{DEADLINE, Etcd, Life, Mirror, until};

const PREFIX: &str = "cilium/state/services/v1/we/";
const CANARY: &str = "cilium/synced/we/cilium/state/services/v1";
const CONFIG: &str = "cilium/cluster-config/we";
const BEAT: &str = "cilium/.heartbeat";

fn start(etcd: &Etcd) -> (Writer, DropGuard) {
    let cancel = CancellationToken::new();
    let spec = WriterSpec {
        store: etcd.store("admin"),
        scope_of: Arc::new(|key| key.starts_with(PREFIX).then(|| "services".to_owned())),
        prefixes: vec![PREFIX.into(), "cilium/synced/we/".into(), CONFIG.into()],
        heartbeats: vec![(BEAT.into(), |ms| Bytes::from(ms.to_string()))],
        every: Duration::from_millis(200),
        lease_ttl: LEASE_TTL,
    };
    (Writer::start(spec, &TaskTracker::new(), cancel.clone()), cancel.drop_guard())
}

fn fill(writer: &Writer, keys: usize) {
    writer.put(CONFIG, "config");
    for n in 0..keys {
        writer.put(format!("{PREFIX}ns/{n:05}"), format!("value {n}"));
    }
}

async fn flushed(writer: &Writer) -> WriterStatus {
    let mut status = writer.subscribe();
    let done = status.wait_for(|s| s.connected && s.pending == 0 && writer.status().pending == 0);
    tokio::time::timeout(DEADLINE, done).await.expect("the writer flushes in time").unwrap().clone()
}

async fn count(client: &Client, prefix: &str) -> i64 {
    let options = GetOptions::new().with_prefix().with_count_only();
    client.kv_client().get(prefix, Some(options)).await.map_or(-1, |r| r.count())
}

async fn value(client: &Client, key: &str) -> Option<(Vec<u8>, i64, i64)> {
    let answer = client.kv_client().get(key, None).await.ok()?;
    answer.kvs().first().map(|kv| (kv.value().to_vec(), kv.lease(), kv.mod_revision()))
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_all_then_the_canary_and_beats() {
    let Some(etcd) = Etcd::start().await else { return };
    let client = etcd.client("admin").await;
    let (writer, _stop) = start(&etcd);
    fill(&writer, 2_500);
    flushed(&writer).await;
    assert_eq!(count(&client, PREFIX).await, 2_500);
    assert_eq!(value(&client, CANARY).await, None, "the scope is not complete");
    writer.complete("services", Surplus::Deleted, Some((CANARY.into(), "now".into())));
    flushed(&writer).await;
    let canary = value(&client, CANARY).await.unwrap();
    let last = value(&client, &format!("{PREFIX}ns/02499")).await.unwrap();
    assert!(canary.2 > last.2 && canary.1 != 0);
    let leases = client.lease_client().leases().await.unwrap().leases().len();
    assert!((66..=70).contains(&leases), "{leases} leases for 2,502 keys");
    let first = value(&client, BEAT).await.unwrap();
    until("another heartbeat", async || value(&client, BEAT).await.is_some_and(|b| b.2 > first.2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_thousand_keys_takes_few_transactions_and_is_no_expiry() {
    let Some(etcd) = Etcd::start().await else { return };
    let (writer, _stop) = start(&etcd);
    fill(&writer, 1_000);
    flushed(&writer).await;
    let watches = vec![Watch { prefix: PREFIX.into(), canary: None }];
    let spec = SessionSpec { store: etcd.store("admin"), heartbeat: None, first: None, watches };
    let mut mirror = Mirror::start(spec);
    mirror.until("all keys", |m| m.state.len() == 1_000).await;
    let (before, begun) = (writer.status().revision, std::time::Instant::now());
    for n in 0..1_000 {
        writer.delete(format!("{PREFIX}ns/{n:05}"));
    }
    let status = flushed(&writer).await;
    println!("1,000 keys deleted in {:?}, {} revisions", begun.elapsed(), status.revision.0 - before.0);
    mirror.until("no key", |m| m.state.is_empty()).await;
    assert!(mirror.expired.is_empty(), "{} keys are taken for expired", mirror.expired.len());
    // Heartbeats have revisions too.
    assert!(status.revision.0 - before.0 <= 60, "{before:?} {status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_changes_only_what_differs() {
    let Some(etcd) = Etcd::start().await else { return };
    let client = etcd.client("admin").await;
    let (writer, stop) = start(&etcd);
    fill(&writer, 300);
    flushed(&writer).await;
    drop(stop);
    let (writer, _stop) = start(&etcd);
    let before = value(&client, &format!("{PREFIX}ns/00100")).await.unwrap();
    fill(&writer, 200);
    flushed(&writer).await;
    assert_eq!(count(&client, PREFIX).await, 300, "not complete yet");
    writer.complete("services", Surplus::Deleted, None);
    until("the surplus is gone", async || count(&client, PREFIX).await == 200).await;
    assert_eq!(value(&client, &format!("{PREFIX}ns/00100")).await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_changes_are_repaired() {
    let Some(etcd) = Etcd::start().await else { return };
    let mut client = etcd.client("admin").await;
    let (writer, _stop) = start(&etcd);
    fill(&writer, 10);
    writer.complete("services", Surplus::Deleted, None);
    flushed(&writer).await;
    client.put(CONFIG, "foreign", None).await.unwrap();
    until("config is back", async || value(&client, CONFIG).await.is_some_and(|v| v.0 == b"config" && v.1 != 0)).await;
    client.delete(CONFIG, None).await.unwrap();
    until("config is there", async || value(&client, CONFIG).await.is_some_and(|v| v.0 == b"config")).await;
    client.put(format!("{PREFIX}ns/foreign"), "x", None).await.unwrap();
    client.delete(PREFIX, Some(etcd_client::DeleteOptions::new().with_prefix())).await.unwrap();
    client.put(format!("{PREFIX}ns/foreign"), "x", None).await.unwrap();
    let foreign = format!("{PREFIX}ns/foreign");
    until("all are back, and no more", async || {
        count(&client, PREFIX).await == 10 && value(&client, &foreign).await.is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_leases_are_made_anew() {
    let Some(etcd) = Etcd::start().await else { return };
    let client = etcd.client("admin").await;
    let (writer, _stop) = start(&etcd);
    fill(&writer, 1_500);
    writer.complete("services", Surplus::Deleted, Some((CANARY.into(), "now".into())));
    flushed(&writer).await;
    let lost: Vec<i64> =
        client.lease_client().leases().await.unwrap().leases().iter().map(etcd_client::LeaseStatus::id).collect();
    for id in &lost {
        client.lease_client().revoke(*id).await.unwrap();
    }
    until("all keys are back", async || count(&client, PREFIX).await == 1_500).await;
    flushed(&writer).await;
    for key in [CANARY, CONFIG, &format!("{PREFIX}ns/01499")] {
        let (_, lease, _) = value(&client, key).await.unwrap();
        assert!(lease != 0 && !lost.contains(&lease), "{key}");
    }
}

async fn check_emptied(life: Life) {
    let Some(mut etcd) = Etcd::start().await else { return };
    let (writer, _stop) = start(&etcd);
    fill(&writer, 400);
    writer.complete("services", Surplus::Deleted, Some((CANARY.into(), "now".into())));
    let before = flushed(&writer).await;
    etcd.kill();
    writer.put(format!("{PREFIX}ns/later"), "x");
    writer.delete(format!("{PREFIX}ns/00000"));
    let mut status = writer.subscribe();
    status.wait_for(|s| !s.connected && s.reason.is_some()).await.unwrap();
    etcd.restart(life).await;
    let client = etcd.client("admin").await;
    until("all is there", async || {
        count(&client, PREFIX).await == 400 && value(&client, CANARY).await.is_some() && writer.status().pending == 0
    })
    .await;
    assert!(value(&client, &format!("{PREFIX}ns/00000")).await.is_none());
    assert_eq!(writer.status().epoch, Epoch(before.epoch.0 + u64::from(life != Life::Same)));
    let canary = value(&client, CANARY).await.unwrap();
    let key = value(&client, &format!("{PREFIX}ns/00399")).await.unwrap();
    assert!(life == Life::Same || canary.2 > key.2, "the canary comes after the keys");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_store_gets_what_changed() {
    check_emptied(Life::Same).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_store_is_filled_again() {
    check_emptied(Life::New).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_store_with_the_same_id_is_filled_again() {
    check_emptied(Life::NewWithSameId).await;
}
