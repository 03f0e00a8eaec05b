//! Lives of an agent one after the other, on the same maps: what a restart writes, and when.

use std::net::Ipv4Addr;

use prometheus_client::registry::Registry;
use tokio::sync::oneshot;
use tombolo_core::id::{Addr, ClusterId, MaxClusters};
use tombolo_core::report::AgentStatus;
use tombolo_core::tables::{BackendId, Contents, Limits};
use tombolo_ebpf::MemoryDatapath;
use tombolo_wire::own;

use super::*;
use crate::feed::tests::{START, event, name};

const LIMITS: Limits = Limits { services: 16, backends: 16, slots: 64, members: 64 };

/// A mesh whose own cluster alone is known: nothing in it waits for a peer.
const ALONE: &str = "
    epoch 1
    relist
    put cluster, service, local, synced ne
    listed
    beat";

/// One life, from its beginning to a clean stop.
struct Life {
    driver: Driver,
    reaped: Vec<String>,
    saved: Option<Save>,
    status: Vec<AgentStatus>,
}

fn maps() -> Box<dyn Executor> {
    Box::new(MemoryDatapath::new(LIMITS))
}

fn driver(datapath: Box<dyn Executor>, before: Option<Before>) -> Driver {
    let found = datapath.contents().unwrap();
    let (tables, repairs) = Tables::adopt(LIMITS, &found, BackendId(1_000));
    let id = ClusterId::new(1, MaxClusters::C255).unwrap();
    let mesh = Mesh::new("ne-1".into(), name("ne"), id);
    let kind = DatapathKind::None;
    let begin = Begin {
        mesh,
        before,
        tables,
        repairs,
        datapath,
        kind,
        close_tcp_after: Some(Duration::ZERO),
        remarks: vec![],
        accounts: Accounts::new(10),
    };
    let readiness = Arc::new(ArcSwap::from_pointee(Readiness::default()));
    Driver::new(begin, Clock::start(), readiness, Metrics::register(&mut Registry::default()))
}

/// Runs a life on a script of `feed::tests`; it is asked for its status when it has heard all.
async fn live(mut driver: Driver, script: &str) -> Life {
    let (session, heard) = mpsc::channel(64);
    let (ask, questions) = mpsc::channel(1);
    let (_grace_done, grace_over) = mpsc::channel(1);
    let (_changed, skips) = mpsc::channel(1);
    let (retired, _retired_in) = mpsc::channel(64);
    let (reap, mut handed) = mpsc::channel(64);
    let (save, mut saves) = mpsc::channel(64);
    let stop = CancellationToken::new();
    for step in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
        session.send(event(verb, rest)).await.unwrap();
    }
    let channels = Channels { session: heard, grace_over, retired, questions, skips, reap, save };
    let mut status = Vec::new();
    let asks = async {
        // A question comes before what the session says, so it is asked until all is heard.
        while session.capacity() < session.max_capacity() || status.len() < 2 {
            let (reply, answer) = oneshot::channel();
            ask.send(Question::Status(reply)).await.unwrap();
            status.push(answer.await.unwrap());
        }
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(driver.run(channels, stop.clone()), asks);
    ended.unwrap();
    let mut reaped = Vec::new();
    while let Ok(pairs) = handed.try_recv() {
        reaped.extend(pairs.iter().map(|(_, backend)| backend.to_string()));
    }
    let mut saved = None;
    while let Ok(save) = saves.try_recv() {
        saved = Some(save);
    }
    Life { driver, reaped, saved, status }
}

fn backends(contents: &Contents) -> Vec<String> {
    contents.backends.iter().map(|(_, _, key)| key.to_string()).collect()
}

fn before(saved: &Save, good_for: GoodFor) -> Before {
    let entry = |(key, revision, value): &(_, _, _)| Entry {
        key: own::key_to_string(key),
        revision: *revision,
        value: bytes::Bytes::clone(value),
    };
    Before { entries: saved.held.iter().map(entry).collect(), unix_ms: saved.unix_ms, good_for }
}

#[tokio::test]
async fn an_unchanged_restart_writes_nothing() {
    let first = live(driver(maps(), None), START).await;
    assert!(first.status.last().unwrap().synced);
    let contents = first.driver.datapath.contents().unwrap();
    assert_eq!(backends(&contents), ["10.2.1.5:8080/TCP", "10.2.1.6:8080/TCP"], "the own one and the peer's");
    let second = live(driver(first.driver.datapath, None), START).await;
    let last = second.status.last().unwrap();
    assert_eq!((last.synced, last.plans, last.frontends), (true, 0, 1));
    assert_eq!(second.driver.datapath.contents().unwrap(), contents);
    assert_eq!(second.reaped, [""; 0]);
}

