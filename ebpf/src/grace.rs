//! Waiting until no program can still hold what it read before.

use std::os::fd::AsFd;

use crate::{DatapathError, sys};

/// Waits for an RCU grace period: afterwards no program holds a switch word, or what it led to, from before the call.
///
/// Blocks for 8 to 24 ms, so it belongs on a thread of its own, once for many changes. Kernels with nohz_full refuse
/// the cheaper way, then an update of a map of maps waits as long; that one needs the rights of [`crate::Datapath`].
pub fn grace_period() -> Result<(), DatapathError> {
    sys::membarrier_global().or_else(|_| by_map_in_map()).map_err(DatapathError::Grace)
}

fn by_map_in_map() -> std::io::Result<()> {
    let inner = sys::create_array(1, 0)?;
    sys::wait_by_map_in_map(inner.as_fd())
}

#[cfg(test)]
mod tests {
    use rustix::process::geteuid;

    use super::{by_map_in_map, grace_period};

    #[test]
    fn a_grace_period_ends() {
        grace_period().unwrap();
    }

    #[test]
    fn the_other_way_ends_too() {
        match by_map_in_map() {
            Ok(()) => {}
            Err(e) => assert!(!geteuid().is_root() && e.kind() == std::io::ErrorKind::PermissionDenied, "{e}"),
        }
    }
}
