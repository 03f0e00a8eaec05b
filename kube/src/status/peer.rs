//! A peer's status, from what the mirror sees, what is wrong with its configuration, and what was said before.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use tombolo_core::own::{PeerSession, PeerState};
use tombolo_core::report::PeerStatus;

use crate::resources::{ADMITTED, CONNECTED, ConditionStatus, MeshPeerStatus, condition, same_but_time, set_condition};

/// Two times of the same silence differ by no more than this: one is computed from an age.
const SLACK_MS: u64 = 3_000;

/// What is wrong with a peer's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// In one word, for programs: `SecretMissing`.
    pub reason: &'static str,
    /// What is wrong and what to do, for people.
    pub message: String,
}

/// Everything that a peer's status comes from.
#[derive(Clone, Copy, Debug)]
pub struct PeerFacts<'a> {
    /// What the mirror sees; absent before it knows the peer.
    pub seen: Option<&'a PeerStatus>,
    /// What is wrong with its configuration.
    pub problem: Option<&'a Problem>,
    /// The grant it names.
    pub grant: Option<&'a str>,
    /// The generation of the object.
    pub generation: Option<i64>,
}

/// How much two statuses differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// They say the same.
    Nothing,
    /// Numbers.
    Counts,
    /// What a person waits for.
    Story,
}

/// What a peer's status should be at `unix_ms`, after `before`.
pub fn peer_status(facts: &PeerFacts<'_>, before: &MeshPeerStatus, unix_ms: u64) -> MeshPeerStatus {
    let state = facts.seen.map(|seen| &seen.state);
    let mut conditions = before.conditions.clone();
    let connected = connected(state, facts.problem);
    let admitted = admitted(state, facts.problem);
    for (kind, (status, reason, message)) in [(CONNECTED, connected), (ADMITTED, admitted)] {
        set_condition(&mut conditions, condition(kind, (status, reason), message, facts.generation, unix_ms));
    }
    // What was known of a peer stays while nobody knows better.
    let count = |now: fn(&PeerState) -> u32, before: Option<u32>| state.map(now).or(before);
    MeshPeerStatus {
        conditions,
        cluster_id: state.and_then(|state| state.id).map(|id| u32::from(id.get())).or(before.cluster_id),
        session: state.map(|state| session(state.session).to_owned()),
        services: count(|state| state.counts.services, before.services),
        backends: count(|state| state.counts.endpoints, before.backends),
        nodes: count(|state| state.counts.nodes, before.nodes),
        identities: count(|state| state.counts.identities, before.identities),
        refused: count(|state| state.counts.refused, before.refused),
        silent_since: state.and_then(|state| silent_since(state, before.silent_since.as_ref(), unix_ms)),
        message: message(facts),
        observed_generation: facts.generation,
    }
}

/// How much the second says that the first does not.
pub(super) fn news(before: &MeshPeerStatus, after: &MeshPeerStatus) -> News {
    let same_conditions = before.conditions.len() == after.conditions.len()
        && before.conditions.iter().zip(&after.conditions).all(|(a, b)| same_but_time(a, b));
    let numbers = |s: &MeshPeerStatus| (s.services, s.backends, s.nodes, s.identities);
    let story = |s: &MeshPeerStatus| {
        // Something instead of nothing is worth being told at once.
        let any = (s.services.is_some(), s.refused.unwrap_or(0) > 0);
        (s.cluster_id, s.session.clone(), s.silent_since.clone(), s.observed_generation, any)
    };
    let said = |s: &MeshPeerStatus| (s.message.clone(), s.refused);
    if !same_conditions || story(before) != story(after) {
        News::Story
    } else if numbers(before) != numbers(after) || said(before) != said(after) {
        News::Counts
    } else {
        News::Nothing
    }
}

type Told = (ConditionStatus, &'static str, String);

fn connected(state: Option<&PeerState>, problem: Option<&Problem>) -> Told {
    let told = |status, reason, message: &str| (status, reason, message.to_owned());
    let Some(state) = state else {
        return match problem {
            Some(problem) => (ConditionStatus::False, "NotConfigured", problem.message.clone()),
            None => told(ConditionStatus::Unknown, "Starting", "the mirror has not taken it up yet"),
        };
    };
    match state.session {
        PeerSession::Ready if is_silent(state) => {
            told(ConditionStatus::False, "Silent", "its heartbeat is not heard: its backends are the last resort")
        }
        PeerSession::Ready => told(ConditionStatus::True, "Ready", "its store is read and heard"),
        PeerSession::Connecting => told(ConditionStatus::False, "Connecting", &state.detail),
        PeerSession::Lost => told(ConditionStatus::False, "Lost", &state.detail),
        PeerSession::Refused => told(ConditionStatus::False, "Refused", &state.detail),
    }
}

fn admitted(state: Option<&PeerState>, problem: Option<&Problem>) -> Told {
    if let Some(problem) = problem {
        return (ConditionStatus::False, problem.reason, problem.message.clone());
    }
    let told = |status, reason, message: &str| (status, reason, message.to_owned());
    match state {
        Some(state) if state.session == PeerSession::Refused => told(ConditionStatus::False, "Refused", &state.detail),
        Some(state) if state.session == PeerSession::Ready || state.id.is_some() => {
            told(ConditionStatus::True, "Accepted", "its name and id are its own")
        }
        _ => told(ConditionStatus::Unknown, "NotHeard", "it has not said who it is yet"),
    }
}

/// The most telling thing, then what else is not as it should be.
fn message(facts: &PeerFacts<'_>) -> String {
    let mut parts: Vec<String> = facts.problem.iter().map(|problem| problem.message.clone()).collect();
    if let Some(state) = facts.seen.map(|seen| &seen.state) {
        parts.extend(Some(&state.detail).filter(|detail| !detail.is_empty()).cloned());
        if state.counts.refused > 0 {
            let refused = state.counts.refused;
            parts.push(format!("{refused} of its records or backends are refused: tombolo status tells which"));
        }
    }
    if let Some(grant) = facts.grant {
        parts.push(format!("grant {grant} is not honoured yet: it may contribute everything"));
    }
    parts.join("; ")
}

fn session(session: PeerSession) -> &'static str {
    match session {
        PeerSession::Connecting => "connecting",
        PeerSession::Ready => "ready",
        PeerSession::Lost => "lost",
        PeerSession::Refused => "refused",
    }
}

/// Whether it is stale by its own measure.
fn is_silent(state: &PeerState) -> bool {
    state.silent_ms >= state.stale_after_ms
}

fn silent_since(state: &PeerState, before: Option<&Time>, unix_ms: u64) -> Option<Time> {
    if !is_silent(state) {
        return None;
    }
    let millis = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    // A heartbeat that was deleted is silence of no known age: from now on.
    let age = if state.silent_ms == u64::MAX { 0 } else { state.silent_ms };
    let since = millis(unix_ms.saturating_sub(age)).div_euclid(1_000);
    let near = |old: &&Time| (old.0.as_second() - since).unsigned_abs() * 1_000 <= SLACK_MS;
    let deleted = state.silent_ms == u64::MAX;
    before.filter(|old| deleted || near(old)).cloned().or_else(|| Timestamp::from_second(since).ok().map(Time))
}
