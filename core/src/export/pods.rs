//! Pods, their identities and addresses; and Cilium's own objects, which say the same where Cilium runs.
//!
//! What an object comes to is judged in [`Pods::settle`], once for all events of a batch and not before the first complete
//! set is known: a Pod may be said before its Namespace, whose labels are part of its identity, and before the first of
//! Cilium's objects, which take its place. A change of one Pod costs what that Pod is, and a Namespace's its Pods.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use smol_str::SmolStr;

use super::claims::{Claims, Owner};
use super::{Dirty, ExporterConfig};
use crate::id::Addr;
use crate::identity::{Exhausted, Identities, LabelSet, namespace_of};
use crate::object::{CiliumEndpointObject, CiliumEndpointSliceObject, CiliumIdentityObject, Labels, PodKey, PodObject};

/// All that says whose an address is.
#[derive(Clone, Debug)]
pub(super) struct Pods {
    pods: BTreeMap<PodKey, Pod>,
    endpoints: BTreeMap<PodKey, CiliumEndpointObject>,
    slices: BTreeMap<SmolStr, CiliumEndpointSliceObject>,
    slices_by_namespace: BTreeMap<SmolStr, BTreeSet<SmolStr>>,
    cilium: BTreeMap<u32, CiliumIdentityObject>,
    cilium_by_namespace: BTreeMap<SmolStr, BTreeSet<u32>>,
    pub(super) identities: Identities,
    claims: Claims,
    /// Objects to be judged again.
    unsettled: BTreeSet<Owner>,
    /// Identities whose record may have changed.
    numbers: BTreeSet<u32>,
    /// Where addresses came from when they were last judged.
    source: Source,
    /// Pods for whose labels no number was left.
    waiting: BTreeMap<PodKey, LabelSet>,
}

#[derive(Clone, Debug)]
struct Pod {
    object: PodObject,
    /// The labels it has a claim on, and their number.
    identity: Option<(LabelSet, u32)>,
}

/// Which objects say whose an address is: never two kinds of them, for they say the same of the same Pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Source {
    #[default]
    Pods,
    Endpoints,
    Slices,
}

/// What of a namespace counts here.
pub(super) struct Surroundings<'a> {
    pub(super) labels: &'a Labels,
    pub(super) exported: bool,
}

/// Whose an address is, with all that is said of it.
pub(super) enum Holder<'a> {
    Pod(&'a PodObject, u32),
    Endpoint(&'a SmolStr, &'a crate::object::CiliumEndpointSpec),
}

impl Pods {
    pub(super) fn new(config: &ExporterConfig) -> Self {
        Self {
            pods: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            slices: BTreeMap::new(),
            slices_by_namespace: BTreeMap::new(),
            cilium: BTreeMap::new(),
            cilium_by_namespace: BTreeMap::new(),
            identities: Identities::new(config.max.identities(config.id)),
            claims: Claims::default(),
            unsettled: BTreeSet::new(),
            numbers: BTreeSet::new(),
            source: Source::default(),
            waiting: BTreeMap::new(),
        }
    }

    pub(super) fn put(&mut self, pod: PodObject) {
        let key = pod.key.clone();
        let known = self.pods.get_mut(&key);
        if known.as_ref().is_some_and(|known| known.object == pod) {
            return;
        }
        match known {
            Some(known) => known.object = pod,
            None => drop(self.pods.insert(key.clone(), Pod { object: pod, identity: None })),
        }
        self.unsettled.insert(Owner::Pod(key));
    }

    /// Its labels are let go at once; its addresses when its claims are settled.
    pub(super) fn remove(&mut self, key: &PodKey) {
        let Some(pod) = self.pods.remove(key) else { return };
        self.waiting.remove(key);
        self.let_go(pod.identity);
        self.unsettled.insert(Owner::Pod(key.clone()));
    }

    pub(super) fn put_endpoint(&mut self, endpoint: CiliumEndpointObject) {
        let key = endpoint.key();
        if self.endpoints.get(&key) != Some(&endpoint) {
            self.endpoints.insert(key.clone(), endpoint);
            self.unsettled.insert(Owner::Endpoint(key));
        }
    }

    pub(super) fn remove_endpoint(&mut self, key: PodKey) {
        if self.endpoints.remove(&key).is_some() {
            self.unsettled.insert(Owner::Endpoint(key));
        }
    }

    pub(super) fn put_slice(&mut self, slice: CiliumEndpointSliceObject) {
        if self.slices.get(&slice.name) == Some(&slice) {
            return;
        }
        let (name, namespace) = (slice.name.clone(), slice.namespace.clone());
        self.remove_slice(&name);
        self.slices_by_namespace.entry(namespace).or_default().insert(name.clone());
        self.slices.insert(name, slice);
    }

