//! The only reader of clocks in this crate.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use tombolo_core::id::Millis;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds since the first question: a monotonic clock whose zero means nothing.
pub(crate) fn now() -> Millis {
    Millis(u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// Waits until then; for ever without a time.
pub(crate) async fn sleep_until(at: Option<Millis>) {
    match at {
        Some(at) => tokio::time::sleep_until(*START + Duration::from_millis(at.0)).await,
        None => std::future::pending().await,
    }
}

/// Unix milliseconds, for values that people read; nothing is decided by it.
#[expect(clippy::disallowed_methods, reason = "this is the crate's clock.rs")]
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// A seed for jitter, different in every process and call.
pub(crate) fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
