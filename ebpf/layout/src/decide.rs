//! The decision of a connect or a datagram: from what a client dials to what becomes of it.

use crate::{Affinity, AffinityKey, Backend, FrontendKey, MemberKey, ServiceValue, SwitchValue};

/// The maps as a connect reads them.
pub trait Maps {
    /// The entry of a frontend.
    fn service(&self, key: &FrontendKey) -> Option<ServiceValue>;
    /// Whether a service index is this frontend's.
    fn is_frontend(&self, service: u32, key: &FrontendKey) -> bool;
    /// A table's range, in one load; `None` outside the map.
    fn switch(&self, service: u32) -> Option<SwitchValue>;
    /// The index of the backend in a slot; `None` outside the map.
    fn slot(&self, position: u32) -> Option<u32>;
    /// A backend; `None` outside the map.
    fn backend(&self, index: u32) -> Option<Backend>;
    /// What a client got last.
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity>;
    /// The index of a backend, while it belongs to a frontend's table.
    fn member(&self, key: &MemberKey) -> Option<u32>;
}

/// Who connects. Nothing here is asked before it matters.
pub trait Client {
    /// Whether the process is one that is left alone.
    fn skipped(&self) -> bool;
    /// The word that picks a slot.
    fn word(&self, service: u32, generation: u16) -> u32;
    /// The cookie of its network namespace, by which sticky choices know it.
    fn netns(&self) -> u64;
    /// Nanoseconds of the machine's monotonic clock.
    fn now(&self) -> u64;
}

/// What becomes of a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Left as it is: no frontend of ours, or a process that is left alone.
    Pass,
    /// Left as it is, since no backend serves and the service says so.
    PassEmpty {
        /// The service index.
        service: u32,
    },
    /// No backend serves: connection refused.
    Refuse {
        /// The service index.
        service: u32,
    },
    /// Translated.
    To {
        /// The service index.
        service: u32,
        /// The backend's index.
        index: u32,
        /// The backend.
        backend: Backend,
        /// What becomes of the client's affinity.
        stick: Stick,
    },
    /// The table leads outside the maps, to no backend, or to one of the other family: refused, and counted as a fault.
    Broken {
        /// The service index.
        service: u32,
    },
}

/// What becomes of a client's affinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stick {
    /// The service has none.
    No,
    /// The client stays with its backend: the entry is used now.
    Stay(AffinityKey, u64),
    /// The client got its first backend: the entry is written unless another connect was faster; then [`taken`] has
    /// what that one chose.
    New(AffinityKey, Affinity),
    /// The client got another backend: the entry is written.
    Change(AffinityKey, Affinity),
}

impl Stick {
    /// The same with this backend's identity.
    #[inline(always)]
    fn with(self, id: u64) -> Self {
        match self {
            Self::New(key, affinity) => Self::New(key, Affinity { id, ..affinity }),
            Self::Change(key, affinity) => Self::Change(key, Affinity { id, ..affinity }),
            other => other,
        }
    }
}

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// Decides. `switch` is read once, and everything read after it follows from that one word.
#[inline(always)]
pub fn decide<M: Maps, C: Client>(maps: &M, client: &C, key: &FrontendKey) -> Verdict {
    let Some(entry) = entry(maps, key) else { return Verdict::Pass };
    if client.skipped() {
        return Verdict::Pass;
    }
    let service = entry.index();
    let Some(switch) = maps.switch(service) else { return Verdict::Broken { service } };
    if switch.count() == 0 {
        return if entry.pass() { Verdict::PassEmpty { service } } else { Verdict::Refuse { service } };
    }
    let mut stick = Stick::No;
    if entry.affinity_seconds() != 0 {
        let (client, now) = (AffinityKey::new(client.netns(), service), client.now());
        stick = match maps.affinity(&client) {
            None => Stick::New(client, Affinity { id: 0, used: now }),
            Some(last) => {
                if now.saturating_sub(last.used) < entry.affinity_seconds() as u64 * SECOND
                    && let Some((index, backend)) = chosen(maps, key, service, last.id)
                {
                    return Verdict::To { service, index, backend, stick: Stick::Stay(client, now) };
                }
                Stick::Change(client, Affinity { id: 0, used: now })
            }
        };
    }
    match pick(maps, client, key, service, switch) {
        Some((index, backend)) => Verdict::To { service, index, backend, stick: stick.with(backend.id) },
        None => Verdict::Broken { service },
    }
}

/// What another connect of the same client has chosen meanwhile, when [`Stick::New`] came too late.
#[inline(always)]
pub fn taken<M: Maps>(maps: &M, key: &FrontendKey, service: u32, client: &AffinityKey) -> Option<(u32, Backend)> {
    chosen(maps, key, service, maps.affinity(client)?.id)
}

/// The entry of a frontend, when it is really its own.
///
/// A hash map may give the place of an entry that is replaced or deleted to another key while a program looks at it. What
/// was found is then another frontend's; this one's, if it is still there, is found by looking again.
#[inline(always)]
fn entry<M: Maps>(maps: &M, key: &FrontendKey) -> Option<ServiceValue> {
    let entry = maps.service(key)?;
    if maps.is_frontend(entry.index(), key) {
        return Some(entry);
    }
    maps.service(key).filter(|entry| maps.is_frontend(entry.index(), key))
}

/// A sticky client's backend, while it is a member of the table.
#[inline(always)]
fn chosen<M: Maps>(maps: &M, key: &FrontendKey, service: u32, id: u64) -> Option<(u32, Backend)> {
    let index = maps.member(&MemberKey::new(service, id))?;
    let backend = usable(maps, key, index)?;
    if backend.id == id { Some((index, backend)) } else { None }
}

#[inline(always)]
fn pick<M: Maps, C: Client>(
    maps: &M,
    client: &C,
    key: &FrontendKey,
    service: u32,
    switch: SwitchValue,
) -> Option<(u32, Backend)> {
    let index = maps.slot(switch.pick(client.word(service, switch.generation()))?)?;
    Some((index, usable(maps, key, index)?))
}

/// A backend that a client of this frontend can be sent to.
#[inline(always)]
fn usable<M: Maps>(maps: &M, key: &FrontendKey, index: u32) -> Option<Backend> {
    match maps.backend(index) {
        Some(backend) if backend.port != 0 && backend.addr.is_v4() == key.addr().is_v4() => Some(backend),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
