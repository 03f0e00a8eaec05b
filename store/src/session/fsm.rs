//! The session without its IO: inputs with the time in, commands and the next deadline out.
//!
//! One connection goes hello → first key → canaries → lists → watches. Call and watch numbers are never reused, so
//! whatever an old connection still says is recognised and ignored. All failures meet in [`SessionFsm::fail`].

use std::collections::BTreeSet;

use tombolo_core::id::{Epoch, Millis, Revision};

use super::expiry::Gone;
use super::life::{Header, Lives};
use super::track::{Role, State, Track};
use super::{SessionError, SessionEvent, Watch};
use crate::random::Random;

/// Dialling, all endpoints together, may take this long.
pub(crate) const CONNECT_TIMEOUT_MS: u64 = 30_000;
/// A request, or the opening of a watch, may take this long.
pub(crate) const CALL_TIMEOUT_MS: u64 = 15_000;
/// The first wait before connecting again; it doubles with each failure.
pub(crate) const BACKOFF_MS: u64 = 100;
/// The longest wait.
pub(crate) const BACKOFF_MAX_MS: u64 = 5_000;
/// The wait when the store's users refuse us: only a person or a bootstrap changes that.
pub(crate) const DENIED_BACKOFF_MS: u64 = 10_000;
/// A connection that lived this long was a good one: the waits begin anew.
pub(crate) const STABLE_MS: u64 = 10_000;
/// Keys a page, at most; halved while pages are too large to decode.
pub(crate) const PAGE: i64 = 1_000;

/// What is read, without where.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) heartbeat: Option<String>,
    pub(crate) first: Option<String>,
    pub(crate) watches: Vec<Watch>,
}

/// A key with its value and history, as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: String,
    pub(crate) value: bytes::Bytes,
    /// The revision that wrote it last.
    pub(crate) revision: i64,
    /// The revision that created it.
    pub(crate) created: i64,
    /// How often it was put since then, 1 or more.
    pub(crate) version: i64,
    /// Its lease, 0 for none.
    pub(crate) lease: i64,
}

/// One event of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Put(Record),
    Delete { key: String, revision: i64 },
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Drop whatever connection there is and dial.
    Connect,
    /// Drop the connection.
    Close,
    /// Read keys of `[start, end of prefix)`, or the exact key when `prefix` is none.
    Range { call: u64, prefix: String, start: Vec<u8>, revision: i64, limit: i64 },
    /// Watch a prefix or key from a revision.
    Watch { id: i64, prefix: String, from: i64 },
    /// Tell the consumer.
    Emit(SessionEvent),
    /// Tell the consumer a `Delta`, with what only a writer wants to know beside.
    Records {
        watch: usize,
        epoch: Epoch,
        revision: Revision,
        upserts: Vec<Record>,
        deletes: Vec<String>,
        expired: Vec<String>,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// The dial succeeded.
    Connected,
    /// The dial, a request or the stream failed.
    Failed(SessionError),
    /// A page was larger than the client accepts.
    TooLarge { call: u64 },
    /// A page; `next` is the raw key to go on from, when there is more.
    Page { call: u64, header: Header, records: Vec<Record>, next: Option<Vec<u8>> },
    /// A list's revision no longer exists.
    PageCompacted { call: u64 },
    /// The store accepted a watch.
    Created { id: i64, header: Header },
    /// What a watch saw.
    News { id: i64, header: Header, changes: Vec<Change> },
    /// The store ended a watch; an id below 0 is one it never accepted.
    Cancelled { id: i64, reason: SessionError },
    /// A deadline may have passed.
    Tick,
}

