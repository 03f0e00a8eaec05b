//! The network namespaces that processes are in.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace, kept as long as this value lives.
pub(crate) struct Namespace(File);

impl Namespace {
    /// Moves this thread into it.
    pub(crate) fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?)
    }
}

/// Each network namespace of a process, once. Processes that end meanwhile, or that may not be looked at, are left out.
pub(crate) fn all() -> io::Result<Vec<Namespace>> {
    let (mut seen, mut namespaces) = (BTreeSet::new(), Vec::new());
    for process in fs::read_dir("/proc")?.flatten() {
        if !process.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) {
            continue;
        }
        let path = process.path().join("ns/net");
        let is_new = fs::metadata(&path).is_ok_and(|meta| seen.insert((meta.dev(), meta.ino())));
        if is_new && let Ok(namespace) = File::open(&path) {
            namespaces.push(Namespace(namespace));
        }
    }
    Ok(namespaces)
}
