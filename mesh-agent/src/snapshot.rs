//! What the agent held, on disk: so that the next life answers at once, and can begin without a store.
//!
//! A snapshot is what records said, not what was decided from them. It is believed only whole: its checksum covers all
//! but the few bytes that say what the file is. Left out: what a snapshot may be used for (`feed`, `driver`).

mod saver;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes};

pub use saver::{Save, Saver, save};

/// The file's name in the state folder.
pub const FILE: &str = "snapshot";
/// While it is written.
pub const NEW_FILE: &str = "snapshot.new";

const MAGIC: &[u8; 8] = b"tombosnp";
/// Of the format of what follows the checksum.
const VERSION: u32 = 1;
/// Magic, version, checksum.
const HEADER: usize = 16;

/// What an agent held, and when and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The cluster it was held for.
    pub cluster: String,
    /// The node it was held on.
    pub node: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// When the store was last heard, in unix milliseconds.
    pub unix_ms: u64,
    /// The records.
    pub entries: Vec<Entry>,
}

/// One of Tombolo's own records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key, as in the store.
    pub key: String,
    /// The revision that brought it.
    pub revision: i64,
    /// Its value, as in the store.
    pub value: Bytes,
}

/// Why there is no snapshot to begin with.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else.
    #[error("{path} is no snapshot", path = .0.display())]
    Other(PathBuf),
    /// Another release wrote it.
    #[error("{path} has format {found}, this program reads {VERSION}", path = path.display())]
    Version {
        /// Which.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It was cut short or changed.
    #[error("{path} is damaged: {what}", path = path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What does not fit.
        what: &'static str,
    },
}

/// The snapshot of a state folder; `None` where there is none.
pub fn read(folder: &Path) -> Result<Option<Snapshot>, SnapshotError> {
    let path = folder.join(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(SnapshotError::File { path, source }),
    };
    match decode(bytes.into()) {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(Fault::Other) => Err(SnapshotError::Other(path)),
        Err(Fault::Version(found)) => Err(SnapshotError::Version { path, found }),
        Err(Fault::Damaged(what)) => Err(SnapshotError::Damaged { path, what }),
    }
}

/// Puts a snapshot in place of the one before: whoever reads finds the old one or the new one, whole, whenever this
/// process or the machine stops.
pub fn write(folder: &Path, snapshot: &Snapshot) -> Result<(), SnapshotError> {
    let (new, path) = (folder.join(NEW_FILE), folder.join(FILE));
    let written = (|| {
        fs::create_dir_all(folder)?;
        let mut file = File::create(&new)?;
        file.write_all(&encode(snapshot))?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(folder)?.sync_all()
    })();
    written.map_err(|source| SnapshotError::File { path, source })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Other,
    Version(u32),
    Damaged(&'static str),
}

fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let Snapshot { cluster, node, boot_id, unix_ms, entries } = snapshot;
    let size: usize = entries.iter().map(|entry| entry.key.len() + entry.value.len() + 16).sum();
    let mut bytes = Vec::with_capacity(HEADER + size + 256);
    bytes.put_slice(MAGIC);
    bytes.put_u32(VERSION);
    bytes.put_u32(0);
    for text in [cluster, node, boot_id] {
        put(&mut bytes, text.as_bytes());
    }
    bytes.put_u64(*unix_ms);
    bytes.put_u32(length(entries.len()));
    for Entry { key, revision, value } in entries {
        put(&mut bytes, key.as_bytes());
        bytes.put_i64(*revision);
        put(&mut bytes, value);
    }
    let checksum = crc32fast::hash(&bytes[HEADER..]);
    bytes[HEADER - 4..HEADER].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.put_u32(length(part.len()));
    bytes.put_slice(part);
}

fn length(len: usize) -> u32 {
    u32::try_from(len).expect("no record is as long as 4 GiB, and no agent holds as many")
}

fn decode(mut bytes: Bytes) -> Result<Snapshot, Fault> {
    if MAGIC.iter().zip(&bytes).any(|(want, found)| want != found) {
        return Err(Fault::Other);
    }
    if bytes.len() < HEADER {
        return Err(CUT_SHORT);
    }
    bytes.advance(MAGIC.len());
    let (version, checksum) = (bytes.get_u32(), bytes.get_u32());
    if version != VERSION {
        return Err(Fault::Version(version));
    }
    if crc32fast::hash(&bytes) != checksum {
        return Err(Fault::Damaged("its checksum is another"));
    }
    let snapshot = Snapshot {
        cluster: text(&mut bytes)?,
        node: text(&mut bytes)?,
        boot_id: text(&mut bytes)?,
        unix_ms: bytes.try_get_u64().map_err(|_| CUT_SHORT)?,
        entries: entries(&mut bytes)?,
    };
    if bytes.is_empty() { Ok(snapshot) } else { Err(Fault::Damaged("something follows its end")) }
}

