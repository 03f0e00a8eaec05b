//! The numbers of identities, kept in a file for the next life of this program and of its store.
//!
//! The own store says them too, and is read at the start; but a store may be emptied, and then only the file knows. One JSON
//! document, replaced as a whole. A file that cannot be read is not overwritten: it may be the only place that knows.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tombolo_core::identity::{KeptChanges, LabelSet};
use tombolo_core::record::IdentityRecord;
use tombolo_wire::cilium;

/// The file in `--state-dir`.
const FILE: &str = "identities.json";
/// The format this program writes and reads.
const VERSION: u32 = 1;
/// After this long a failed write is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Why kept numbers cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// The file cannot be read.
    #[error("cannot be read: {0}; until it can, or is removed, numbers are kept in the store alone")]
    Read(#[source] io::Error),
    /// The file is not what this program writes.
    #[error(
        "line {line}, column {column}: {message}; mend or remove it: until then numbers are kept in the store alone"
    )]
    Content {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// The file is of another version.
    #[error("is of version {0}, this program knows {VERSION}: until it is removed numbers are kept in the store alone")]
    Version(u32),
    /// A number's labels are none.
    #[error("identity {number}: {source}; mend or remove it: until then numbers are kept in the store alone")]
    Labels {
        /// The number.
        number: u32,
        /// What is wrong with the labels.
        source: cilium::DecodeError,
    },
    /// The file cannot be written.
    #[error("cannot be written: {0}; numbers are kept in the store alone, and this is tried again")]
    Write(#[source] io::Error),
}

/// The file's content: labels as Cilium's own records write them, by number.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    identities: BTreeMap<u32, String>,
}

/// A handle for the driver; [`Self::run`] does the work. Clones are the same.
#[derive(Clone, Debug)]
pub struct Kept(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// Changes that are not in the file.
    pending: Mutex<KeptChanges>,
    fault: Mutex<Option<String>>,
    wake: Notify,
}

impl Kept {
    /// What the file in this directory keeps; nothing when there is none. What is wrong with it is a fault.
    pub fn open(dir: &Path) -> (Self, BTreeMap<u32, LabelSet>) {
        let path = dir.join(FILE);
        let (kept, fault) = match load(&path) {
            Ok(kept) => (kept, None),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "kept identities");
                (BTreeMap::new(), Some(error.to_string()))
            }
        };
        let shared = Shared { path, pending: Mutex::default(), fault: Mutex::new(fault), wake: Notify::new() };
        (Self(Arc::new(shared)), kept)
    }

    /// These are to be kept from now on, or no longer.
    pub fn keep(&self, changes: KeptChanges) {
        if !changes.is_empty() {
            self.0.pending.lock().extend(changes);
            self.0.wake.notify_one();
        }
    }

    /// Where the file is, and what is wrong with it.
    pub fn fault(&self) -> Option<(String, String)> {
        self.0.fault.lock().clone().map(|message| (self.0.path.display().to_string(), message))
    }

    /// Writes what is to be kept, beginning with what was read. Ends only by being dropped.
    pub async fn run(self, read: BTreeMap<u32, LabelSet>) {
        let mut kept = read;
        loop {
            kept = self.follow(kept).await;
        }
    }

    /// Waits for changes, and writes them.
    async fn follow(&self, mut kept: BTreeMap<u32, LabelSet>) -> BTreeMap<u32, LabelSet> {
        self.0.wake.notified().await;
        let changes = std::mem::take(&mut *self.0.pending.lock());
        let mut changed = false;
        for (number, labels) in changes {
            changed |= match labels {
                Some(labels) => kept.insert(number, labels.clone()) != Some(labels),
                None => kept.remove(&number).is_some(),
            };
        }
        if changed { self.write(kept).await } else { kept }
    }

    /// Tries until it is written; a file that could not be read must be gone first.
    async fn write(&self, kept: BTreeMap<u32, LabelSet>) -> BTreeMap<u32, LabelSet> {
        let kept = Arc::new(kept);
        let unread = || self.0.fault.lock().is_some() && self.0.path.exists();
        let mut wrote = false;
        while !wrote {
            if unread() && load(&self.0.path).is_err() {
                tokio::time::sleep(RETRY).await;
                continue;
            }
            let (path, content) = (self.0.path.clone(), Arc::clone(&kept));
            let written = tokio::task::spawn_blocking(move || store(&path, &content)).await;
            let result = written.unwrap_or_else(|panic| Err(io::Error::other(panic)));
            wrote = result.is_ok();
            let fault = result.err().map(|error| KeptError::Write(error).to_string());
            if let Some(fault) = &fault {
                tracing::warn!(path = %self.0.path.display(), %fault, "kept identities");
            }
            *self.0.fault.lock() = fault;
            if !wrote {
                tokio::time::sleep(RETRY).await;
            }
        }
        Arc::unwrap_or_clone(kept)
    }
}

