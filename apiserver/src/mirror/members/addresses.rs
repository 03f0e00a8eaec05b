//! A peer's addresses, by the hundred thousand: 16 bytes and a few for each, names of namespaces shared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use tombolo_core::admit::{Admission, AdmittedAddress, Refusal, Rule};
use tombolo_core::hold::{Event, Hold, HoldConfig};
use tombolo_core::id::{Addr, Millis};
use tombolo_core::record::Record;
use tombolo_wire::cilium;
use tombolo_wire::cilium::key::Kind;

use super::{Judge, event_of};
use crate::mirror::feed::undecodable;
use crate::mirror::refused::Refused;
use crate::mirror::track::Judged;

/// Whose an address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::mirror) struct Located {
    pub(in crate::mirror) identity: u32,
    /// The address of the node that carries it.
    pub(in crate::mirror) host: Option<Addr>,
    pub(in crate::mirror) namespace: Arc<str>,
    pub(in crate::mirror) pod: Box<str>,
}

/// All of one peer's.
#[derive(Debug)]
pub(super) struct Addresses {
    pub(super) hold: Hold<IpNet, Located>,
    /// What is in the peer's store and refused because of where it lies: that may change.
    elsewhere: BTreeMap<IpNet, (Rule, Located)>,
    namespaces: Names,
}

impl Addresses {
    pub(super) fn new(config: HoldConfig) -> Self {
        Self { hold: Hold::new(config), elsewhere: BTreeMap::new(), namespaces: Names::default() }
    }

    pub(super) fn put(&mut self, key: &str, value: &[u8], judge: Judge<'_>, refused: &mut Refused, now: Millis) {
        let suffix = judge.suffix(Kind::Ip, key);
        let record = match cilium::decode(Kind::Ip, key, value, &judge.reading.peer) {
            Ok(Record::Ip(record)) => Ok(record),
            Ok(_) => Err(Judged::Deleted),
            Err(error) => Err(undecodable(&error)),
        };
        let net = net_of(suffix);
        if let Some(net) = net {
            self.forget_elsewhere(net, refused);
        }
        let judged = match record {
            Err(judged) => judged,
            Ok(record) => match judge.admission.address(suffix, &record) {
                Ok(address) => match &address.misplaced {
                    Some(refusal) => {
                        let located = self.located(&address);
                        refused.forget(key);
                        return self.refuse((address.net, key), refusal, located, refused, now);
                    }
                    None => Judged::Admitted(self.located(&address), address.refusals),
                },
                Err(refusal) => Judged::Refused(refusal),
            },
        };
        let (event, refusals) = event_of(net, judged);
        refused.set(key, &refusals);
        if let Some(event) = event {
            self.hold.on(event, now);
        }
    }

    pub(super) fn remove(
        &mut self,
        key: &str,
        event: fn(IpNet) -> Event<IpNet, Located>,
        judge: Judge<'_>,
        refused: &mut Refused,
        now: Millis,
    ) {
        refused.forget(key);
        if let Some(net) = net_of(judge.suffix(Kind::Ip, key)) {
            self.forget_elsewhere(net, refused);
            self.hold.on(event(net), now);
        }
    }

    /// A list begins: what is not said again is not refused any more either.
    pub(super) fn relisting(&mut self, refused: &mut Refused) {
        for (_, (rule, _)) in std::mem::take(&mut self.elsewhere) {
            refused.uncount(rule);
        }
    }

    /// What no peer may claim is another now. Of what is not in the peer's store any more, and only held, the same is true.
    pub(super) fn set_ranges(&mut self, admission: &Admission, refused: &mut Refused, now: Millis) {
        let held = self.hold.iter().filter_map(|(net, located, _)| {
            let refusal = admission.place(*net).err()?;
            Some((*net, refusal, located.clone()))
        });
        for (net, refusal, located) in held.collect::<Vec<_>>() {
            self.refuse((net, &net.to_string()), &refusal, located, refused, now);
        }
        let free = self.elsewhere.keys().copied().filter(|net| admission.place(*net).is_ok());
        for net in free.collect::<Vec<_>>() {
            if let Some(located) = self.forget_elsewhere(net, refused) {
                self.hold.on(Event::Upsert(net, located), now);
            }
        }
    }

    pub(super) fn locate(&self, addr: Addr) -> Option<&Located> {
        self.hold.get(&IpNet::from(addr.ip())).map(|(located, _)| located)
    }

    fn refuse(
        &mut self,
        (net, key): (IpNet, &str),
        refusal: &Refusal,
        located: Located,
        refused: &mut Refused,
        now: Millis,
    ) {
        self.hold.on(Event::Refuse(net), now);
        refused.count(key, refusal);
        if let Some((before, _)) = self.elsewhere.insert(net, (refusal.rule, located)) {
            refused.uncount(before);
        }
    }

    fn forget_elsewhere(&mut self, net: IpNet, refused: &mut Refused) -> Option<Located> {
        let (rule, located) = self.elsewhere.remove(&net)?;
        refused.uncount(rule);
        Some(located)
    }

    fn located(&mut self, address: &AdmittedAddress) -> Located {
        Located {
            identity: address.identity,
            host: address.host,
            namespace: self.namespaces.share(&address.namespace),
            pod: address.pod.as_str().into(),
        }
    }
}

/// The address or range of a key; one address has no length in its text.
fn net_of(suffix: &str) -> Option<IpNet> {
    suffix.parse().ok().or_else(|| suffix.parse::<std::net::IpAddr>().ok().map(IpNet::from))
}

/// Texts of which there are few, each held once.
#[derive(Debug, Default)]
struct Names {
    known: BTreeSet<Arc<str>>,
    /// With so many, those that nobody holds any more are looked for: a peer decides how many there are over time.
    sweep_at: usize,
}

/// Fewer names than this are never looked through.
const FEW: usize = 1024;

impl Names {
    fn share(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.known.get(name) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.sweep_at.max(FEW) {
            self.known.retain(|name| Arc::strong_count(name) > 1);
            self.sweep_at = self.known.len() * 2;
        }
        let name: Arc<str> = name.into();
        self.known.insert(Arc::clone(&name));
        name
    }
}
