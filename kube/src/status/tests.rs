use std::fmt::Write as _;

use expect_test::expect;
use proptest::prelude::*;
use tombolo_core::id::{ClusterId, ClusterName, MaxClusters};
use tombolo_core::own::{PeerCounts, PeerSession, PeerState, RefusedReport};
use tombolo_core::report::PeerStatus;

use super::peer::{News, news};
use super::*;
use crate::resources::MeshPeerStatus;

fn seen(session: PeerSession, silent_ms: u64, detail: &str) -> PeerStatus {
    let state = PeerState {
        id: ClusterId::new(2, MaxClusters::C255).ok(),
        session,
        silent_ms,
        stale_after_ms: 30_000,
        least_stale_ms: 12_500,
        detail: detail.into(),
        counts: PeerCounts { services: 3, endpoints: 9, nodes: 2, identities: 4, addresses: 8, refused: 0 },
    };
    PeerStatus {
        name: ClusterName::new("ne").unwrap(),
        state,
        refused: RefusedReport::default(),
        unused_imports: Vec::new(),
    }
}

fn facts<'a>(seen: Option<&'a PeerStatus>, problem: Option<&'a Problem>) -> PeerFacts<'a> {
    PeerFacts { seen, problem, grant: None, generation: Some(1) }
}

fn show(status: &MeshPeerStatus, out: &mut String) {
    for c in &status.conditions {
        write!(out, "{}={} {} since {}; ", c.type_, c.status, c.reason, c.last_transition_time.0.as_second()).unwrap();
    }
    let silent = status.silent_since.as_ref().map(|at| at.0.as_second());
    writeln!(out, "backends {:?} silent since {silent:?}: {}", status.backends, status.message).unwrap();
}

/// The life of a peer, second by second.
#[test]
fn the_story_of_a_peer() {
    let missing = Problem { reason: "SecretMissing", message: "there is no Secret".into() };
    let (connecting, ready) = (seen(PeerSession::Connecting, 0, "connecting"), seen(PeerSession::Ready, 900, ""));
    let lost = |silent| seen(PeerSession::Lost, silent, "connection refused");
    let (lost_now, lost_long) = (lost(5_000), lost(60_000));
    let silent = seen(PeerSession::Ready, u64::MAX, "no heartbeat");
    let rows = [
        (100, facts(None, Some(&missing))),
        (101, facts(None, None)),
        (102, facts(Some(&connecting), None)),
        (103, facts(Some(&ready), None)),
        (104, facts(Some(&ready), Some(&missing))),
        (105, facts(Some(&lost_now), None)),
        (160, facts(Some(&lost_long), None)),
        (161, facts(Some(&silent), None)),
        (162, facts(Some(&silent), None)),
        (163, facts(Some(&ready), None)),
    ];
    let (mut status, mut out) = (MeshPeerStatus::default(), String::new());
    for (second, facts) in rows {
        status = peer_status(&facts, &status, second * 1_000);
        show(&status, &mut out);
    }
    expect![[r#"
        Connected=False NotConfigured since 100; Admitted=False SecretMissing since 100; backends None silent since None: there is no Secret
        Connected=Unknown Starting since 101; Admitted=Unknown NotHeard since 101; backends None silent since None: 
        Connected=False Connecting since 102; Admitted=True Accepted since 102; backends Some(9) silent since None: connecting
        Connected=True Ready since 103; Admitted=True Accepted since 102; backends Some(9) silent since None: 
        Connected=True Ready since 103; Admitted=False SecretMissing since 104; backends Some(9) silent since None: there is no Secret
        Connected=False Lost since 105; Admitted=True Accepted since 105; backends Some(9) silent since None: connection refused
        Connected=False Lost since 105; Admitted=True Accepted since 105; backends Some(9) silent since Some(100): connection refused
        Connected=False Silent since 105; Admitted=True Accepted since 105; backends Some(9) silent since Some(100): no heartbeat
        Connected=False Silent since 105; Admitted=True Accepted since 105; backends Some(9) silent since Some(100): no heartbeat
        Connected=True Ready since 163; Admitted=True Accepted since 105; backends Some(9) silent since None: 
    "#]]
    .assert_eq(&out);
}

#[test]
fn a_grant_that_is_not_honoured_is_told() {
    let ready = seen(PeerSession::Ready, 0, "");
    let facts = PeerFacts { grant: Some("narrow"), ..facts(Some(&ready), None) };
    let status = peer_status(&facts, &MeshPeerStatus::default(), 0);
    assert_eq!(status.message, "grant narrow is not honoured yet: it may contribute everything");
}

#[test]
fn numbers_alone_can_wait() {
    let mut ready = seen(PeerSession::Ready, 0, "");
    let before = peer_status(&facts(Some(&ready), None), &MeshPeerStatus::default(), 0);
    ready.state.counts.endpoints += 1;
    let more = peer_status(&facts(Some(&ready), None), &before, 1_000);
    assert_eq!(news(&before, &more), News::Counts);
    ready.state.counts.refused = 1;
    assert_eq!(news(&before, &peer_status(&facts(Some(&ready), None), &before, 1_000)), News::Story);
}

#[test]
fn drains_and_grants_are_told_that_nothing_acts_by_them() {
    let first = not_honoured(&HonouredStatus::default(), Some(1), 1_000).unwrap();
    assert_eq!(first.conditions[0].reason, "NotYetImplemented");
    assert_eq!(not_honoured(&first, Some(1), 9_000), None);
    let changed = not_honoured(&first, Some(2), 9_000).unwrap();
    assert_eq!(changed.observed_generation, Some(2));
    assert_eq!(changed.conditions[0].last_transition_time, first.conditions[0].last_transition_time);
}

fn sessions() -> impl Strategy<Value = PeerSession> {
    use PeerSession::{Connecting, Lost, Ready, Refused};
    prop_oneof![Just(Connecting), Just(Ready), Just(Lost), Just(Refused)]
}

proptest! {
    /// What was written is as it should be: the same facts a moment later are no news.
    #[test]
    fn what_is_written_once_is_not_written_again(
        session in sessions(), silent in prop_oneof![0..90_000_u64, Just(u64::MAX)], at in 0..4_000_000_000_000_u64,
        later in 0..1_500_u64,
    ) {
        let mut seen = seen(session, silent, "detail");
        let first = peer_status(&facts(Some(&seen), None), &MeshPeerStatus::default(), at);
        let stale = |ms: u64| ms >= 30_000;
        prop_assume!(stale(silent) == stale(silent.saturating_add(later)));
        seen.state.silent_ms = silent.saturating_add(later);
        let again = peer_status(&facts(Some(&seen), None), &first, at + later);
        prop_assert_eq!(news(&first, &again), News::Nothing);
    }
}
