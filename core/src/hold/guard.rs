//! The deletion guard: what a peer takes away in one sweep comes back for a while, doubtful.
//!
//! One [`Guard`] stands behind the held view of one peer's endpoints. It is told every change of a slice in that view,
//! and judges after each batch of them: when within [`WINDOW_MS`] more than half of the peer's backends went, more than
//! [`FEW`], and in more than one service, what went in that time is a [`Ghost`] for [`GHOST_MS`]. A backend is one
//! address of one service, so neither a slice that is renamed nor one that is split takes anything away. What went is
//! net: a fall from the most there was in that time, so a rolling update that replaces everything is none.
//!
//! It costs as much as the slices that changed, whatever else the peer has.

use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use smol_str::SmolStr;

use crate::id::{Addr, Millis, ServiceKey};
use crate::model::Endpoint;

/// Removals count together for this long.
pub const WINDOW_MS: u64 = 30_000;
/// How long a ghost stays unless its backend comes back.
pub const GHOST_MS: u64 = 60_000;
/// So many may always go.
pub const FEW: usize = 10;

/// Why a slice changed in the held view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The peer said so, and is believed.
    Said,
    /// It was decided here, and leaves at once: by admission, or because its time after an expiry is over.
    Decided,
}

/// One slice of the held view, before and after; no endpoints where it was not, or is no more.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// The service it belongs to. A record that changes its service is two of these.
    pub service: &'a ServiceKey,
    /// The slice's name among the service's.
    pub slice: &'a SmolStr,
    /// Its endpoints until now.
    pub before: &'a [Endpoint],
    /// The revision of the peer's store that brought those.
    pub revision: i64,
    /// Its endpoints from now on.
    pub after: &'a [Endpoint],
    /// Why.
    pub cause: Cause,
}

/// A backend that the peer took away and that is kept as a last resort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ghost {
    /// The slice it was in.
    pub slice: SmolStr,
    /// The revision of the peer's store that had brought it.
    pub revision: i64,
    /// What it was, now doubtful.
    pub endpoint: Endpoint,
    /// When it leaves.
    pub until: Millis,
}

/// A sweep, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// Backends that went, net.
    pub removed: usize,
    /// Of so many.
    pub of: usize,
    /// In so many services.
    pub services: usize,
    /// When the last of its ghosts leaves.
    pub until: Millis,
}

/// What a judgement changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The services whose ghosts are others now.
    pub services: BTreeSet<ServiceKey>,
    /// Something came back as a ghost, because of this.
    pub sweep: Option<Sweep>,
}

