//! The compiled programs, and whether they were built from this layout.

use std::borrow::Cow;
use std::path::Path;

use tombolo_ebpf_layout::{LAYOUT_HASH, MARK_MAGIC};

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
    match layout_of(&object) {
        Some(LAYOUT_HASH) => Ok(object),
        other => Err(DatapathError::Layout {
            found: other.map_or("no layout mark".to_owned(), |hash| format!("layout {hash:016x}")),
            want: LAYOUT_HASH,
        }),
    }
}

/// The layout hash after the mark's magic.
fn layout_of(object: &[u8]) -> Option<u64> {
    let at = object.windows(MARK_MAGIC.len()).position(|window| window == MARK_MAGIC)?;
    let (hash, _) = object.get(at + MARK_MAGIC.len()..)?.split_first_chunk()?;
    Some(u64::from_le_bytes(*hash))
}

#[cfg(test)]
mod tests {
    use tombolo_ebpf_layout::LAYOUT_MARK;

    use super::{PREBUILT, layout_of, load};
    use crate::DatapathError;

    #[test]
    fn the_committed_object_has_this_layout() {
        load(None).unwrap();
    }

    #[test]
    fn another_layout_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("other.o");
        let mut object = PREBUILT.to_vec();
        let at = object.windows(24).position(|window| window == LAYOUT_MARK).unwrap();
        object[at + 16] ^= 1;
        std::fs::write(&path, &object).unwrap();
        assert!(matches!(load(Some(&path)), Err(DatapathError::Layout { .. })));
        assert_eq!(layout_of(b"no object at all"), None);
    }
}
