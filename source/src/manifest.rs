//! One file of Kubernetes YAML or JSON: documents and lists in, the mesh's objects out.
//!
//! A file is good as a whole or not at all. What is wrong with it is one [`ManifestError`] that names the document, the
//! line and the field, because a person has to find it. Kinds the mesh does not use are counted and otherwise ignored.

mod cilium;
mod place;
mod pod;
mod shape;

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Options;
use tombolo_core::object::Object;

/// What a good file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Its objects, each with the number of its document, counted from 1.
    pub objects: Vec<(usize, Object)>,
    /// How many objects of other kinds it holds.
    pub ignored: usize,
}

/// Why a file is no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}{}: {message}", .field.as_ref().map(|f| format!(", field {f}")).unwrap_or_default())]
pub struct ManifestError {
    /// The document, counted from 1.
    pub document: usize,
    /// The line in the file, counted from 1.
    pub line: usize,
    /// The column, counted from 1.
    pub column: usize,
    /// The path of the field, when the text shows one.
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
}

/// A `List` of a big cluster has far more nodes than the reader's default budget of 250,000; bombs of aliases are still
/// stopped, since those have limits of their own.
const MAX_NODES: usize = 50_000_000;

/// Reads a whole file.
pub fn parse(text: &str) -> Result<Manifest, ManifestError> {
    let mut manifest = Manifest::default();
    for (index, (first_line, document)) in documents(text).into_iter().enumerate() {
        let number = index + 1;
        let objects = read_document(document).map_err(|e| place::locate(number, first_line, document, &e))?;
        for object in objects {
            match object {
                Some(object) => manifest.objects.push((number, object)),
                None => manifest.ignored += 1,
            }
        }
    }
    Ok(manifest)
}

/// Reads every document of a stream as one shape, each with the line it begins on, counted from 1: for who passes
/// objects on instead of reading what the mesh uses of them.
pub fn each<T: DeserializeOwned>(text: &str) -> Result<Vec<(usize, T)>, ManifestError> {
    let read = |(index, (first_line, document)): (usize, (usize, &str))| {
        let blank = document.lines().take_while(|line| line.trim().is_empty() || line.starts_with('#')).count();
        let value = serde_saphyr::from_str_with_options(document, options());
        let value = value.map_err(|error| place::locate(index + 1, first_line, document, &error))?;
        Ok((first_line + blank + 1, value))
    };
    documents(text).into_iter().enumerate().map(read).collect()
}

/// Splits a stream at its document markers, which YAML lets stand at a line's start only; documents without content
/// are dropped. Yields the line before each document's first.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let (mut start, mut first_line, mut offset) = (0, 0, 0);
    for (line_number, line) in text.split_inclusive('\n').enumerate() {
        let end = offset + line.len();
        let marker = line.trim_end();
        if marker == "---" || marker == "..." || line.starts_with("--- ") {
            found.push((first_line, &text[start..offset]));
            // What follows `--- ` on the marker's own line belongs to the document.
            let inline = if marker.len() > 3 { offset + 4 } else { end };
            (start, first_line) = (inline, if inline == end { line_number + 1 } else { line_number });
        }
        offset = end;
    }
    found.push((first_line, &text[start..]));
    let has_content = |text: &str| text.lines().map(str::trim).any(|l| !l.is_empty() && !l.starts_with(['#', '%']));
    found.retain(|(_, text)| has_content(text));
    found
}

/// Reads one document: the objects of the kinds in use, and `None` for each of another kind.
fn read_document(text: &str) -> Result<Vec<Option<Object>>, serde_saphyr::Error> {
    let header: Option<Header> = serde_saphyr::from_str_with_options(text, options())?;
    let Some(header) = header else { return Ok(Vec::new()) };
    serde_saphyr::with_deserializer_from_str_with_options(text, options(), |de| DocumentSeed(&header).deserialize(de))
}

fn options() -> Options {
    let budget = serde_saphyr::budget! {
        max_nodes: MAX_NODES,
        max_events: 4 * MAX_NODES,
        max_total_scalar_bytes: usize::MAX,
    };
    serde_saphyr::options! { budget: budget, with_snippet: false }
}

/// What decides how a document is read. The kind may stand behind everything else, so it takes a reading of its own.
#[derive(Debug, Deserialize)]
struct Header {
    #[serde(default, rename = "apiVersion")]
    api_version: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    items: Option<Vec<ItemHeader>>,
}

#[derive(Debug, Deserialize)]
struct ItemHeader {
    #[serde(default, rename = "apiVersion")]
    api_version: Option<String>,
    #[serde(default)]
    kind: Option<String>,
}

