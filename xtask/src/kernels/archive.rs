//! An initramfs: a cpio archive in the "newc" format (the kernel's Documentation/driver-api/early-userspace).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// What a machine starts with. Folders of a file are added before it.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    /// Paths that are in it.
    held: BTreeSet<String>,
}

impl Archive {
    /// An empty folder.
    pub(super) fn folder(&mut self, path: &str) {
        self.parents(path);
        self.add(path, FOLDER, &[]);
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.parents(path);
        self.add(path, LINK, target.as_bytes());
    }

    /// An executable file with this text.
    pub(super) fn script(&mut self, path: &str, text: &str) {
        self.parents(path);
        self.add(path, FILE, text.as_bytes());
    }

    /// A copy of a file, executable.
    pub(super) fn program(&mut self, path: &str, from: &Path) -> Result<()> {
        let bytes = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        self.parents(path);
        self.add(path, FILE, &bytes);
        Ok(())
    }

    /// The archive's bytes.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/').filter(|(at, _)| *at > 0) {
            self.add(&path[..at], FOLDER, &[]);
        }
    }

    fn add(&mut self, path: &str, mode: u32, data: &[u8]) {
        if self.held.insert(path.to_owned()) {
            self.entry(path.trim_start_matches('/'), mode, data);
        }
    }

    /// A header of thirteen numbers in hexadecimal, the name with a zero byte, the data; both padded to four bytes.
    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) {
        let serial = self.held.len();
        let links = if mode == FOLDER { 2 } else { 1 };
        // Owner, group, time, device and special device, and the checksum, are zero.
        let (size, named) = (data.len(), name.len() + 1);
        let header = format!(
            "070701{serial:08x}{mode:08x}{0:08x}{0:08x}{links:08x}{0:08x}{size:08x}{0:08x}{0:08x}{0:08x}{0:08x}\
             {named:08x}{0:08x}",
            0
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn a_file_brings_its_folders_once() {
        let mut archive = Archive::default();
        archive.script("/a/b/one", "1");
        archive.script("/a/b/two", "22");
        archive.folder("/a/b");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        let headers: Vec<_> = text.match_indices("070701").map(|(at, _)| &text[at..]).collect();
        let number = |header: &str, n: usize| usize::from_str_radix(&header[6 + 8 * n..14 + 8 * n], 16).unwrap();
        let entries = headers.iter().map(|h| {
            let (mode, size, named) = (number(h, 1), number(h, 6), number(h, 11));
            let name = &h[110..110 + named - 1];
            let data = (110 + named).next_multiple_of(4);
            (name, mode, &h[data..data + size])
        });
        let file = 0o100_755;
        let folder = 0o040_755;
        let expected = [
            ("a", folder, ""),
            ("a/b", folder, ""),
            ("a/b/one", file, "1"),
            ("a/b/two", file, "22"),
            ("TRAILER!!!", 0, ""),
        ];
        assert_eq!(entries.collect::<Vec<_>>(), expected);
    }
}