fn load(path: &Path) -> Result<BTreeMap<u32, LabelSet>, KeptError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(KeptError::Read(error)),
    };
    let content: Content = serde_json::from_slice(&text).map_err(|e| KeptError::Content {
        line: e.line(),
        column: e.column(),
        message: e.to_string(),
    })?;
    if content.version != VERSION {
        return Err(KeptError::Version(content.version));
    }
    let labels = |(number, text): (u32, String)| match cilium::decode_labels(text.as_bytes()) {
        Ok(labels) => Ok((number, LabelSet::new(labels))),
        Err(source) => Err(KeptError::Labels { number, source }),
    };
    content.identities.into_iter().map(labels).collect()
}

/// Replaces the file: whoever reads it finds the old content or the new, also after a power cut.
fn store(path: &Path, kept: &BTreeMap<u32, LabelSet>) -> io::Result<()> {
    let text = |(number, labels): (&u32, &LabelSet)| {
        let record = IdentityRecord { number: *number, labels: labels.labels().to_vec() };
        (*number, String::from_utf8_lossy(&cilium::encode_identity(&record)).into_owned())
    };
    let content = Content { version: VERSION, identities: kept.iter().map(text).collect() };
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    serde_json::to_writer_pretty(&mut file, &content)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use tombolo_core::record::IdentityLabel;

    use super::*;

    fn labels(app: &str) -> LabelSet {
        LabelSet::new([IdentityLabel { source: "k8s".into(), key: "app".into(), value: app.into() }])
    }

    #[tokio::test]
    async fn what_is_kept_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, read) = Kept::open(&dir.path().join("state"));
        assert_eq!((read.len(), kept.fault()), (0, None));
        kept.keep([(70_000, Some(labels("a"))), (70_001, Some(labels("b")))].into());
        let written = kept.follow(read).await;
        kept.keep([(70_001, None), (70_002, Some(labels("c")))].into());
        let written = kept.follow(written).await;
        assert_eq!(written, [(70_000, labels("a")), (70_002, labels("c"))].into());
        let (_, read) = Kept::open(&dir.path().join("state"));
        assert_eq!(read, written);
    }

    #[tokio::test]
    async fn a_broken_file_is_told_and_left_until_it_is_removed() {
        for (text, fault) in [
            ("{\"version\":1,\n\"identities\":{\"x\":\"\"}}", "line 2"),
            ("{\"version\":2,\"identities\":{}}", "version 2"),
            ("{\"version\":1,\"identities\":{\"7\":\"\"}}", "identity 7: the labels are empty"),
            ("", "line 1"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(FILE);
            fs::write(&path, text).unwrap();
            let (kept, read) = Kept::open(dir.path());
            let (place, message) = kept.fault().unwrap();
            assert!(place.ends_with(FILE) && message.contains(fault), "{place}: {message}");
            let written = kept.write([(70_000, labels("a"))].into());
            tokio::pin!(written);
            let poll = std::future::poll_fn(|cx| std::task::Poll::Ready(written.as_mut().poll(cx).is_ready()));
            assert!(!poll.await, "it waits");
            assert_eq!(fs::read_to_string(&path).unwrap(), text, "nothing is overwritten");
            fs::remove_file(&path).unwrap();
            written.await;
            assert_eq!((load(&path).unwrap().len(), kept.fault(), read.len()), (1, None, 0));
        }
    }
}
