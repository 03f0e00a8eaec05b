//! What is told of a peer: to the own agents by its keys, and to people.

use tombolo_core::id::{ClusterName, Millis};
use tombolo_core::own::{OwnKey, OwnRecord, PeerSession, PeerState, RefusedReport};
use tombolo_core::report::PeerStatus;
use tombolo_wire::own;

use super::{Claim, Link, Peer};
use crate::mirror::feed::Feed;
use crate::mirror::uses::Uses;
use crate::writes::Write;

/// Counts of `peers/<c>`, and `refused/<c>`, are rewritten at most this often: each write reaches every agent.
const REPORT_MS: u64 = 5_000;
/// Names of unused imports that status lists.
const UNUSED: usize = 1_000;

impl Peer {
    /// Its state as agents read it, where that is news: silence as it was when it crossed a threshold, not its age.
    pub(in crate::mirror) fn reports(&mut self, now: Millis) -> Vec<Write> {
        let state = PeerState { silent_ms: self.silence.told_ms(), ..self.state(now) };
        let due = now.since(self.reported) >= REPORT_MS;
        let gist = |state: &PeerState| (state.id, state.session, state.silent_ms);
        let urgent = match &self.said_state {
            None => true,
            Some(said) => gist(said) != gist(&state) || said.detail != state.detail,
        };
        let mut writes = Vec::new();
        let changed = self.said_state.as_ref() != Some(&state);
        if urgent || (due && changed) {
            let key = own::key_to_string(&OwnKey::Peer(self.name.clone()));
            writes.push(Write::Put(key, own::encode(&OwnRecord::Peer(state.clone()))));
            self.said_state = Some(state);
        }
        let refused = own::encode(&OwnRecord::Refused(self.refused()));
        let refused_changed = self.said_refused.as_ref() != Some(&refused);
        if refused_changed && (due || self.said_refused.is_none()) {
            let key = own::key_to_string(&OwnKey::Refused(self.name.clone()));
            writes.push(Write::Put(key, refused.clone()));
            self.said_refused = Some(refused);
        }
        if !writes.is_empty() {
            self.reported = now;
        }
        let pending = (changed && !urgent && !due) || (refused_changed && self.said_refused.is_some() && !due);
        self.report_at = pending.then(|| self.reported.after(REPORT_MS));
        writes
    }

    /// Its keys that are not of a service, deleted.
    pub(in crate::mirror) fn farewell(&self) -> Vec<Write> {
        let keys = [OwnKey::Peer(self.name.clone()), OwnKey::Refused(self.name.clone())];
        keys.iter().map(|key| Write::Delete(own::key_to_string(key))).collect()
    }

    /// Its state, with its true age.
    pub(in crate::mirror) fn state(&self, now: Millis) -> PeerState {
        let (session, detail) = self.session();
        let feed = self.feed.as_ref();
        PeerState {
            id: self.id(),
            session,
            silent_ms: self.silence.age_ms(now),
            stale_after_ms: self.silence.stale_after_ms(),
            least_stale_ms: self.silence.least_stale_ms(),
            detail,
            counts: feed.map(Feed::counts).unwrap_or_default(),
        }
    }

    /// Everything about it, for people.
    pub(in crate::mirror) fn status(&self, uses: &Uses, now: Millis) -> PeerStatus {
        let services = self.feed.iter().flat_map(Feed::services);
        PeerStatus {
            name: self.name.clone(),
            state: self.state(now),
            refused: self.refused(),
            unused_imports: services.filter(|key| !uses.imports.contains(key)).take(UNUSED).cloned().collect(),
        }
    }

    /// How many of its backends the guard keeps.
    pub(in crate::mirror) fn guarded(&self) -> (ClusterName, usize) {
        (self.name.clone(), self.feed.as_ref().map_or(0, |feed| feed.guarded().1))
    }

    fn refused(&self) -> RefusedReport {
        self.feed.as_ref().map(|feed| feed.refused.report()).unwrap_or_default()
    }

    fn session(&self) -> (PeerSession, String) {
        if let Claim::Refused { why, .. } = &self.claim {
            return (PeerSession::Refused, why.clone());
        }
        let synced = self.feed.as_ref().is_some_and(Feed::is_synced) && self.next.is_none();
        let (session, standing) = match (&self.link, &self.claim) {
            (Link::Lost(why), _) if self.said_synced => (PeerSession::Lost, why.clone()),
            (Link::Lost(why), _) => (PeerSession::Connecting, why.clone()),
            (Link::Dialling, _) if self.config.is_none() => {
                (PeerSession::Connecting, "its file has not been seen since the start".to_owned())
            }
            (Link::Dialling, _) if self.said_synced => (PeerSession::Lost, "connecting again".to_owned()),
            (Link::Dialling, _) => (PeerSession::Connecting, "connecting".to_owned()),
            (Link::Up, Claim::Accepted(_)) if synced => (PeerSession::Ready, String::new()),
            (Link::Up, Claim::Accepted(_)) => (PeerSession::Connecting, "waiting for a complete set".to_owned()),
            (Link::Up, _) => (PeerSession::Connecting, "connected, waiting for its cluster-config".to_owned()),
        };
        let configuration = self.suspended.as_ref().map(|why| format!("its configuration: {why}")).unwrap_or_default();
        let mut detail = [standing, configuration, self.guard_detail()];
        if detail.iter().all(String::is_empty) && self.silence.told_ms() > 0 {
            detail[0] = "no heartbeat".to_owned();
        }
        (session, detail.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; "))
    }

    fn guard_detail(&self) -> String {
        let Some(sweep) = self.feed.as_ref().and_then(|feed| feed.guarded().0) else { return String::new() };
        let (removed, of, services) = (sweep.removed, sweep.of, sweep.services);
        format!("{removed} of {of} backends in {services} services went at once: kept for 60 s, doubtful")
    }
}