const CUT_SHORT: Fault = Fault::Damaged("it is cut short");

fn entries(bytes: &mut Bytes) -> Result<Vec<Entry>, Fault> {
    let count = bytes.try_get_u32().map_err(|_| CUT_SHORT)?;
    let mut entry = || {
        let key = text(bytes)?;
        let revision = bytes.try_get_i64().map_err(|_| CUT_SHORT)?;
        Ok(Entry { key, revision, value: part(bytes)? })
    };
    (0..count).map(|_| entry()).collect()
}

fn text(bytes: &mut Bytes) -> Result<String, Fault> {
    String::from_utf8(part(bytes)?.into()).map_err(|_| Fault::Damaged("a name is no text"))
}

fn part(bytes: &mut Bytes) -> Result<Bytes, Fault> {
    let len = bytes.try_get_u32().map_err(|_| CUT_SHORT)? as usize;
    if len > bytes.len() { Err(CUT_SHORT) } else { Ok(bytes.split_to(len)) }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn snapshot() -> impl Strategy<Value = Snapshot> {
        let entry = ("[ -~]{0,20}", any::<i64>(), vec(any::<u8>(), 0..40));
        let entry = entry.prop_map(|(key, revision, value)| Entry { key, revision, value: value.into() });
        ("[a-z]{1,8}", "[a-z0-9.]{1,9}", "[0-9a-f-]{36}", any::<u64>(), vec(entry, 0..6)).prop_map(
            |(cluster, node, boot_id, unix_ms, entries)| Snapshot { cluster, node, boot_id, unix_ms, entries },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_snapshot_comes_back(snapshot in snapshot()) {
            let folder = tempfile::tempdir().unwrap();
            prop_assert_eq!(read(folder.path()).unwrap(), None);
            write(folder.path(), &snapshot).unwrap();
            prop_assert_eq!(read(folder.path()).unwrap(), Some(snapshot));
            prop_assert!(!folder.path().join(NEW_FILE).exists());
        }

        #[test]
        fn every_truncation_and_every_flipped_bit_is_noticed(snapshot in snapshot(), more in vec(any::<u8>(), 1..9)) {
            let bytes = encode(&snapshot);
            for len in 0..bytes.len() {
                prop_assert!(decode(Bytes::copy_from_slice(&bytes[..len])).is_err(), "cut to {len}");
            }
            for bit in 0..bytes.len() * 8 {
                let mut bytes = bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(decode(bytes.into()).is_err(), "bit {bit}");
            }
            prop_assert!(decode([bytes, more].concat().into()).is_err());
        }

        #[test]
        fn nothing_at_all_makes_it_panic(bytes in vec(any::<u8>(), 0..200), right: bool) {
            let mut bytes = bytes;
            if right && bytes.len() >= HEADER {
                bytes[..MAGIC.len()].copy_from_slice(MAGIC);
                bytes[8..12].copy_from_slice(&VERSION.to_be_bytes());
                let checksum = crc32fast::hash(&bytes[HEADER..]).to_be_bytes();
                bytes[12..HEADER].copy_from_slice(&checksum);
            }
            let _either = decode(bytes.into());
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let said = |bytes: &[u8]| {
            fs::write(folder.path().join(FILE), bytes).unwrap();
            let error = read(folder.path()).unwrap_err().to_string();
            error.replace(&folder.path().display().to_string(), "DIR")
        };
        let whole = encode(&Snapshot {
            cluster: "ne".into(),
            node: "ne-1".into(),
            boot_id: String::new(),
            unix_ms: 1,
            entries: vec![],
        });
        assert_eq!(said(b"a poem about the sea"), "DIR/snapshot is no snapshot");
        assert_eq!(said(&whole[..10]), "DIR/snapshot is damaged: it is cut short");
        assert_eq!(said(&whole[..30]), "DIR/snapshot is damaged: its checksum is another");
        let newer = [&whole[..8], &[0, 0, 0, 2], &whole[12..]].concat();
        assert_eq!(said(&newer), "DIR/snapshot has format 2, this program reads 1");
        assert!(write(&folder.path().join(FILE), &decode(whole.into()).unwrap()).is_err(), "a file is no folder");
    }
}
