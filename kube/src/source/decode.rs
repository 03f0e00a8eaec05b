//! The API server's JSON: pages of a list and lines of a watch.
//!
//! A line is read twice, first for its name and revision alone, then through the kind's shape, which skips whatever it does
//! not know. So an object that its shape refuses still has a name, and costs nothing but itself.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use smol_str::SmolStr;
use tombolo_core::object::Object;
use tombolo_source::manifest::Kind;

/// The annotation of the bookmark that ends a streamed list (Kubernetes' `metav1.InitialEventsAnnotationKey`).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// The name of an object within its resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    /// None for objects of the cluster.
    pub(super) namespace: Option<SmolStr>,
    pub(super) name: SmolStr,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// One object as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) name: Name,
    /// `metadata.resourceVersion`: opaque, and only good to go on from.
    pub(super) revision: SmolStr,
    /// The object, nothing when the mesh has no use for it, or what is wrong with which of its fields.
    pub(super) object: Result<Option<Box<Object>>, String>,
}

/// One line of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The object was added or changed.
    Put(Item),
    /// The object was deleted.
    Gone { name: Name, revision: SmolStr },
    /// Nothing of interest happened up to this revision.
    Bookmark { revision: SmolStr },
    /// The same, and everything that existed at the watch's start has been said.
    ListEnd { revision: SmolStr },
    /// The server gives the watch up.
    Failed { code: u16, message: String },
}

/// One page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) items: Vec<Item>,
    /// The revision of the whole list.
    pub(super) revision: SmolStr,
    /// What to ask the next page with, if there is one.
    pub(super) more: Option<String>,
}

/// Reads one line of a watch. An error is a line that is none, not an object that is bad.
pub(super) fn event(kind: Kind, line: &[u8]) -> Result<Event, serde_json::Error> {
    let Line { type_, object: Header { metadata } } = serde_json::from_slice(line)?;
    let revision = metadata.resource_version.clone();
    Ok(match type_ {
        EventType::Added | EventType::Modified => {
            let object = object(Inside(kind), |seed| seed.read(line), |seed, track| seed.read_tracked(line, track));
            Event::Put(Item { name: metadata.into_name()?, revision, object })
        }
        EventType::Deleted => Event::Gone { name: metadata.into_name()?, revision },
        EventType::Bookmark => {
            let Bookmark { object } = serde_json::from_slice(line)?;
            match object.metadata.annotations.is_some_and(|a| a.contains_key(INITIAL_EVENTS_END)) {
                true => Event::ListEnd { revision },
                false => Event::Bookmark { revision },
            }
        }
        EventType::Error => {
            let Failure { object: Status { code, message } } = serde_json::from_slice(line)?;
            Event::Failed { code, message }
        }
    })
}

/// Reads one page of a list. An error is a text that is none, not an object that is bad.
pub(super) fn page(kind: Kind, body: &[u8]) -> Result<Page, serde_json::Error> {
    let mut de = serde_json::Deserializer::from_slice(body);
    let page = PageSeed(kind).deserialize(&mut de)?;
    de.end()?;
    Ok(page)
}