#[derive(Clone, Debug)]
enum Phase {
    Waiting {
        until: Millis,
    },
    Connecting {
        until: Millis,
    },
    Hello {
        call: u64,
        until: Millis,
    },
    /// `begun`: the first key is there, or none is asked for.
    Live {
        since: Millis,
        begun: bool,
    },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SessionFsm {
    phase: Phase,
    lives: Lives,
    tracks: Vec<Track>,
    watches: Vec<Watch>,
    hello: String,
    page: i64,
    page_max: i64,
    next_id: u64,
    attempt: u32,
    told: Option<SessionError>,
    random: Random,
    out: Vec<Command>,
}

impl SessionFsm {
    /// A session that connects at its first tick.
    pub(crate) fn new(plan: Plan, seed: u64) -> Self {
        let heartbeat = plan.heartbeat.iter().map(|key| Track::new(Role::Heartbeat, key));
        let first = plan.first.iter().map(|key| Track::new(Role::First, key));
        let canaries = (plan.watches.iter().enumerate())
            .filter_map(|(watch, w)| Some(Track::new(Role::Canary { watch, seen: false }, w.canary.as_ref()?)));
        let data = plan.watches.iter().enumerate().map(|(watch, w)| Track::new(Role::Data { watch }, &w.prefix));
        let tracks: Vec<_> = heartbeat.chain(first).chain(canaries).chain(data).collect();
        let hello = tracks.first().map_or_else(|| "/".into(), |t| t.prefix.clone());
        Self {
            phase: Phase::Waiting { until: Millis(0) },
            lives: Lives::new(&hello),
            tracks,
            watches: plan.watches,
            hello,
            page: PAGE,
            page_max: PAGE,
            next_id: 1,
            attempt: 0,
            told: None,
            random: Random::new(seed),
            out: Vec::new(),
        }
    }

    /// Keys a page, for tests with few keys.
    #[cfg(test)]
    pub(crate) fn page_of(&mut self, keys: i64) {
        self.page_max = keys;
    }

    /// When to call [`Self::on`] with [`Input::Tick`] at the latest.
    pub(crate) fn deadline(&self) -> Option<Millis> {
        match self.phase {
            Phase::Waiting { until } | Phase::Connecting { until } | Phase::Hello { until, .. } => Some(until),
            Phase::Live { .. } => self.tracks.iter().filter_map(Track::deadline).min(),
        }
    }

    /// Takes one input; returns what to do, in order.
    pub(crate) fn on(&mut self, input: Input, now: Millis) -> Vec<Command> {
        match input {
            Input::Tick => self.tick(now),
            Input::Connected => self.connected(now),
            Input::Failed(_) if matches!(self.phase, Phase::Waiting { .. }) => {}
            Input::Failed(reason) => self.fail(reason, now),
            Input::TooLarge { call } => self.too_large(call, now),
            Input::PageCompacted { call } if self.listing(call).is_some() => self.fail(SessionError::Compacted, now),
            Input::PageCompacted { .. } => {}
            Input::Page { call, header, records, next } => self.page(call, header, records, next, now),
            Input::Created { id, header } => self.news(id, header, Vec::new(), now),
            Input::News { id, header, changes } => self.news(id, header, changes, now),
            Input::Cancelled { id, reason } => self.cancelled(id, reason, now),
        }
        std::mem::take(&mut self.out)
    }

    fn tick(&mut self, now: Millis) {
        if self.deadline().is_none_or(|at| now < at) {
            return;
        }
        if matches!(self.phase, Phase::Waiting { .. }) {
            self.phase = Phase::Connecting { until: now.after(CONNECT_TIMEOUT_MS) };
            self.out.push(Command::Connect);
        } else {
            self.fail(SessionError::TimedOut, now);
        }
    }

    fn connected(&mut self, now: Millis) {
        if !matches!(self.phase, Phase::Connecting { .. }) {
            return;
        }
        let call = self.id();
        let prefix = self.hello.clone();
        let start = prefix.clone().into_bytes();
        self.phase = Phase::Hello { call, until: now.after(CALL_TIMEOUT_MS) };
        self.out.push(Command::Range { call, prefix, start, revision: 0, limit: 1 });
    }

    /// The one path of every trouble: say it, close, wait with jitter, connect and list again.
    fn fail(&mut self, reason: SessionError, now: Millis) {
        if let Phase::Live { since, .. } = self.phase
            && now.since(since) >= STABLE_MS
        {
            self.attempt = 0;
        }
        let was_up = matches!(self.phase, Phase::Live { .. });
        let longest = match reason {
            SessionError::PermissionDenied { .. } => DENIED_BACKOFF_MS,
            _ => (BACKOFF_MS << self.attempt.min(10)).min(BACKOFF_MAX_MS),
        };
        self.attempt = self.attempt.saturating_add(1);
        let wait = longest / 2 + self.random.below(longest / 2 + 1);
        self.phase = Phase::Waiting { until: now.after(wait) };
        for track in &mut self.tracks {
            track.state = State::Idle;
        }
        self.out.push(Command::Close);
        if was_up || self.told.as_ref() != Some(&reason) {
            self.told = Some(reason.clone());
            self.out.push(Command::Emit(SessionEvent::Lost { reason }));
        }
    }