#[tokio::test]
async fn nothing_changes_before_the_first_complete_view() {
    let first = live(driver(maps(), None), START).await;
    let contents = first.driver.datapath.contents().unwrap();
    let script = "
        epoch 1
        relist
        put cluster we, service
        listed
        beat";
    let second = live(driver(first.driver.datapath, None), script).await;
    let last = second.status.last().unwrap();
    assert_eq!((last.synced, last.plans, last.frontends), (false, 0, 1));
    assert_eq!(second.driver.datapath.contents().unwrap(), contents);
}

#[tokio::test]
async fn what_left_while_it_was_dead_leaves_and_its_sockets_are_ended() {
    let first = live(driver(maps(), None), START).await;
    let second = live(driver(first.driver.datapath, None), ALONE).await;
    assert_eq!(second.status.last().unwrap().plans, 1);
    assert_eq!(second.reaped, ["10.2.1.6:8080/TCP"], "the peer's");
    let third = live(driver(second.driver.datapath, None), &ALONE.replace("service, local, ", "")).await;
    assert!(third.driver.datapath.contents().unwrap().services.is_empty());
}

#[tokio::test]
async fn with_pins_a_snapshot_changes_no_table() {
    let first = live(driver(maps(), None), START).await;
    let contents = first.driver.datapath.contents().unwrap();
    let saved = first.saved.unwrap();
    let mut next = driver(first.driver.datapath, Some(before(&saved, GoodFor::Tables)));
    assert_eq!(next.fill_at, None);
    next.saver = Saver::new(0);
    let second = live(next, "lost").await;
    assert_eq!(second.driver.datapath.contents().unwrap(), contents);
    let remarks = &second.status[0].remarks;
    assert!(remarks[0].starts_with("answers are from a snapshot 0s old"), "{remarks:?}");
    assert_eq!(second.status[0].peers.len(), 1, "it answers from what was known");
    let views = second.driver.services();
    assert_eq!(views[0].frontends[0].backends.len(), 2, "whose the tables are is not known, but what they are for is");
}

#[tokio::test]
async fn without_store_and_pins_the_snapshot_fills_the_tables() {
    let first = live(driver(maps(), None), START).await;
    let contents = first.driver.datapath.contents().unwrap();
    let saved = first.saved.unwrap();
    let mut next = driver(maps(), Some(before(&saved, GoodFor::Tables)));
    assert!(next.fill_at.is_some_and(|at| at.0 >= STORE_WAIT_MS), "the store has a moment to answer");
    next.fill_at = Some(Millis(0));
    let second = live(next, "lost").await;
    let last = second.status.last().unwrap();
    assert_eq!(
        (last.synced, last.frontends, &*last.blockers),
        (false, 1, &["waiting for the own store".to_owned()][..])
    );
    assert!(last.remarks[0].starts_with("tables and answers are from a snapshot"), "{:?}", last.remarks);
    let filled = second.driver.datapath.contents().unwrap();
    assert_eq!(backends(&filled), backends(&contents));
    assert!(second.saved.is_none(), "what nobody said again does not become younger");

    let mut again = driver(maps(), Some(before(&saved, GoodFor::Tables)));
    again.fill_at = Some(Millis(0));
    let third = live(again, &format!("lost\n{ALONE}")).await;
    let last = third.status.last().unwrap();
    assert_eq!((last.synced, last.remarks.len()), (true, 0));
    assert_eq!(third.driver.tables.counts().frontends, 1);
    let installed = third.driver.tables.frontends().next().unwrap().1;
    assert_eq!(installed.table.backends.len(), 1, "the peer that is gone left, the own one stays");
}

#[tokio::test]
async fn an_old_snapshot_answers_and_fills_nothing() {
    let first = live(driver(maps(), None), START).await;
    let next = driver(maps(), Some(before(&first.saved.unwrap(), GoodFor::Answers)));
    assert_eq!(next.fill_at, None);
    let explained = next.explain(&ServiceKey::new("default", "rebel-base")).unwrap();
    let explained: Vec<_> = explained.frontends[0].backends.iter().map(|b| b.backend.addr).collect();
    assert_eq!(explained, [5, 6].map(|host| Addr::from(Ipv4Addr::new(10, 2, 1, host))));
    let second = live(next, "lost").await;
    assert!(second.driver.datapath.contents().unwrap().services.is_empty());
}

#[tokio::test]
async fn a_session_that_ends_by_itself_is_an_error() {
    let mut driver = driver(maps(), None);
    let (_ask, questions) = mpsc::channel(1);
    let (_over, grace_over) = mpsc::channel(1);
    let (_changed, skips) = mpsc::channel(1);
    let ((retired, _t), (reap, _r), (save, _s)) = (mpsc::channel(1), mpsc::channel(1), mpsc::channel(1));
    let (_, session) = mpsc::channel(1);
    let channels = Channels { session, grace_over, retired, questions, skips, reap, save };
    let ended = driver.run(channels, CancellationToken::new()).await;
    assert!(matches!(ended, Err(Ended::Session)));
}
