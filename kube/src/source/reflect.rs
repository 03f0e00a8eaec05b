//! What readings of a resource mean: readings in, source events out. Nothing is asked here.
//!
//! Only differences are said, after a relist too. An object leaves when a watch says so or when a *complete* list lacks it; a
//! list that broke off proves nothing. Of what was said only a hash is kept, since the listener has the object.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};

use smol_str::SmolStr;
use tombolo_core::object::{Fault, Object, ObjectKey, SourceEvent};

use super::decode::{Item, Name};
use super::resource::{DEFINITIONS, Presence, Resource};

/// One thing a reader saw, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A list begins; what it does not name by its end is gone.
    ListBegan,
    /// The object is as given: named by the list, or changed since.
    Put(Item),
    /// The object was deleted.
    Gone(Name),
    /// The list that began last is complete.
    ListComplete,
    /// The resource is being watched again, without a list.
    Readable,
    /// The resource cannot be read; everything stays.
    Unreadable(String),
}

/// A resource that came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Switch {
    /// Its definition is there: it is to be read.
    Begin(usize),
    /// Its definition is gone, and so are its objects: it is to be read no longer.
    End(usize),
}

/// All resources of one source.
#[derive(Debug)]
pub(super) struct Reflections {
    resources: Vec<Reflection>,
    /// Which of them are there.
    present: BTreeSet<usize>,
    complete: bool,
}

impl Reflections {
    pub(super) fn new(resources: &'static [Resource]) -> Self {
        let always = |resource: &Resource| resource.presence == Presence::Always;
        let present = (0..resources.len()).filter(|index| always(&resources[*index])).collect();
        Self { resources: resources.iter().map(Reflection::new).collect(), present, complete: false }
    }

    /// The resources that are there.
    pub(super) fn present(&self) -> impl Iterator<Item = usize> {
        self.present.iter().copied()
    }

    /// Takes in what a resource's reader saw. `Complete` is the last word of the batch that completed the last of them.
    pub(super) fn apply(&mut self, index: usize, seen: Vec<Seen>) -> (Vec<SourceEvent>, Vec<Switch>) {
        let (mut said, mut switches) = (Vec::new(), Vec::new());
        if !self.present.contains(&index) {
            return (said, switches);
        }
        for seen in seen {
            self.resources[index].apply(seen, &mut said);
        }
        if self.resources[index].resource.name == DEFINITIONS.name {
            switches = self.switch(index, &mut said);
        }
        if !self.complete && self.present.iter().all(|index| self.resources[*index].complete) {
            self.complete = true;
            said.push(SourceEvent::Complete);
        }
        (said, switches)
    }

    /// What came or went with its definition. That a definition cannot be read, or a resource is not found, ends nothing.
    fn switch(&mut self, definitions: usize, said: &mut Vec<SourceEvent>) -> Vec<Switch> {
        let mut switches = Vec::new();
        for index in 0..self.resources.len() {
            let Presence::Defined(name) = self.resources[index].resource.presence else { continue };
            let name = Name { namespace: None, name: SmolStr::new_static(name) };
            match (self.resources[definitions].objects.contains_key(&name), self.present.contains(&index)) {
                (true, false) => {
                    self.present.insert(index);
                    switches.push(Switch::Begin(index));
                }
                (false, true) => {
                    self.present.remove(&index);
                    self.resources[index].forget(said);
                    switches.push(Switch::End(index));
                }
                (true, true) | (false, false) => {}
            }
        }
        switches
    }
}

/// One resource.
#[derive(Debug)]
struct Reflection {
    resource: &'static Resource,
    objects: BTreeMap<Name, Known>,
    /// The number of the list that began last.
    list: u64,
    /// A list was complete once.
    complete: bool,
    fault: Option<String>,
    hashes: RandomState,
}

/// What is known of one object.
#[derive(Debug, Default)]
struct Known {
    /// The last list that named it, or in whose time it changed.
    list: u64,
    /// The hash of the version that was said, if one was.
    said: Option<u64>,
    /// What is wrong with its newest version.
    fault: Option<String>,
}

impl Reflection {
    fn new(resource: &'static Resource) -> Self {
        let (objects, hashes) = (BTreeMap::new(), RandomState::new());
        Self { resource, objects, list: 0, complete: false, fault: None, hashes }
    }

    fn apply(&mut self, seen: Seen, said: &mut Vec<SourceEvent>) {
        match seen {
            Seen::ListBegan => self.list += 1,
            Seen::Put(item) => self.put(item, said),
            Seen::Gone(name) => self.remove(&name, said),
            Seen::ListComplete => {
                let lacking = |(name, known): (&Name, &Known)| (known.list != self.list).then(|| name.clone());
                let gone: Vec<Name> = self.objects.iter().filter_map(lacking).collect();
                for name in gone {
                    self.remove(&name, said);
                }
                self.complete = true;
                self.mend(said);
            }
            Seen::Readable => self.mend(said),
            Seen::Unreadable(message) => {
                if self.fault.as_ref() != Some(&message) {
                    self.fault = Some(message.clone());
                    said.push(SourceEvent::Fault(Fault { place: self.resource.name.to_owned(), message }));
                }
            }
        }
    }

    fn put(&mut self, item: Item, said: &mut Vec<SourceEvent>) {
        let (place, key) = (self.place(&item.name), (self.resource.key)(&item.name));
        let known = self.objects.entry(item.name).or_default();
        known.list = self.list;
        match item.object {
            Ok(object) => {
                if known.fault.take().is_some() {
                    said.push(SourceEvent::Mended { place });
                }
                known.say(object, key, &self.hashes, said);
            }
            Err(message) => {
                if known.fault.as_ref() != Some(&message) {
                    known.fault = Some(message.clone());
                    said.push(SourceEvent::Fault(Fault { place, message }));
                }
            }
        }
    }

    fn remove(&mut self, name: &Name, said: &mut Vec<SourceEvent>) {
        let Some(known) = self.objects.remove(name) else { return };
        if let (Some(_), Some(key)) = (known.said, (self.resource.key)(name)) {
            said.push(SourceEvent::Delete(key));
        }
        if known.fault.is_some() {
            said.push(SourceEvent::Mended { place: self.place(name) });
        }
    }

    /// There are no such objects any more.
    fn forget(&mut self, said: &mut Vec<SourceEvent>) {
        let names: Vec<Name> = self.objects.keys().cloned().collect();
        for name in names {
            self.remove(&name, said);
        }
        self.mend(said);
        self.complete = false;
    }

    fn mend(&mut self, said: &mut Vec<SourceEvent>) {
        if self.fault.take().is_some() {
            said.push(SourceEvent::Mended { place: self.resource.name.to_owned() });
        }
    }

    fn place(&self, name: &Name) -> String {
        format!("{} {name}", self.resource.name)
    }
}

impl Known {
    /// Says a good version if it is another than the last one. Much of what Kubernetes changes, such as a Node's
    /// conditions, is nothing to the mesh.
    fn say(
        &mut self,
        object: Option<Box<Object>>,
        key: Option<ObjectKey>,
        hashes: &RandomState,
        said: &mut Vec<SourceEvent>,
    ) {
        let hash = object.as_ref().map(|object| hashes.hash_one(object));
        if self.said == hash {
            return;
        }
        self.said = hash;
        said.extend(match object {
            Some(object) => Some(SourceEvent::Upsert(*object)),
            None => key.map(SourceEvent::Delete),
        });
    }
}

#[cfg(test)]
mod tests;
