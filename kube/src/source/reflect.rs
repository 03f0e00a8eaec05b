//! What readings of a resource mean: readings in, source events out. Nothing is asked here.
//!
//! Only differences are said, after a relist too. An object leaves when a watch says so or when a *complete* list lacks it; a
//! list that broke off proves nothing. Of what was said only a hash is kept, since the listener has the object.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};

use tombolo_core::object::{Fault, Object, ObjectKey, SourceEvent};

use super::decode::{Item, Name};
use super::resource::Resource;

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

/// All resources of one source.
#[derive(Debug)]
pub(super) struct Reflections {
    resources: Vec<Reflection>,
    complete: bool,
}

impl Reflections {
    pub(super) fn new(resources: &'static [Resource]) -> Self {
        Self { resources: resources.iter().map(Reflection::new).collect(), complete: false }
    }

    /// Takes in what a resource's reader saw. `Complete` is the last word of the batch that completed the last of them.
    pub(super) fn apply(&mut self, resource: usize, seen: Vec<Seen>) -> Vec<SourceEvent> {
        let mut said = Vec::new();
        for seen in seen {
            self.resources[resource].apply(seen, &mut said);
        }
        if !self.complete && self.resources.iter().all(|r| r.complete) {
            self.complete = true;
            said.push(SourceEvent::Complete);
        }
        said
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
        if known.said.is_some() {
            said.push(SourceEvent::Delete((self.resource.key)(name)));
        }
        if known.fault.is_some() {
            said.push(SourceEvent::Mended { place: self.place(name) });
        }
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
    fn say(&mut self, object: Option<Box<Object>>, key: ObjectKey, hashes: &RandomState, said: &mut Vec<SourceEvent>) {
        let hash = object.as_ref().map(|object| hashes.hash_one(object));
        if self.said == hash {
            return;
        }
        self.said = hash;
        said.push(match object {
            Some(object) => SourceEvent::Upsert(*object),
            None => SourceEvent::Delete(key),
        });
    }
}

#[cfg(test)]
mod tests;