/// The words of a refusal, if its body is a Kubernetes `Status`.
pub(super) fn status_message(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<Status>(body).ok().map(|status| status.message).filter(|message| !message.is_empty())
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    type_: EventType,
    object: Header,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum EventType {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: SmolStr,
    namespace: Option<SmolStr>,
    resource_version: SmolStr,
}

impl Metadata {
    fn into_name<E: serde::de::Error>(self) -> Result<Name, E> {
        if self.name.is_empty() {
            return Err(E::missing_field("metadata.name"));
        }
        Ok(Name { namespace: self.namespace.filter(|n| !n.is_empty()), name: self.name })
    }
}

#[derive(Deserialize)]
struct Bookmark {
    object: BookmarkObject,
}

#[derive(Deserialize)]
struct BookmarkObject {
    metadata: BookmarkMetadata,
}

#[derive(Deserialize)]
struct BookmarkMetadata {
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<SmolStr, SmolStr>>,
}

#[derive(Deserialize)]
struct Failure {
    object: Status,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Status {
    code: u16,
    message: String,
}

/// Reads an object, and if that fails once more, to learn which field it was.
fn object<S: Copy>(
    seed: S,
    read: impl FnOnce(S) -> Result<Option<Object>, serde_json::Error>,
    read_tracked: impl FnOnce(S, &mut serde_path_to_error::Track) -> Result<Option<Object>, serde_json::Error>,
) -> Result<Option<Box<Object>>, String> {
    read(seed).map(|object| object.map(Box::new)).map_err(|_| {
        let mut track = serde_path_to_error::Track::new();
        let error = read_tracked(seed, &mut track).err();
        let path = track.path().to_string();
        let field = path.strip_prefix("object.").unwrap_or(&path);
        let text = error.map(|e| e.to_string()).unwrap_or_default();
        let message = text.find(" at line ").map_or(text.as_str(), |end| &text[..end]);
        if matches!(field, "." | "?" | "object") { message.to_owned() } else { format!("field {field}: {message}") }
    })
}

/// An object inside a watch's line.
#[derive(Clone, Copy)]
struct Inside(Kind);

impl Inside {
    fn read(self, line: &[u8]) -> Result<Option<Object>, serde_json::Error> {
        self.deserialize(&mut serde_json::Deserializer::from_slice(line))
    }

    fn read_tracked(
        self,
        line: &[u8],
        track: &mut serde_path_to_error::Track,
    ) -> Result<Option<Object>, serde_json::Error> {
        let mut de = serde_json::Deserializer::from_slice(line);
        self.deserialize(serde_path_to_error::Deserializer::new(&mut de, track))
    }
}

impl<'de> DeserializeSeed<'de> for Inside {
    type Value = Option<Object>;

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<Self::Value, D::Error> {
        de.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Inside {
    type Value = Option<Object>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a watch event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut object = None;
        while let Some(key) = map.next_key::<SmolStr>()? {
            if key == "object" {
                object = map.next_value_seed(self.0)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(object)
    }
}

struct PageSeed(Kind);

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ListMetadata {
    resource_version: SmolStr,
    #[serde(rename = "continue")]
    more: Option<String>,
}

impl<'de> DeserializeSeed<'de> for PageSeed {
    type Value = Page;

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<Page, D::Error> {
        de.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for PageSeed {
    type Value = Page;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Page, A::Error> {
        let (mut page, mut has_items) = (Page::default(), false);
        while let Some(key) = map.next_key::<SmolStr>()? {
            match key.as_str() {
                "metadata" => {
                    let metadata: ListMetadata = map.next_value()?;
                    page.revision = metadata.resource_version;
                    page.more = metadata.more.filter(|more| !more.is_empty());
                }
                "items" => {
                    page.items = map.next_value_seed(ItemsSeed(self.0))?;
                    has_items = true;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if has_items { Ok(page) } else { Err(A::Error::missing_field("items")) }
    }
}

struct ItemsSeed(Kind);

impl<'de> DeserializeSeed<'de> for ItemsSeed {
    type Value = Vec<Item>;

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<Self::Value, D::Error> {
        // An empty list's items may be null.
        de.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for ItemsSeed {
    type Value = Vec<Item>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence of objects")
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_some<D: Deserializer<'de>>(self, de: D) -> Result<Self::Value, D::Error> {
        de.deserialize_seq(self)
    }

    /// One object at a time is held in full: what its shape refuses must not end the list.
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(value) = seq.next_element::<Value>()? {
            items.push(item(self.0, &value).map_err(A::Error::custom)?);
        }
        Ok(items)
    }
}

fn item(kind: Kind, value: &Value) -> Result<Item, serde_json::Error> {
    let Header { metadata } = Header::deserialize(value)?;
    let revision = metadata.resource_version.clone();
    let object = object(
        kind,
        |kind| kind.deserialize(value),
        |kind, track| kind.deserialize(serde_path_to_error::Deserializer::new(value, track)),
    );
    Ok(Item { name: metadata.into_name()?, revision, object })
}

#[cfg(test)]
mod tests;