    pub(super) fn remove_slice(&mut self, name: &SmolStr) {
        if let Some(slice) = self.slices.remove(name) {
            unlink(&mut self.slices_by_namespace, &slice.namespace, name);
        }
        self.unsettled.insert(Owner::Slice(name.clone()));
    }

    pub(super) fn put_identity(&mut self, identity: CiliumIdentityObject) {
        if self.cilium.get(&identity.number) == Some(&identity) {
            return;
        }
        self.remove_identity(identity.number);
        if let Some(namespace) = namespace_of(&identity.labels) {
            self.cilium_by_namespace.entry(namespace.clone()).or_default().insert(identity.number);
        }
        self.cilium.insert(identity.number, identity);
    }

    pub(super) fn remove_identity(&mut self, number: u32) {
        if let Some(identity) = self.cilium.remove(&number)
            && let Some(namespace) = namespace_of(&identity.labels)
        {
            unlink(&mut self.cilium_by_namespace, namespace, &number);
        }
        self.numbers.insert(number);
    }

    /// A Namespace's labels, or what it lets out, are others now: everything in it is judged again.
    pub(super) fn namespace_changed(&mut self, namespace: &SmolStr) {
        let first = PodKey { namespace: namespace.clone(), name: SmolStr::default() };
        let within = |key: &&PodKey| key.namespace == *namespace;
        for (key, pod) in self.pods.range(first.clone()..).take_while(|(key, _)| within(key)) {
            self.unsettled.insert(Owner::Pod(key.clone()));
            self.numbers.extend(pod.identity.as_ref().map(|(_, number)| *number));
        }
        let endpoints = self.endpoints.range(first..).map(|(key, _)| key).take_while(within);
        self.unsettled.extend(endpoints.cloned().map(Owner::Endpoint));
        let slices = self.slices_by_namespace.get(namespace).into_iter().flatten();
        self.unsettled.extend(slices.cloned().map(Owner::Slice));
        self.numbers.extend(self.cilium_by_namespace.get(namespace).into_iter().flatten());
    }

    /// Whether any of Cilium's objects of these kinds is there.
    pub(super) fn has_ciliums(&self) -> bool {
        !(self.endpoints.is_empty() && self.slices.is_empty() && self.cilium.is_empty())
    }

