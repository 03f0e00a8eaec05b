//! The one place that reads the wall clock: certificates are judged and dated by it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix seconds, now; 0 on a machine whose clock is before 1970.
#[expect(clippy::disallowed_methods, reason = "this is clock.rs")]
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