    /// Checks a header of the standing connection; false when the session has just failed over it.
    fn check(&mut self, header: Header, now: Millis) -> bool {
        match self.lives.check(header) {
            Ok(()) => true,
            Err(reason) => {
                self.fail(reason, now);
                false
            }
        }
    }

    fn too_large(&mut self, call: u64, now: Millis) {
        let Some(track) = self.listing(call) else { return };
        if self.page == 1 {
            let reason = "one record alone is larger than the client accepts".into();
            return self.fail(SessionError::Request(reason), now);
        }
        self.page /= 2;
        let State::Listing { revision, start, .. } = self.tracks[track].state.clone() else { return };
        self.list(track, revision, start, now);
    }

    fn page(&mut self, call: u64, header: Header, records: Vec<Record>, next: Option<Vec<u8>>, now: Millis) {
        if let Phase::Hello { call: hello, .. } = self.phase
            && call == hello
        {
            return self.hello(header, records.first(), now);
        }
        let Some(index) = self.listing(call) else { return };
        if !self.check(header, now) {
            return;
        }
        let State::Listing { revision, start, .. } = &self.tracks[index].state else { return };
        if next.as_ref().is_some_and(|next| next <= start) {
            return self.fail(SessionError::Request("the store's pages do not advance".into()), now);
        }
        let revision = if *revision == 0 { header.revision } else { *revision };
        self.lives.saw_all(&records);
        self.listed(index, revision, records, next.is_none());
        match next {
            Some(start) => self.list(index, revision, start, now),
            None => self.open(index, revision.saturating_add(1), now),
        }
        self.start_ready(now);
    }

    fn hello(&mut self, header: Header, witness: Option<&Record>, now: Millis) {
        let reborn = self.lives.meet(header, witness);
        if reborn {
            for track in &mut self.tracks {
                if let Role::Canary { seen, .. } = &mut track.role {
                    *seen = false;
                }
            }
        }
        self.told = None;
        self.page = self.page_max;
        self.out.push(Command::Emit(SessionEvent::Connected { epoch: self.lives.epoch() }));
        let mut begun = true;
        for index in 0..self.tracks.len() {
            match self.tracks[index].role {
                Role::Heartbeat => self.open(index, header.revision.saturating_add(1), now),
                Role::First => {
                    begun = false;
                    self.list_anew(index, now);
                }
                Role::Canary { .. } | Role::Data { .. } => {}
            }
        }
        self.phase = Phase::Live { since: now, begun };
        self.start_ready(now);
    }

    /// Tells what one page of a track's list says.
    fn listed(&mut self, index: usize, revision: i64, records: Vec<Record>, last: bool) {
        let (epoch, revision) = (self.lives.epoch(), Revision(revision));
        match self.tracks[index].role {
            Role::Heartbeat => {}
            Role::First => self.tell_config(records),
            Role::Canary { .. } => self.canary(index, !records.is_empty(), true),
            Role::Data { watch } => {
                for record in &records {
                    self.tracks[index].expiry.put(&record.key, record.lease);
                }
                if !records.is_empty() {
                    let (deletes, expired) = (Vec::new(), Vec::new());
                    self.out.push(Command::Records { watch, epoch, revision, upserts: records, deletes, expired });
                }
                if last {
                    self.out.push(Command::Emit(SessionEvent::Listed { watch, epoch, revision }));
                }
            }
        }
    }

    fn news(&mut self, id: i64, header: Header, changes: Vec<Change>, now: Millis) {
        let Some(index) = self.tracks.iter().position(|t| t.watch_id() == Some(id)) else { return };
        if !self.check(header, now) {
            return;
        }
        let fresh = self.tracks[index].accept(changes);
        for change in &fresh {
            self.lives.saw(change);
        }
        match self.tracks[index].role {
            Role::Heartbeat => {
                for change in fresh {
                    self.out.push(Command::Emit(match change {
                        Change::Put(_) => SessionEvent::Heartbeat,
                        Change::Delete { .. } => SessionEvent::HeartbeatGone,
                    }));
                }
            }
            Role::First => {
                let last = fresh.into_iter().filter_map(Change::into_put).next_back();
                self.tell_config(last.into_iter().collect());
            }
            Role::Canary { .. } => {
                for change in fresh {
                    self.canary(index, matches!(change, Change::Put(_)), false);
                }
            }
            Role::Data { watch } => self.tell_changes(index, watch, fresh),
        }
        self.start_ready(now);
    }