/// One peer's backends, those that went lately, and those that are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    services: BTreeMap<ServiceKey, Service>,
    /// Backends in all services.
    present: usize,
    /// Net removals of the window in all services, and in how many services there are any.
    fallen: usize,
    falling: usize,
    /// All removals of the window, oldest first.
    window: VecDeque<(Millis, ServiceKey, Addr)>,
    /// How many of these, the latest, no sweep has brought back yet.
    fresh: usize,
    /// When each ghost leaves.
    leaving: BTreeSet<(Millis, ServiceKey, Addr)>,
    last: Option<Sweep>,
    touched: BTreeSet<ServiceKey>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Service {
    /// How many slices list each backend.
    present: BTreeMap<Addr, u32>,
    /// Removals of the window that no later addition made good, oldest first.
    fallen: VecDeque<Millis>,
    /// What went in the window and is not there.
    gone: BTreeMap<Addr, Gone>,
    ghosts: BTreeMap<Addr, Ghost>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Gone {
    at: Millis,
    slice: SmolStr,
    revision: i64,
    endpoint: Endpoint,
}

impl Guard {
    /// Takes one change in. What it leads to, [`Self::judge`] says.
    pub fn turn(&mut self, turn: Turn<'_>, now: Millis) {
        self.forget_old(now);
        let before: BTreeMap<Addr, &Endpoint> = turn.before.iter().map(|e| (e.addr, e)).collect();
        let after: BTreeSet<Addr> = turn.after.iter().map(|e| e.addr).collect();
        // What comes makes good what goes in the same change.
        for (addr, endpoint) in before.iter().filter(|(addr, _)| !after.contains(*addr)) {
            self.remove(&turn, *addr, endpoint, now);
        }
        for addr in after.iter().filter(|addr| !before.contains_key(*addr)) {
            self.add(turn.service, *addr);
        }
        self.forget_if_empty(turn.service);
    }

    /// Judges what was taken in: at the end of every batch, and when the time of [`Self::deadline`] has come.
    pub fn judge(&mut self, now: Millis) -> Judgement {
        self.forget_old(now);
        self.let_ghosts_go(now);
        let sweep = if self.is_sweep() { self.raise_ghosts(now) } else { None };
        if self.leaving.is_empty() {
            self.last = None;
        }
        Judgement { services: core::mem::take(&mut self.touched), sweep }
    }

    /// When the next ghost leaves.
    pub fn deadline(&self) -> Option<Millis> {
        self.leaving.first().map(|(until, ..)| *until)
    }

    /// The ghosts of one service, by address. None of them is in the held view.
    pub fn ghosts(&self, service: &ServiceKey) -> impl Iterator<Item = &Ghost> {
        self.services.get(service).into_iter().flat_map(|known| known.ghosts.values())
    }

    /// The services that have ghosts.
    pub fn haunted(&self) -> impl Iterator<Item = &ServiceKey> {
        self.services.iter().filter(|(_, known)| !known.ghosts.is_empty()).map(|(key, _)| key)
    }

    /// How many ghosts there are.
    pub fn len(&self) -> usize {
        self.leaving.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.leaving.is_empty()
    }

    /// The last sweep, while it has ghosts.
    pub fn sweep(&self) -> Option<Sweep> {
        self.last
    }

    /// Admission refuses others now: what it refuses of what went never comes back, and is no ghost any more.
    /// [`Self::judge`] says where that made a difference.
    pub fn refuse(&mut self, refused: impl Fn(&Endpoint) -> bool) {
        let mut ghosts = Vec::new();
        for (service, known) in &mut self.services {
            known.gone.retain(|_, gone| !refused(&gone.endpoint));
            let refused = known.ghosts.iter().filter(|(_, ghost)| refused(&ghost.endpoint));
            ghosts.extend(refused.map(|(addr, _)| (service.clone(), *addr)));
        }
        for (service, addr) in ghosts {
            self.exorcise(&service, addr);
            self.forget_if_empty(&service);
        }
    }

    fn remove(&mut self, turn: &Turn<'_>, addr: Addr, endpoint: &Endpoint, now: Millis) {
        let Some(known) = self.services.get_mut(turn.service) else { return };
        let Entry::Occupied(mut slices) = known.present.entry(addr) else { return };
        if *slices.get() > 1 {
            *slices.get_mut() -= 1;
            return;
        }
        slices.remove();
        self.present -= 1;
        if turn.cause == Cause::Decided {
            return;
        }
        let (slice, revision) = (turn.slice.clone(), turn.revision);
        known.gone.insert(addr, Gone { at: now, slice, revision, endpoint: endpoint.clone() });
        self.falling += usize::from(known.fallen.is_empty());
        self.fallen += 1;
        known.fallen.push_back(now);
        self.window.push_back((now, turn.service.clone(), addr));
        self.fresh += 1;
    }

    fn add(&mut self, service: &ServiceKey, addr: Addr) {
        let known = self.services.entry(service.clone()).or_default();
        let slices = known.present.entry(addr).or_default();
        *slices += 1;
        if *slices > 1 {
            return;
        }
        self.present += 1;
        known.gone.remove(&addr);
        if known.fallen.pop_back().is_some() {
            self.fallen -= 1;
            self.falling -= usize::from(known.fallen.is_empty());
        }
        self.exorcise(service, addr);
    }

    /// More than half of all there were, more than a few, and not the end of one service.
    fn is_sweep(&self) -> bool {
        self.fallen > self.present && self.fallen > FEW && self.falling > 1
    }

    /// All that went in the window comes back.
    fn raise_ghosts(&mut self, now: Millis) -> Option<Sweep> {
        let until = now.after(GHOST_MS);
        let raised = self.leaving.len();
        for (_, service, addr) in self.window.range(self.window.len() - core::mem::take(&mut self.fresh)..) {
            let Some(known) = self.services.get_mut(service) else { continue };
            let Some(Gone { slice, revision, endpoint, .. }) = known.gone.remove(addr) else { continue };
            let endpoint = Endpoint { doubtful: true, ..endpoint };
            known.ghosts.insert(*addr, Ghost { slice, revision, endpoint, until });
            self.leaving.insert((until, service.clone(), *addr));
            self.touched.insert(service.clone());
        }
        if self.leaving.len() == raised {
            return None;
        }
        let (removed, of, services) = (self.fallen, self.fallen + self.present, self.falling);
        self.last = Some(Sweep { removed, of, services, until });
        self.last
    }

    fn let_ghosts_go(&mut self, now: Millis) {
        while let Some((_, service, addr)) = self.leaving.first().filter(|(until, ..)| now >= *until).cloned() {
            self.exorcise(&service, addr);
            self.forget_if_empty(&service);
        }
    }

    fn exorcise(&mut self, service: &ServiceKey, addr: Addr) {
        let Some(ghost) = self.services.get_mut(service).and_then(|known| known.ghosts.remove(&addr)) else { return };
        self.leaving.remove(&(ghost.until, service.clone(), addr));
        self.touched.insert(service.clone());
    }

    fn forget_old(&mut self, now: Millis) {
        while let Some((at, service, addr)) = self.window.pop_front_if(|(at, ..)| now.since(*at) >= WINDOW_MS) {
            self.fresh = self.fresh.min(self.window.len());
            let Some(known) = self.services.get_mut(&service) else { continue };
            if known.fallen.pop_front_if(|fallen| *fallen <= at).is_some() {
                self.fallen -= 1;
                self.falling -= usize::from(known.fallen.is_empty());
            }
            if known.gone.get(&addr).is_some_and(|gone| gone.at <= at) {
                known.gone.remove(&addr);
            }
            self.forget_if_empty(&service);
        }
    }

    fn forget_if_empty(&mut self, service: &ServiceKey) {
        let Some(known) = self.services.get(service) else { return };
        if known.present.is_empty() && known.fallen.is_empty() && known.gone.is_empty() && known.ghosts.is_empty() {
            self.services.remove(service);
        }
    }
}
