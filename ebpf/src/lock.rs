//! One owner for a folder of pins.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock, major, minor};
use rustix::io::Errno;

use crate::DatapathError;

/// A folder that is locked until this value is dropped, or its process ends in any way.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Locks a folder that exists; says who has it when somebody does.
    pub(crate) fn take(folder: &Path) -> Result<Self, DatapathError> {
        let io = |call| move |source| DatapathError::Pin { call, path: folder.to_owned(), source };
        let file = File::open(folder).map_err(io("open"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(file)),
            Err(Errno::WOULDBLOCK) => {
                Err(DatapathError::Locked { path: folder.to_owned(), holder: holder(&file).unwrap_or_default() })
            }
            Err(e) => Err(io("flock")(e.into())),
        }
    }
}

impl Drop for Lock {
    /// Unlocks by name and not only by closing: a child that another thread is just forking holds the descriptor too.
    fn drop(&mut self) {
        let _ = flock(self.0.as_fd(), FlockOperation::Unlock);
    }
}

/// Who holds the lock, by proc_locks(5): ` (pid 123, tombolo-agent)`.
fn holder(file: &File) -> Option<String> {
    let meta = file.metadata().ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|line| pid_of(line, meta.dev(), meta.ino()))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!(" (pid {pid}, {})", name.trim_end()))
}

/// The pid in a line such as `1: FLOCK  ADVISORY  WRITE 708 00:13:11340 0 EOF`, when it is a lock on this file.
fn pid_of(line: &str, dev: u64, inode: u64) -> Option<u32> {
    let mut fields = line.split_whitespace().skip(1);
    if fields.next()? != "FLOCK" {
        return None;
    }
    let (pid, file) = (fields.nth(2)?, fields.next()?);
    (file == format!("{:02x}:{:02x}:{inode}", major(dev), minor(dev))).then(|| pid.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::{Lock, pid_of};
    use crate::DatapathError;

    #[test]
    fn the_second_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let error = Lock::take(dir.path()).unwrap_err();
        let DatapathError::Locked { path, holder } = error else { panic!("{error}") };
        assert_eq!(path, dir.path());
        assert!(holder.starts_with(&format!(" (pid {}, ", std::process::id())), "{holder:?}");
        drop(first);
        Lock::take(dir.path()).unwrap();
    }

    #[test]
    fn a_line_of_another_file_or_kind_is_nobody() {
        let line = "1: FLOCK  ADVISORY  WRITE 708 00:13:11340 0 EOF";
        assert_eq!(pid_of(line, 0x13, 11340), Some(708));
        assert_eq!(pid_of(line, 0x13, 11341), None);
        assert_eq!(pid_of("1: POSIX  ADVISORY  WRITE 708 00:13:11340 0 EOF", 0x13, 11340), None);
        assert_eq!(pid_of("1: -> FLOCK", 0x13, 11340), None);
    }
}