    /// Judges what changed. `cilium`: Cilium's objects count, not Pods.
    pub(super) fn settle<'a>(
        &mut self,
        config: &ExporterConfig,
        cilium: bool,
        around: impl Fn(&str) -> Surroundings<'a>,
    ) -> Dirty {
        let source = match (cilium, self.slices.is_empty()) {
            (false, _) => Source::Pods,
            (true, true) => Source::Endpoints,
            (true, false) => Source::Slices,
        };
        if source != self.source {
            self.turn_to(source);
        }
        let mut addresses = BTreeSet::new();
        for owner in core::mem::take(&mut self.unsettled) {
            self.settle_one(&owner, config, &around, &mut addresses);
        }
        self.retry(config, &around, &mut addresses);
        Dirty { identities: core::mem::take(&mut self.numbers), addresses, ..Dirty::default() }
    }

    /// The labels behind a number, if it is in use.
    pub(super) fn labels(&self, number: u32) -> Option<&[crate::record::IdentityLabel]> {
        match self.source {
            Source::Pods => self.identities.labels(number).map(LabelSet::labels),
            Source::Endpoints | Source::Slices => {
                self.cilium.get(&number).map(|identity| &identity.labels[..]).filter(|labels| !labels.is_empty())
            }
        }
    }

    /// Whose an address is; a Pod without a number has none that could be told.
    pub(super) fn holder(&self, addr: Addr) -> Option<Holder<'_>> {
        match self.claims.owner(addr)? {
            Owner::Pod(key) => {
                let pod = self.pods.get(key)?;
                Some(Holder::Pod(&pod.object, pod.identity.as_ref()?.1))
            }
            Owner::Endpoint(key) => {
                self.endpoints.get(key).map(|object| Holder::Endpoint(&object.namespace, &object.endpoint))
            }
            Owner::Slice(name) => {
                let slice = self.slices.get(name)?;
                let endpoint = slice.endpoints.iter().rfind(|endpoint| endpoint.ips.contains(&addr))?;
                Some(Holder::Endpoint(&slice.namespace, endpoint))
            }
        }
    }

    /// Everything that is exported, as if each had changed.
    pub(super) fn all(&self) -> Dirty {
        let identities = match self.source {
            Source::Pods => self.identities.used().collect(),
            Source::Endpoints | Source::Slices => self.cilium.keys().copied().collect(),
        };
        Dirty { identities, addresses: self.claims.addresses().collect(), ..Dirty::default() }
    }

    /// Pods for whose labels no number is left, and why.
    pub(super) fn waiting(&self) -> (impl ExactSizeIterator<Item = &PodKey>, Exhausted) {
        (self.waiting.keys(), self.identities.exhausted())
    }

    /// Other objects count from now on: all that is known is judged again.
    fn turn_to(&mut self, source: Source) {
        self.source = source;
        self.unsettled.extend(self.pods.keys().cloned().map(Owner::Pod));
        self.unsettled.extend(self.endpoints.keys().cloned().map(Owner::Endpoint));
        self.unsettled.extend(self.slices.keys().cloned().map(Owner::Slice));
        self.numbers.extend(self.cilium.keys());
        self.numbers.extend(self.identities.used());
    }

    fn settle_one<'a>(
        &mut self,
        owner: &Owner,
        config: &ExporterConfig,
        around: &impl Fn(&str) -> Surroundings<'a>,
        changed: &mut BTreeSet<Addr>,
    ) {
        let addrs: Vec<Addr> = match owner {
            Owner::Pod(key) => self.settle_pod(key, config, around),
            Owner::Endpoint(key) => {
                let object = self.endpoints.get(key).filter(|_| self.source == Source::Endpoints);
                let object = object.filter(|object| around(&object.namespace).exported);
                object.map(|object| object.endpoint.ips.clone()).unwrap_or_default()
            }
            Owner::Slice(name) => {
                let slice = self.slices.get(name).filter(|_| self.source == Source::Slices);
                let slice = slice.filter(|slice| around(&slice.namespace).exported);
                slice.into_iter().flat_map(|slice| &slice.endpoints).flat_map(|e| e.ips.iter().copied()).collect()
            }
        };
        self.claims.set(owner, addrs.into_iter().collect(), changed);
    }

    /// Gives a Pod its number, and says which addresses it claims.
    fn settle_pod<'a>(
        &mut self,
        key: &PodKey,
        config: &ExporterConfig,
        around: &impl Fn(&str) -> Surroundings<'a>,
    ) -> Vec<Addr> {
        let Some(pod) = self.pods.get(key) else { return Vec::new() };
        let surroundings = around(&key.namespace);
        let object = &pod.object;
        let counts = self.source == Source::Pods && !object.host_network && !object.phase.is_terminal();
        let labels = counts.then(|| LabelSet::of_pod(object, surroundings.labels, &config.cluster));
        let addrs = if counts && surroundings.exported { object.ips.clone() } else { Vec::new() };
        self.number(key, labels);
        addrs
    }

    /// A Pod has these labels now. Its former ones are let go after, so that a number that both have stays.
    fn number(&mut self, key: &PodKey, labels: Option<LabelSet>) {
        self.waiting.remove(key);
        let Some(pod) = self.pods.get_mut(key) else { return };
        if pod.identity.as_ref().map(|(labels, _)| labels) == labels.as_ref() {
            return;
        }
        let identity = labels.and_then(|labels| match self.identities.claim(&labels) {
            Ok(number) => Some((labels, number)),
            Err(_) => {
                self.waiting.insert(key.clone(), labels);
                None
            }
        });
        self.numbers.extend(identity.as_ref().map(|(_, number)| *number));
        let before = core::mem::replace(&mut pod.identity, identity);
        self.let_go(before);
    }

    fn let_go(&mut self, identity: Option<(LabelSet, u32)>) {
        if let Some((labels, number)) = identity {
            self.identities.release(&labels);
            self.numbers.insert(number);
        }
    }

    /// Numbers may have come free for those who found none.
    fn retry<'a>(
        &mut self,
        config: &ExporterConfig,
        around: &impl Fn(&str) -> Surroundings<'a>,
        changed: &mut BTreeSet<Addr>,
    ) {
        for (key, labels) in self.waiting.clone() {
            if self.identities.has_room() || self.identities.knows(&labels) {
                self.settle_one(&Owner::Pod(key), config, around, changed);
            }
        }
    }
}

fn unlink<T: Ord>(index: &mut BTreeMap<SmolStr, BTreeSet<T>>, namespace: &SmolStr, member: &T) {
    if let Some(members) = index.get_mut(namespace) {
        members.remove(member);
        if members.is_empty() {
            index.remove(namespace);
        }
    }
}
