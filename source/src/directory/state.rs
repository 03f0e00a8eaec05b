//! What a directory has said so far: files' contents in, source events out. No file is opened here.
//!
//! Each file owns the objects it named last. An object that several files name is said as the first of them (by name)
//! has it, so the answer depends on what the files hold and never on the order in which they were read. A file that
//! cannot be read, or is no manifest, keeps what it said last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tombolo_core::object::{Fault, Object, ObjectKey, SourceEvent};

use crate::manifest::{self, Manifest};

/// One look at a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// The files that changed since the last look.
    Files(BTreeMap<String, FileLook>),
    /// All files; one that is missing here is gone, and the first such look completes the source.
    All(BTreeMap<String, FileLook>),
    /// The directory itself cannot be read; what it said last stays.
    Unreadable(String),
}

/// One look at a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileLook {
    /// Its content.
    Text(String),
    /// As at the last look.
    Unchanged,
    /// It is there and cannot be read.
    Unreadable(String),
    /// It is gone, and so are its objects.
    Gone,
}

/// The state of one directory source.
#[derive(Debug)]
pub struct DirectoryState {
    /// How the directory is called in faults.
    name: String,
    files: BTreeMap<String, File>,
    /// Which files name an object; the first is the one that counts.
    claims: BTreeMap<ObjectKey, BTreeSet<String>>,
    /// The keys that more than one file names.
    contested: BTreeSet<ObjectKey>,
    said: BTreeMap<ObjectKey, Arc<Object>>,
    directory_fault: Option<String>,
    faults: BTreeMap<String, String>,
    complete: bool,
}

#[derive(Debug, Default)]
struct File {
    objects: BTreeMap<ObjectKey, (usize, Arc<Object>)>,
    fault: Option<Fault>,
    /// Objects named twice in this file: key, the document that counts, the other.
    twice: Vec<(ObjectKey, usize, usize)>,
    ignored: usize,
}

