//! How long a peer has been silent, by this program's own clock, as its Services measure it.
//!
//! Silence counts from the last heartbeat that was put; before the first, from the first contact, else from the start. A
//! heartbeat that was deleted is silence for ever. What agents are told changes only when silence crosses a threshold
//! that some Service uses: they time nothing. Once told, silence lasts until the peer's list is complete and it was
//! heard again; until a program that has just started knows better, what its predecessor told stands.

use std::collections::{BTreeSet, VecDeque};

use tombolo_core::id::Millis;
use tombolo_core::own::PeerState;

/// Silence after which a peer is stale that beats at least every [`FAST_BEAT_MS`], or that was never reached.
pub(super) const STALE_FAST_MS: u64 = 30_000;
/// The same for every other peer.
pub(super) const STALE_SLOW_MS: u64 = 180_000;
const FAST_BEAT_MS: u64 = 10_000;
/// The interval of a peer that was met and is not known well enough: the slowest there is, Cilium's.
const UNKNOWN_BEAT_MS: u64 = 60_000;
/// Heartbeats that the interval is measured over.
const BEATS: usize = 8;
/// A measured interval is news when it differs by more than this: each change reaches every agent.
const INTERVAL_SLACK_MS: u64 = 750;

/// Whether a peer that was silent may be believed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    /// Its list is complete, and it was heard since its session came back.
    Live,
    /// Not yet.
    Awaited,
}

/// One peer's silence.
#[derive(Debug)]
pub(super) struct Silence {
    since: Millis,
    contact: Contact,
    deleted: bool,
    /// An earlier life of this program told that it is silent, and it was not heard in this one.
    unheard: bool,
    /// The heartbeats of this session that its interval is measured by.
    beats: VecDeque<Millis>,
    interval_ms: Option<u64>,
    /// What agents were told: 0 is fresh.
    told_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contact {
    None,
    Made,
}

impl Silence {
    /// Silence begins now; `before` is what an earlier life of this program told of the peer.
    pub(super) fn new(before: Option<&PeerState>, now: Millis) -> Self {
        Self {
            since: now,
            contact: Contact::None,
            deleted: false,
            unheard: before.is_some_and(|state| state.silent_ms > 0),
            beats: VecDeque::new(),
            interval_ms: before.map(|state| state.least_stale_ms * 2 / 5).filter(|interval| *interval > 0),
            told_ms: before.map_or(0, |state| state.silent_ms),
        }
    }

    /// A session is up. The first contact counts as fresh.
    pub(super) fn connected(&mut self, now: Millis) {
        self.beats.clear();
        if self.contact == Contact::None {
            self.contact = Contact::Made;
            self.since = now;
        }
    }

    /// A heartbeat was put.
    pub(super) fn beat(&mut self, now: Millis) {
        if self.deleted || now.since(self.since) >= self.stale_after_ms() {
            // A silence is no interval.
            self.beats.clear();
        }
        self.deleted = false;
        self.unheard = false;
        self.since = now;
        self.beats.push_back(now);
        if self.beats.len() > BEATS {
            self.beats.pop_front();
        }
        self.measure();
    }

    /// The heartbeat was deleted.
    pub(super) fn beat_gone(&mut self) {
        self.deleted = true;
    }

    /// Judges now, with the distinct times of silence that Services bear. Says whether agents are to be told otherwise.
    pub(super) fn judge(&mut self, session: Session, bounds: &BTreeSet<u64>, now: Millis) -> bool {
        let before = self.told_ms;
        let crossed = match self.deleted {
            true => u64::MAX,
            false => self.thresholds(bounds).filter(|at| now.since(self.since) >= *at).max().unwrap_or(0),
        };
        if crossed > 0 {
            self.told_ms = before.max(crossed);
        } else if session == Session::Live && !self.unheard {
            self.told_ms = 0;
        }
        self.told_ms != before
    }

    /// When silence crosses the next threshold.
    pub(super) fn deadline(&self, bounds: &BTreeSet<u64>, now: Millis) -> Option<Millis> {
        let ahead = self.thresholds(bounds).map(|at| self.since.after(at)).filter(|at| *at > now && !self.deleted);
        ahead.min()
    }

    /// Milliseconds since silence began, for people.
    pub(super) fn age_ms(&self, now: Millis) -> u64 {
        now.since(self.since)
    }

    /// What agents are told: 0 is fresh, else the highest threshold crossed.
    pub(super) fn told_ms(&self) -> u64 {
        self.told_ms
    }

    /// Silence after which the peer is stale for a Service that names no time, and its deletes do not count.
    pub(super) fn stale_after_ms(&self) -> u64 {
        if self.assumed_interval_ms() <= FAST_BEAT_MS { STALE_FAST_MS } else { STALE_SLOW_MS }
    }

    /// The least that counts for any Service: two and a half intervals; 0 for a peer that was never reached.
    pub(super) fn least_stale_ms(&self) -> u64 {
        self.assumed_interval_ms() * 5 / 2
    }

    /// The same, once it is measured.
    pub(super) fn measured_least_ms(&self) -> Option<u64> {
        self.interval_ms.map(|interval| interval * 5 / 2)
    }

    fn assumed_interval_ms(&self) -> u64 {
        let unknown = if self.contact == Contact::None { 0 } else { UNKNOWN_BEAT_MS };
        self.interval_ms.unwrap_or(unknown)
    }

    fn thresholds<'a>(&'a self, bounds: &'a BTreeSet<u64>) -> impl Iterator<Item = u64> + 'a {
        let own = std::iter::once(self.stale_after_ms());
        own.chain(bounds.iter().copied()).map(|at| at.max(self.least_stale_ms()))
    }

    /// The median of this session's last intervals, in whole seconds: a stall makes one long and the next ones short.
    fn measure(&mut self) {
        let gaps = self.beats.iter().zip(self.beats.iter().skip(1)).map(|(one, next)| next.since(*one));
        let mut gaps: Vec<u64> = gaps.collect();
        gaps.sort_unstable();
        let Some(median) = gaps.len().checked_sub(1).map(|last| gaps[last / 2]) else { return };
        if self.interval_ms.is_none_or(|known| known.abs_diff(median) > INTERVAL_SLACK_MS) {
            self.interval_ms = Some(((median + 500) / 1_000).max(1) * 1_000);
        }
    }
}

#[cfg(test)]
mod tests;
