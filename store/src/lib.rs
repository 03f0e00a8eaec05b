//! What stands between Tombolo and an etcd v3 store: connections, sessions that read, a writer, users and listeners.
//!
//! A [`session()`] reads prefixes and follows them, whatever happens to the store; a [`Writer`] keeps a set of keys as it
//! should be; [`users`] says which certificate may do what. Both are a state machine that waits for nothing, and a thin
//! tokio shell around it. Keys and values are bytes here: their meaning is `tombolo-wire`'s and the caller's.

mod clock;
mod config;
pub mod dial;
pub mod listen;
mod random;
pub mod session;
pub mod users;
pub mod writer;

pub use config::{StoreConfig, TlsFiles};
pub use dial::{DialError, admin_channel};
pub use session::{SessionError, SessionEvent, SessionSpec, Watch, session};
pub use users::bootstrap_users;
pub use writer::{LEASE_TTL, Scope, Surplus, Writer, WriterSpec, WriterStatus};