impl DirectoryState {
    /// A directory of which nothing is known; `name` stands in its faults.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            files: BTreeMap::new(),
            claims: BTreeMap::new(),
            contested: BTreeSet::new(),
            said: BTreeMap::new(),
            directory_fault: None,
            faults: BTreeMap::new(),
            complete: false,
        }
    }

    /// Takes a look in, and yields what it changes: objects first, then faults, then `Complete`.
    pub fn apply(&mut self, look: Look) -> Vec<SourceEvent> {
        let mut touched = BTreeSet::new();
        let whole = matches!(look, Look::All(_));
        match look {
            Look::Unreadable(why) => self.directory_fault = Some(why),
            Look::Files(files) => {
                for (name, file) in files {
                    self.take_file(&name, file, &mut touched);
                }
            }
            Look::All(files) => {
                self.directory_fault = None;
                let gone: Vec<String> = self.files.keys().filter(|name| !files.contains_key(*name)).cloned().collect();
                for name in gone {
                    self.take_file(&name, FileLook::Gone, &mut touched);
                }
                for (name, file) in files {
                    self.take_file(&name, file, &mut touched);
                }
            }
        }
        let mut events = self.say(&touched);
        self.say_faults(&mut events);
        if whole && !self.complete {
            self.complete = true;
            events.push(SourceEvent::Complete);
        }
        events
    }

    /// How many objects of kinds the mesh does not use the files hold.
    pub fn ignored(&self) -> usize {
        self.files.values().map(|f| f.ignored).sum()
    }

    fn take_file(&mut self, name: &str, look: FileLook, touched: &mut BTreeSet<ObjectKey>) {
        match look {
            FileLook::Unchanged => {}
            FileLook::Gone => {
                self.replace(name, Manifest::default(), touched);
                self.files.remove(name);
            }
            FileLook::Unreadable(why) => {
                let place = self.place(name, None);
                self.files.entry(name.to_owned()).or_default().fault = Some(Fault { place, message: why });
            }
            FileLook::Text(text) => match manifest::parse(&text) {
                Ok(manifest) => self.replace(name, manifest, touched),
                Err(e) => {
                    let place = self.place(name, Some(e.document));
                    let fault = Fault { place, message: e.to_string() };
                    self.files.entry(name.to_owned()).or_default().fault = Some(fault);
                }
            },
        }
    }

    /// A good version of a file takes the place of the last one.
    fn replace(&mut self, name: &str, manifest: Manifest, touched: &mut BTreeSet<ObjectKey>) {
        let mut file = File { ignored: manifest.ignored, ..File::default() };
        for (document, object) in manifest.objects {
            let key = object.key();
            match file.objects.get(&key) {
                Some((first, _)) => file.twice.push((key, *first, document)),
                None => {
                    file.objects.insert(key, (document, Arc::new(object)));
                }
            }
        }
        for key in file.objects.keys() {
            self.claims.entry(key.clone()).or_default().insert(name.to_owned());
            touched.insert(key.clone());
        }
        let old = self.files.insert(name.to_owned(), file).unwrap_or_default();
        let kept = &self.files[name].objects;
        for key in old.objects.into_keys().filter(|key| !kept.contains_key(key)) {
            if let Some(files) = self.claims.get_mut(&key) {
                files.remove(name);
                if files.is_empty() {
                    self.claims.remove(&key);
                }
            }
            touched.insert(key);
        }
    }

    fn current(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        let file = self.claims.get(key)?.first()?;
        self.files.get(file)?.objects.get(key).map(|(_, object)| object)
    }

    fn say(&mut self, touched: &BTreeSet<ObjectKey>) -> Vec<SourceEvent> {
        let mut events = Vec::new();
        for key in touched {
            match self.claims.get(key).is_some_and(|files| files.len() > 1) {
                true => self.contested.insert(key.clone()),
                false => self.contested.remove(key),
            };
            match self.current(key).cloned() {
                Some(object) if self.said.get(key) != Some(&object) => {
                    events.push(SourceEvent::Upsert(Object::clone(&object)));
                    self.said.insert(key.clone(), object);
                }
                Some(_) => {}
                None => {
                    if self.said.remove(key).is_some() {
                        events.push(SourceEvent::Delete(key.clone()));
                    }
                }
            }
        }
        events
    }

    fn say_faults(&mut self, events: &mut Vec<SourceEvent>) {
        let now = self.all_faults();
        let mended = self.faults.keys().filter(|place| !now.contains_key(*place));
        events.extend(mended.map(|place| SourceEvent::Mended { place: place.clone() }));
        let new = now.iter().filter(|(place, message)| self.faults.get(*place) != Some(message));
        events.extend(
            new.map(|(place, message)| SourceEvent::Fault(Fault { place: place.clone(), message: message.clone() })),
        );
        self.faults = now;
    }

    fn all_faults(&self) -> BTreeMap<String, String> {
        let mut faults = BTreeMap::new();
        if let Some(why) = &self.directory_fault {
            faults.insert(self.name.clone(), why.clone());
        }
        for (name, file) in &self.files {
            if let Some(fault) = &file.fault {
                faults.insert(fault.place.clone(), fault.message.clone());
            }
            for (key, first, other) in &file.twice {
                let what = describe(key);
                let message = format!("{what} is already in document {first} of the same file, which counts");
                faults.insert(format!("{}: {what}", self.place(name, Some(*other))), message);
            }
        }
        for key in &self.contested {
            let mut files = self.claims.get(key).into_iter().flatten();
            let first = files.next().map(String::as_str).unwrap_or_default();
            for name in files {
                let document = self.files.get(name).and_then(|f| f.objects.get(key)).map(|(document, _)| *document);
                let what = describe(key);
                let message = format!("{what} is also in {first}, which counts; remove one of the two");
                faults.insert(format!("{}: {what}", self.place(name, document)), message);
            }
        }
        faults
    }

    fn place(&self, file: &str, document: Option<usize>) -> String {
        match document {
            Some(number) => format!("{}/{file}, document {number}", self.name),
            None => format!("{}/{file}", self.name),
        }
    }
}

fn describe(key: &ObjectKey) -> String {
    match key {
        ObjectKey::Service(key) => format!("Service {key}"),
        ObjectKey::Slice { namespace, name } => format!("EndpointSlice {namespace}/{name}"),
        ObjectKey::Namespace(name) => format!("Namespace {name}"),
        ObjectKey::Node(name) => format!("Node {name}"),
        ObjectKey::Pod(key) => format!("Pod {key}"),
        ObjectKey::CiliumNode(name) => format!("CiliumNode {name}"),
        ObjectKey::CiliumIdentity(number) => format!("CiliumIdentity {number}"),
        ObjectKey::CiliumEndpoint(key) => format!("CiliumEndpoint {key}"),
        ObjectKey::CiliumEndpointSlice(name) => format!("CiliumEndpointSlice {name}"),
    }
}
