//! Arrays of the kernel as memory.
#![expect(unsafe_code, reason = "memory shared with the kernel")]

use std::ffi::c_void;
use std::io;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A mmapable array map, as the words that the programs read. It derefs to them; every access is atomic, since the
/// programs run meanwhile.
#[derive(Debug)]
pub(crate) struct Words {
    base: NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone and is only ever reached as atomics.
unsafe impl Send for Words {}
// SAFETY: as above; atomics may be shared.
unsafe impl Sync for Words {}

impl Words {
    /// Maps `len` words of an array map; its values' sizes are multiples of 8 bytes.
    pub(crate) fn map(array: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice. The kernel checks that the map has this many
        // bytes, its memory is only shrunk by dropping the map, and a mapping holds a reference to that.
        let base = unsafe {
            mmap(std::ptr::null_mut(), len * 8, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, array, 0)
        }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }
}

/// A value of several words; `None` outside the map.
pub(crate) fn load<const N: usize>(map: &Words, index: u32) -> Option<[u64; N]> {
    let (places, _) = map.as_chunks::<N>();
    let words = places.get(index as usize)?;
    Some(words.each_ref().map(|word| word.load(Ordering::Relaxed)))
}

impl Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: `len` aligned words are mapped, readable and writable, until `drop`; any bits are a u64.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: the mapping made above; no reference outlives this value. An error would leave it mapped.
        let _ = unsafe { munmap(self.base.as_ptr().cast::<c_void>(), self.len * 8) };
    }
}
