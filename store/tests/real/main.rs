//! The crate against a real etcd 3.6 over mTLS. The binary is `TOMBOLO_ETCD`, else `target/tools/etcd`, else `etcd` on
//! PATH; without one the tests say SKIPPED, or fail under `TOMBOLO_FORBID_SKIPS=1`.
#![expect(clippy::unwrap_used, reason = "a failed step of a test is the test's failure")]

mod listen;
mod session;
mod support;
mod tls;
mod users;
mod writer;
