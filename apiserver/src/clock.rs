//! The only place of this crate that reads a clock.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use tombolo_core::id::Millis;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds since the first call, on the monotonic clock.
pub(crate) fn now() -> Millis {
    Millis(u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// Sleeps until then; for ever when there is no such time.
pub(crate) async fn sleep_until(at: Option<Millis>) {
    match at {
        Some(at) => tokio::time::sleep_until(*START + Duration::from_millis(at.0)).await,
        None => std::future::pending().await,
    }
}

/// Unix time in milliseconds, for values people and Cilium read.
#[expect(clippy::disallowed_methods, reason = "this is the crate's clock.rs")]
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