    fn tell_config(&mut self, records: Vec<Record>) {
        for Record { key, value, .. } in records {
            if let Phase::Live { begun, .. } = &mut self.phase {
                *begun = true;
            }
            self.out.push(Command::Emit(SessionEvent::Config { key, value }));
        }
    }

    fn canary(&mut self, index: usize, present: bool, anew: bool) {
        let Role::Canary { watch, seen } = &mut self.tracks[index].role else { return };
        let watch = *watch;
        let was = std::mem::replace(seen, present);
        match (was, present) {
            (true, false) => self.out.push(Command::Emit(SessionEvent::CanaryGone { watch })),
            (false, true) => self.out.push(Command::Emit(SessionEvent::CanarySeen { watch })),
            (true, true) if anew => self.out.push(Command::Emit(SessionEvent::CanarySeen { watch })),
            _ => {}
        }
    }

    /// One delta a revision: a consumer may conclude from keys that go together.
    fn tell_changes(&mut self, index: usize, watch: usize, changes: Vec<Change>) {
        let epoch = self.lives.epoch();
        let mut deltas: Vec<(i64, Vec<Record>, Vec<String>)> = Vec::new();
        for change in changes {
            let revision = change.revision();
            if deltas.last().is_none_or(|d| d.0 != revision) {
                deltas.push((revision, Vec::new(), Vec::new()));
            }
            let (_, upserts, deletes) = deltas.last_mut().expect("one was just pushed");
            match change {
                Change::Put(record) => upserts.push(record),
                Change::Delete { key, .. } => deletes.push(key),
            }
        }
        let expiry = &mut self.tracks[index].expiry;
        for (revision, upserts, deletes) in deltas {
            upserts.iter().for_each(|record| expiry.put(&record.key, record.lease));
            let Gone { deletes, expired } = expiry.delete(deletes);
            self.out.push(Command::Records { watch, epoch, revision: Revision(revision), upserts, deletes, expired });
        }
    }

    fn cancelled(&mut self, id: i64, reason: SessionError, now: Millis) {
        let refused = self.tracks.iter().filter(|t| t.is_opening()).min_by_key(|t| t.watch_id());
        let track = if id < 0 { refused } else { self.tracks.iter().find(|t| t.watch_id() == Some(id)) };
        let Some(track) = track else { return };
        let reason = match reason {
            SessionError::PermissionDenied { .. } => SessionError::PermissionDenied { what: track.prefix.clone() },
            other => other,
        };
        self.fail(reason, now);
    }

    /// Starts what has become ready: canaries once the first key is there, data once its canary is.
    fn start_ready(&mut self, now: Millis) {
        let Phase::Live { begun: true, .. } = self.phase else { return };
        let seen: BTreeSet<usize> = self.tracks.iter().filter_map(Track::seen_canary).collect();
        for index in 0..self.tracks.len() {
            let Track { role, state: State::Idle, .. } = &self.tracks[index] else { continue };
            match *role {
                Role::Canary { .. } => self.list_anew(index, now),
                Role::Data { watch } if self.watches[watch].canary.is_none() || seen.contains(&watch) => {
                    self.list_anew(index, now);
                }
                Role::Heartbeat | Role::First | Role::Data { .. } => {}
            }
        }
    }

    fn list_anew(&mut self, index: usize, now: Millis) {
        if let Role::Data { watch } = self.tracks[index].role {
            self.tracks[index].expiry.forget();
            self.out.push(Command::Emit(SessionEvent::Relisting { watch, epoch: self.lives.epoch() }));
        }
        let start = self.tracks[index].prefix.clone().into_bytes();
        self.list(index, 0, start, now);
    }

    fn list(&mut self, index: usize, revision: i64, start: Vec<u8>, now: Millis) {
        let (call, limit) = (self.id(), self.page);
        let prefix = self.tracks[index].prefix.clone();
        self.out.push(Command::Range { call, prefix, start: start.clone(), revision, limit });
        self.tracks[index].state = State::Listing { call, revision, start, until: now.after(CALL_TIMEOUT_MS) };
    }

    fn open(&mut self, index: usize, from: i64, now: Millis) {
        let id = i64::try_from(self.id()).expect("ids are counted up from 1");
        self.out.push(Command::Watch { id, prefix: self.tracks[index].prefix.clone(), from });
        self.tracks[index].state = State::Watching { id, from, opening: Some(now.after(CALL_TIMEOUT_MS)) };
    }

    fn listing(&self, call: u64) -> Option<usize> {
        self.tracks.iter().position(|t| matches!(t.state, State::Listing { call: c, .. } if c == call))
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}
