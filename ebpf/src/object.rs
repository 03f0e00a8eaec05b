//! The compiled programs, and whether they were built from this layout.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use tombolo_ebpf_layout::{MARK_MAGIC, SOCKETS_LAYOUT, TABLES_LAYOUT};

use crate::DatapathError;

/// The committed object; `prebuilt/TOOLCHAIN` says what made it.
static PREBUILT: &[u8] = aya::include_bytes_aligned!("../prebuilt/tombolo.bpf.o");

/// The committed object, or the one at a path, when its layout is this program's.
pub(crate) fn load(path: Option<&Path>) -> Result<Cow<'static, [u8]>, DatapathError> {
    let object = match path {
        None => Cow::Borrowed(PREBUILT),
        Some(path) => std::fs::read(path)
            .map(Cow::Owned)
            .map_err(|source| DatapathError::Object { path: path.to_owned(), source })?,
    };
    let want = Layout { tables: TABLES_LAYOUT, sockets: SOCKETS_LAYOUT };
    match Layout::of(&object) {
        Some(found) if found == want => Ok(object),
        other => Err(DatapathError::Layout {
            found: other.map_or("no layout mark".to_owned(), |found| found.to_string()),
            want: want.to_string(),
        }),
    }
}

/// The two hashes of an object.
#[derive(PartialEq, Eq)]
struct Layout {
    tables: u64,
    sockets: u64,
}

impl Layout {
    /// The hashes after the mark's magic.
    fn of(object: &[u8]) -> Option<Self> {
        let at = object.windows(MARK_MAGIC.len()).position(|window| window == MARK_MAGIC)?;
        let (tables, rest) = object.get(at + MARK_MAGIC.len()..)?.split_first_chunk()?;
        let (sockets, _) = rest.split_first_chunk()?;
        Some(Self { tables: u64::from_le_bytes(*tables), sockets: u64::from_le_bytes(*sockets) })
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layout {:016x} of tables and {:016x} of sockets", self.tables, self.sockets)
    }
}

#[cfg(test)]
mod tests {
    use tombolo_ebpf_layout::LAYOUT_MARK;

    use super::{Layout, PREBUILT, load};
    use crate::DatapathError;

    #[test]
    fn the_committed_object_has_this_layout() {
        load(None).unwrap();
    }

    #[test]
    fn another_layout_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("other.o");
        let at = PREBUILT.windows(LAYOUT_MARK.len()).position(|window| window == LAYOUT_MARK).unwrap();
        for hash in [16, 24] {
            let mut object = PREBUILT.to_vec();
            object[at + hash] ^= 1;
            std::fs::write(&path, &object).unwrap();
            assert!(matches!(load(Some(&path)), Err(DatapathError::Layout { .. })));
        }
        assert!(Layout::of(b"no object at all").is_none());
    }
}
