//! The clock of tests that rustls takes part in: it judges dates by the real one, so leaves must be valid by that.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, in unix seconds.
#[expect(clippy::disallowed_methods, reason = "rustls judges dates by the real clock")]
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