/// Which shape an object is read with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    Slice,
    /// `v1` Namespace.
    Namespace,
    /// `v1` Node.
    Node,
    /// `v1` Pod.
    Pod,
    /// `cilium.io/v2` CiliumNode.
    CiliumNode,
    /// `cilium.io/v2` CiliumIdentity.
    CiliumIdentity,
    /// `cilium.io/v2` CiliumEndpoint.
    CiliumEndpoint,
    /// `cilium.io/v2alpha1` CiliumEndpointSlice.
    CiliumEndpointSlice,
    /// A kind the mesh does not use.
    Other,
}

impl Kind {
    fn of(api_version: Option<&str>, kind: Option<&str>) -> Self {
        match (api_version.unwrap_or("v1"), kind.unwrap_or_default()) {
            ("v1", "Service") => Self::Service,
            ("v1", "Namespace") => Self::Namespace,
            ("v1", "Node") => Self::Node,
            ("v1", "Pod") => Self::Pod,
            ("discovery.k8s.io/v1", "EndpointSlice") => Self::Slice,
            ("cilium.io/v2", "CiliumNode") => Self::CiliumNode,
            ("cilium.io/v2", "CiliumIdentity") => Self::CiliumIdentity,
            ("cilium.io/v2", "CiliumEndpoint") => Self::CiliumEndpoint,
            ("cilium.io/v2" | "cilium.io/v2alpha1", "CiliumEndpointSlice") => Self::CiliumEndpointSlice,
            _ => Self::Other,
        }
    }
}

impl Header {
    /// The kinds of a list's items: `List` names each, `ServiceList` and its like name all at once.
    fn item_kinds(&self) -> Option<Vec<Kind>> {
        let of_list = self.kind.as_deref()?.strip_suffix("List")?;
        let kind_of = |item: &ItemHeader| match &item.kind {
            Some(kind) => Kind::of(item.api_version.as_deref(), Some(kind)),
            None => Kind::of(self.api_version.as_deref(), Some(of_list)),
        };
        Some(self.items.iter().flatten().map(kind_of).collect())
    }
}

struct DocumentSeed<'a>(&'a Header);

impl<'de> DeserializeSeed<'de> for DocumentSeed<'_> {
    type Value = Vec<Option<Object>>;

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<Self::Value, D::Error> {
        if let Some(kinds) = self.0.item_kinds() {
            return de.deserialize_map(ListVisitor(&kinds));
        }
        if self.0.kind.is_none() {
            return Err(serde::de::Error::missing_field("kind"));
        }
        let kind = Kind::of(self.0.api_version.as_deref(), self.0.kind.as_deref());
        Ok(vec![kind.deserialize(de)?])
    }
}

struct ListVisitor<'a>(&'a [Kind]);

impl<'de> Visitor<'de> for ListVisitor<'_> {
    type Value = Vec<Option<Object>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut objects = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == "items" && !self.0.is_empty() {
                objects = map.next_value_seed(ItemsSeed(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(objects)
    }
}

struct ItemsSeed<'a>(&'a [Kind]);

impl<'de> DeserializeSeed<'de> for ItemsSeed<'_> {
    type Value = Vec<Option<Object>>;

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<Self::Value, D::Error> {
        de.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ItemsSeed<'_> {
    type Value = Vec<Option<Object>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut objects = Vec::with_capacity(self.0.len());
        for kind in self.0 {
            objects.extend(seq.next_element_seed(*kind)?);
        }
        Ok(objects)
    }
}

/// Reads one object of this kind from any format, whatever the text says of its kind; `None` when the mesh cannot use it.
impl<'de> DeserializeSeed<'de> for Kind {
    type Value = Option<Object>;

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<Self::Value, D::Error> {
        Ok(match self {
            Self::Service => Some(Object::Service(shape::Service::deserialize(de)?.into())),
            Self::Slice => shape::EndpointSlice::deserialize(de)?.into_object().map(Object::Slice),
            Self::Namespace => Some(Object::Namespace(shape::Namespace::deserialize(de)?.into())),
            Self::Node => Some(Object::Node(shape::Node::deserialize(de)?.into())),
            Self::Pod => Some(Object::Pod(pod::Pod::deserialize(de)?.into())),
            Self::CiliumNode => Some(Object::CiliumNode(cilium::Node::deserialize(de)?.into())),
            Self::CiliumIdentity => Some(Object::CiliumIdentity(cilium::Identity::deserialize(de)?.into())),
            Self::CiliumEndpoint => Some(Object::CiliumEndpoint(cilium::Endpoint::deserialize(de)?.into())),
            Self::CiliumEndpointSlice => {
                Some(Object::CiliumEndpointSlice(cilium::EndpointSlice::deserialize(de)?.into()))
            }
            Self::Other => {
                IgnoredAny::deserialize(de)?;
                None
            }
        })
    }
}

#[cfg(test)]
mod tests;
