//! Server-side apply of YAML: many documents, each error with the place of the document it is about.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tombolo_source::manifest::{ManifestError, each};

use crate::objects::{How, Kind, ObjectError, ObjectName, Objects};

/// How long a server may take to know a kind whose definition was applied before.
pub(crate) const NEW_KIND: Duration = Duration::from_secs(20);

/// How soon it is asked again.
const AGAIN: Duration = Duration::from_millis(50);

/// An object as a document has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The line of the text it begins on, counted from 1.
    pub line: usize,
    /// What it is called. A namespace that is not written is absent here.
    pub name: ObjectName,
    /// The whole of it.
    pub object: Value,
}

/// A document that was not applied.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {name}: {source}")]
pub struct ApplyError {
    /// The line of the text it begins on, counted from 1.
    pub line: usize,
    /// What it is called.
    pub name: ObjectName,
    /// Why not.
    pub source: ObjectError,
}

/// What every object must have.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
}

/// Reads YAML or JSON: one object a document. Nothing of a text with an error is given.
pub fn read(text: &str) -> Result<Vec<Document>, ManifestError> {
    let heads = each::<Head>(text)?;
    let objects = each::<Value>(text)?;
    let document = |((line, head), (_, object)): ((usize, Head), (usize, Value))| {
        let kind = Kind { api_version: head.api_version, kind: head.kind };
        let name = ObjectName { kind, namespace: head.metadata.namespace, name: head.metadata.name };
        Document { line, name, object }
    };
    Ok(heads.into_iter().zip(objects).map(document).collect())
}

/// Applies documents in their order and gives each object as the server has it then. Ends at the first that is not
/// applied: what follows may need it.
pub async fn apply(objects: &Objects, documents: &[Document], how: How) -> Result<Vec<Value>, ApplyError> {
    let mut applied = Vec::with_capacity(documents.len());
    let mut patience = Duration::ZERO;
    for Document { line, name, object } in documents {
        let failed = |source| ApplyError { line: *line, name: name.clone(), source };
        let complete = known(objects, name, patience).await.map_err(failed)?;
        applied.push(objects.apply(&complete, object, how).await.map_err(failed)?);
        if name.kind.kind == "CustomResourceDefinition" && how == How::Write {
            patience = NEW_KIND;
        }
    }
    Ok(applied)
}

/// The name with its namespace, once the server knows the kind: one whose definition it was just given takes a moment.
pub(crate) async fn known(objects: &Objects, name: &ObjectName, patience: Duration) -> Result<ObjectName, ObjectError> {
    let until = Instant::now() + patience;
    loop {
        match objects.complete(name.clone()).await {
            Err(error) if error.code() == Some(404) && Instant::now() < until => sleep(AGAIN).await,
            other => return other,
        }
    }
}

/// Deletes what documents name, last first: what was applied first may be needed until the end.
pub async fn delete(objects: &Objects, documents: &[Document]) -> Result<(), ApplyError> {
    for Document { line, name, .. } in documents.iter().rev() {
        let failed = |source| ApplyError { line: *line, name: name.clone(), source };
        objects.delete(name, crate::objects::Grace::Usual).await.map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_their_lines_and_names() {
        let text = "# first\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n\n---\n\
                    apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: b\n  namespace: a\nspec: {replicas: 3}\n";
        let read = read(text).unwrap();
        let seen: Vec<_> = read.iter().map(|d| (d.line, d.name.to_string())).collect();
        assert_eq!(seen, [(3, "Namespace a".to_owned()), (9, "Deployment a/b".to_owned())]);
        assert_eq!(read[1].object["spec"]["replicas"], 3);
        assert_eq!(read[1].name.kind, Kind::new("apps/v1", "Deployment"));
    }

    #[test]
    fn what_is_missing_is_said_with_its_place() {
        let line_of = |text: &str| read(text).unwrap_err().to_string();
        let error = line_of(
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nmetadata:\n  name: x\n",
        );
        assert!(error.starts_with("line 6") && error.contains("kind"), "{error}");
        let error = line_of("apiVersion: v1\nkind: Namespace\nmetadata:\n  labels: {}\n");
        assert!(error.contains("name"), "{error}");
        let error = line_of("apiVersion: v1\nkind: [\n");
        assert!(error.starts_with("line "), "{error}");
    }
}
